//! The data plane from the server's side: keeps the proxy, a separate process that outlives the server, running.
//!
//! [`DataPlane::attach_or_start`] finds the proxy at its control socket or starts one, restarts it whenever it exits
//! ([`supervisor`]), and applies the last snapshot again after a restart. [`traffic_meter`] turns the proxy's counters, which
//! restart at zero, into totals that only grow.
//!
//! # Invariants
//!
//! - Stopping the server does not stop the proxy.
//! - A newer snapshot never waits for an older one.
//! - The server decides the content of the routes.
//!
//! ```no_run
//! # async fn example(options: shipway_targets::data_plane::DataPlaneOptions, routes: shipway_proxy::protocol::RouteSnapshot)
//! # -> Result<(), shipway_targets::data_plane::DataPlaneError> {
//! use shipway_targets::data_plane::DataPlane;
//! let plane = DataPlane::attach_or_start(options).await?;
//! plane.apply_routes(routes).await?;
//! drop(plane); // the proxy keeps serving these routes
//! # Ok(()) }
//! ```

pub mod counter_totals;
mod proxy_process;
pub mod proxy_router;
mod route_snapshot;
mod supervisor;
pub mod traffic_meter;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use shipway_core::{
    ids::ReleaseNumber,
    target::{InstanceId, ReplicaSetKey, ServiceEnvironment},
};
use shipway_proxy::{
    TrustedNetwork,
    control_client::{ControlClient, ControlError},
    protocol::{
        AcceptedRoutes, DrainRequest, ProxyCounters, ProxyHealth, RouteSnapshot, StopRequest,
    },
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use proxy_process::ProxyProcess;
use supervisor::{AppliedRoutes, DesiredRoutes, ProxySupervisor};

/// Timeout of a call on the local socket; a proxy that takes longer is stuck.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Added to a grace given to the proxy before it is considered stuck.
const MARGIN: Duration = Duration::from_secs(5);

/// Upper bound for instances of a release that are drained at once.
const SLOTS_MAX: u32 = 256;

/// How to find or start the proxy.
#[derive(Clone, Debug)]
pub struct DataPlaneOptions {
    /// The program and its first arguments: `shipway`, `proxy`.
    pub exe: Vec<OsString>,
    /// Path of the control socket.
    pub control: PathBuf,
    /// The folder of its last snapshot; `proxy/` of the data directory.
    pub state: PathBuf,
    /// Addresses to listen on for requests.
    pub listen: Vec<SocketAddr>,
    /// Number of worker threads; 0 means one per core.
    pub workers: usize,
    /// Networks of trusted proxies in front of it; passed to a proxy that is started.
    pub trusted: Vec<TrustedNetwork>,
    /// The file to which its output is appended.
    pub log: PathBuf,
}

/// Why the data plane is not available or a call failed.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// The program could not be started.
    #[error("the proxy {exe:?} could not be started: {source}")]
    Spawn {
        /// The program.
        exe: OsString,
        /// The cause.
        source: io::Error,
    },
    /// The proxy exited immediately after its start, usually because a port is in use.
    #[error("the proxy exited right after its start: {0}")]
    Ended(String),
    /// The proxy was started and doesn't answer.
    #[error("the proxy was started but did not respond within {} s; its log is {}", after.as_secs(), log_file.display())]
    Silent {
        /// The timeout.
        after: Duration,
        /// The proxy's log file.
        log_file: PathBuf,
    },
    /// The proxy rejects the routes. Retrying with the same routes is useless.
    #[error("the proxy refuses the routes: {0}")]
    Refused(String),
    /// The proxy does not answer; it is being restarted.
    #[error(transparent)]
    Unreachable(#[from] ControlError),
    /// The proxy did not answer in time.
    #[error("the proxy did not respond within {} s", CALL_DEADLINE.as_secs())]
    Timeout,
    /// [`DataPlane::stop`] was called.
    #[error("the proxy was stopped")]
    Stopped,
}

/// The supervised proxy. Dropping this ends the supervision and leaves the proxy running.
#[derive(Debug)]
pub struct DataPlane {
    control: ControlClient,
    wanted: watch::Sender<Option<DesiredRoutes>>,
    applied: watch::Receiver<AppliedRoutes>,
    stopping: CancellationToken,
    supervision: Mutex<Option<JoinHandle<Option<ProxyProcess>>>>,
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if let Some(supervision) = self.supervision().take() {
            supervision.abort();
        }
    }
}

impl DataPlane {
    /// Attaches to the proxy at the control socket, or starts one and waits until it answers. Its routes stay unchanged until
    /// the first [`DataPlane::apply_routes`].
    ///
    /// # Errors
    /// When no proxy runs and none can be started, with the reason from its log.
    pub async fn attach_or_start(options: DataPlaneOptions) -> Result<Self, DataPlaneError> {
        let control = ControlClient::new(&options.control);
        let found = supervisor::find_or_start_proxy(&options, &control).await?;
        let (wanted, wanted_seen) = watch::channel(None);
        let (applied_sender, applied) = watch::channel(AppliedRoutes::default());
        let stopping = CancellationToken::new();
        let supervisor = ProxySupervisor::new(
            options,
            control.clone(),
            wanted_seen,
            applied_sender,
            stopping.clone(),
        );
        Ok(Self {
            control,
            wanted,
            applied,
            stopping,
            supervision: Mutex::new(Some(tokio::spawn(supervisor.run(found)))),
        })
    }

