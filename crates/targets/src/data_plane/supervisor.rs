//! Keeps a proxy running and the desired routes applied: a loop that owns the process.
//!
//! # Trip conditions
//!
//! The process exits, which its pidfd reports at once.
//!
//! # Recovery
//!
//! A proxy that answers at the control socket is adopted (an upgraded one, for example); otherwise one is started, first
//! immediately and then with backoff. The desired routes are applied again, because a new process only knows those on its disk.
//!
//! # Failure modes
//!
//! A proxy that runs but doesn't answer is left running and asked again: it may still serve.

use std::{path::PathBuf, sync::Arc, time::Duration};

use shipway_proxy::{
    control_client::{ControlClient, ControlError},
    protocol::{AcceptedRoutes, RouteSnapshot},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    CALL_DEADLINE, DataPlaneError, DataPlaneOptions,
    proxy_process::{ProxyProcess, last_log_line},
};

/// Start timeout. A process listens within milliseconds, later on a machine that swaps.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// First and last interval for asking a starting process; doubled in between.
const ASK_FIRST: Duration = Duration::from_millis(5);
const ASK_LAST: Duration = Duration::from_millis(80);
/// First and last pause between failed starts and failed updates; doubled in between. Short, because nothing is served
/// meanwhile.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// A proxy that ran this long was healthy: its exit resets the backoff.
const WELL: Duration = Duration::from_secs(30);

/// The desired routes.
#[derive(Clone, Debug)]
pub(super) struct DesiredRoutes {
    pub(super) revision: u64,
    pub(super) snapshot: Arc<RouteSnapshot>,
}

/// The result of applying the last routes.
#[derive(Clone, Debug)]
pub(super) struct AppliedRoutes {
    /// The latest revision with a result.
    pub(super) revision: u64,
    /// The proxy's response, or why they are not applied.
    pub(super) outcome: Result<AcceptedRoutes, RoutesRefusal>,
}

/// The proxy's reason for refusing the routes. Retrying with the same routes is useless.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RoutesRefusal(pub(super) String);

impl Default for AppliedRoutes {
    fn default() -> Self {
        Self {
            revision: 0,
            outcome: Ok(AcceptedRoutes::default()),
        }
    }
}

/// The supervision loop.
pub(super) struct ProxySupervisor {
    options: DataPlaneOptions,
    control: ControlClient,
    wanted: watch::Receiver<Option<DesiredRoutes>>,
    applied: watch::Sender<AppliedRoutes>,
    stopping: CancellationToken,
}

/// Why the supervision of a process ended.
enum SupervisionEnd {
    /// The process exited.
    Ended,
    /// The supervision was stopped.
    Stopping,
}

impl ProxySupervisor {
    pub(super) const fn new(
        options: DataPlaneOptions,
        control: ControlClient,
        wanted: watch::Receiver<Option<DesiredRoutes>>,
        applied: watch::Sender<AppliedRoutes>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            options,
            control,
            wanted,
            applied,
            stopping,
        }
    }

    /// Runs until stopped; returns the process, if there is one then.
    pub(super) async fn run(mut self, mut process: ProxyProcess) -> Option<ProxyProcess> {
        let mut retry = RETRY_FIRST;
        loop {
            let since = Instant::now();
            match self.supervise_routes(&mut process).await {
                SupervisionEnd::Stopping => return Some(process),
                SupervisionEnd::Ended => tracing::error!(
                    "the proxy exited and is restarted: {}",
                    last_log_line(&self.options.log)
                ),
            }
            if since.elapsed() > WELL {
                retry = RETRY_FIRST;
            } else {
                self.wait_before_retry(&mut retry).await?;
            }
            process = self.restart_proxy(&mut retry).await?;
        }
    }

    /// Finds or starts a proxy, with retries; `None` when stopping.
    async fn restart_proxy(&self, retry: &mut Duration) -> Option<ProxyProcess> {
        loop {
            let attempt = self
                .stopping
                .run_until_cancelled(find_or_start_proxy(&self.options, &self.control))
                .await?;
            match attempt {
                Ok(process) => return Some(process),
                Err(error) => tracing::error!("{error}"),
            }
            self.wait_before_retry(retry).await?;
        }
    }

    async fn wait_before_retry(&self, retry: &mut Duration) -> Option<()> {
        self.stopping.run_until_cancelled(sleep(*retry)).await?;
        *retry = (*retry * 2).min(RETRY_LAST);
        Some(())
    }

    /// Keeps the desired routes applied while this process runs.
    async fn supervise_routes(&mut self, process: &mut ProxyProcess) -> SupervisionEnd {
        let mut in_force = 0;
        let mut retry = Duration::ZERO;
        loop {
            let wanted = self
                .wanted
                .borrow_and_update()
                .clone()
                .filter(|wanted| wanted.revision != in_force);
            let stopping = self.stopping.clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return SupervisionEnd::Stopping,
                () = process.wait_until_ended() => return SupervisionEnd::Ended,
                outcome = send_routes_after(&self.control, wanted.as_ref(), retry) => match outcome {
                    Ok(applied) => {
                        in_force = applied.revision;
                        retry = Duration::ZERO;
                        self.applied.send_replace(applied);
                    }
                    Err(error) => {
                        if retry.is_zero() {
                            tracing::warn!("the routes are sent again: {error}");
                        }
                        retry = (retry * 2).clamp(RETRY_FIRST, RETRY_LAST);
                    }
                },
                changed = self.wanted.changed(), if wanted.is_none() => if changed.is_err() {
                    return SupervisionEnd::Stopping;
                },
            }
        }
    }
}

/// Applies these routes after a pause; pending forever without routes.
async fn send_routes_after(
    control: &ControlClient,
    wanted: Option<&DesiredRoutes>,
    pause: Duration,
) -> Result<AppliedRoutes, DataPlaneError> {
    let Some(wanted) = wanted else {
        return std::future::pending().await;
    };
    sleep(pause).await;
    let answer = timeout(CALL_DEADLINE, control.send_routes(&wanted.snapshot)).await;
    let outcome = match answer.map_err(|_| DataPlaneError::Timeout)? {
        Ok(accepted) => Ok(accepted),
        Err(ControlError::Refused(why)) => Err(RoutesRefusal(why)),
        Err(error @ ControlError::Unreachable { .. }) => return Err(error.into()),
    };
    Ok(AppliedRoutes {
        revision: wanted.revision,
        outcome,
    })
}

/// The process that answers at the control socket, or a new one.
pub(super) async fn find_or_start_proxy(
    options: &DataPlaneOptions,
    control: &ControlClient,
) -> Result<ProxyProcess, DataPlaneError> {
    if let Some(process) = find_proxy(control).await {
        return Ok(process);
    }
    let mut process = ProxyProcess::start(options)?;
    let answers = async {
        let mut pause = ASK_FIRST;
        while timeout(CALL_DEADLINE, control.health())
            .await
            .is_ok_and(|health| health.is_err())
        {
            sleep(pause).await;
            pause = (pause * 2).min(ASK_LAST);
        }
    };
    let failed: Result<ProxyProcess, DataPlaneError> = tokio::select! {
        answered = timeout(START_DEADLINE, answers) => match answered {
            Ok(()) => return Ok(process),
            Err(_) => Err(DataPlaneError::Silent { after: START_DEADLINE, log_file: options.log.clone() }),
        },
        () = process.wait_until_ended() => Err(ended_error(options.log.clone())),
    };
    process.kill();
    failed
}

fn ended_error(log_file: PathBuf) -> DataPlaneError {
    DataPlaneError::Ended(last_log_line(&log_file))
}

/// The process that answers at the control socket. Asked twice, so that the opened pidfd is certainly that process.
async fn find_proxy(control: &ControlClient) -> Option<ProxyProcess> {
    let ask = async || timeout(CALL_DEADLINE, control.health()).await.ok()?.ok();
    let first = ask().await?;
    let process = ProxyProcess::adopt(first.pid).ok()?;
    (ask().await?.boot == first.boot).then_some(process)
}