    /// Applies these routes, and again after every restart of the proxy. Returns when the proxy has them or newer ones, however
    /// long there is no proxy. The latest call wins. A cancelled call still takes effect.
    ///
    /// # Errors
    /// When the proxy rejects all of them; the previous routes stay in force. Invalid routes of single environments are listed
    /// in the result.
    pub async fn apply_routes(
        &self,
        snapshot: RouteSnapshot,
    ) -> Result<AcceptedRoutes, DataPlaneError> {
        let mut revision = 0;
        self.wanted.send_modify(|wanted| {
            revision = wanted.as_ref().map_or(0, |wanted| wanted.revision) + 1;
            *wanted = Some(DesiredRoutes {
                revision,
                snapshot: snapshot.into(),
            });
        });
        let mut applied = self.applied.clone();
        let done = applied
            .wait_for(|applied| applied.revision >= revision)
            .await;
        let outcome = done.map_err(|_| DataPlaneError::Stopped)?.outcome.clone();
        outcome.map_err(|refusal| DataPlaneError::Refused(refusal.0))
    }

    /// Counters of the current proxy since its start; see [`traffic_meter::TrafficMeter`] for totals.
    ///
    /// # Errors
    /// When the proxy doesn't answer.
    pub async fn counters(&self) -> Result<ProxyCounters, DataPlaneError> {
        self.call_with_deadline(self.control.counters()).await
    }

    /// Identity and addresses of the proxy.
    ///
    /// # Errors
    /// When the proxy doesn't answer.
    pub async fn health(&self) -> Result<ProxyHealth, DataPlaneError> {
        self.call_with_deadline(self.control.health()).await
    }

    /// The first address the proxy listens on; resolves a requested port 0. `None` if it doesn't answer.
    pub async fn listen_address(&self) -> Option<SocketAddr> {
        self.health().await.ok()?.listen.first()?.parse().ok()
    }

    /// The route ports that the proxy can't open now, with the reason; `None` if it doesn't answer.
    pub async fn unreachable_ports(&self) -> Option<BTreeMap<u16, String>> {
        Some(self.health().await.ok()?.unreachable_ports)
    }

    /// Whether the proxy answers.
    pub async fn is_healthy(&self) -> bool {
        self.health().await.is_ok()
    }

    /// The ids of all instances in the current routes; empty if the proxy doesn't answer.
    pub async fn routed_instances(&self) -> BTreeSet<String> {
        let Ok(routes) = self.call_with_deadline(self.control.routes()).await else {
            return BTreeSet::new();
        };
        let backends = routes.routes.into_iter().flat_map(|route| route.backends);
        backends
            .flat_map(|backend| backend.instances)
            .map(|instance| instance.id)
            .collect()
    }

    /// Waits until the instances of a release beyond the first `keep` have no open request, up to `limit`, and returns how many
    /// are still open. They must be out of the routes already. If the proxy died, its connections died with it: none is open.
    pub async fn wait_until_drained(
        &self,
        place: &ServiceEnvironment,
        release: ReleaseNumber,
        keep: u32,
        limit: Duration,
    ) -> u64 {
        // An empty list means all of the release. The proxy ignores ids that it doesn't know.
        let name = |slot| {
            InstanceId {
                set: ReplicaSetKey {
                    place: place.clone(),
                    release,
                },
                slot,
            }
            .to_string()
        };
        let instances = match keep {
            0 => Vec::new(),
            keep => (keep + 1..=keep.saturating_add(SLOTS_MAX))
                .map(name)
                .collect(),
        };
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let wait = DrainRequest {
            service: place.service.to_string(),
            environment: place.environment.to_string(),
            release: release.0,
            instances,
            timeout_ms,
        };
        match timeout(limit + MARGIN, self.control.wait_until_drained(&wait)).await {
            Ok(Ok(drained)) => drained.open,
            Ok(Err(error)) => {
                tracing::warn!("nothing to drain of {release} of {place}: {error}");
                0
            }
            Err(_) => {
                tracing::warn!("the proxy did not report whether {release} of {place} is drained");
                0
            }
        }
    }

    /// Stops the proxy: it accepts no new connections, and is killed after `grace`. It is not restarted.
    pub async fn stop(&self, grace: Duration) {
        self.stopping.cancel();
        let supervision = self.supervision().take();
        let Some(supervision) = supervision else {
            return;
        };
        let Ok(Some(mut process)) = supervision.await else {
            return;
        };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let told = timeout(CALL_DEADLINE, self.control.stop(StopRequest { grace_ms })).await;
        if !matches!(told, Ok(Ok(_))) {
            process.terminate();
        }
        if timeout(grace + MARGIN, process.wait_until_ended())
            .await
            .is_err()
        {
            tracing::warn!("the proxy did not exit within its grace period and was killed");
            process.kill();
            let _ = timeout(MARGIN, process.wait_until_ended()).await;
        }
    }

    async fn call_with_deadline<T>(
        &self,
        call: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<T, DataPlaneError> {
        Ok(timeout(CALL_DEADLINE, call)
            .await
            .map_err(|_| DataPlaneError::Timeout)??)
    }

    fn supervision(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<Option<ProxyProcess>>>> {
        self.supervision
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
