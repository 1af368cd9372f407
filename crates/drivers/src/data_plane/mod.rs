//! The data plane from the server's side: the proxy is a process of its own that outlives the server, and this keeps one running.
//!
//! [`DataPlane::attach_or_start`] finds the proxy behind its control socket or starts one, starts it again whenever it dies
//! ([`supervisor`]), and makes the last snapshot that was put the one in force, whatever dies in between. [`traffic_meter`] turns the
//! proxy's counters, which begin at zero with each proxy, into totals that only grow.
//!
//! Must never: stop the proxy because the server stops, hold routes back because an older snapshot is under way, or decide what
//! the routes are.
//!
//! ```no_run
//! # async fn example(options: shipway_drivers::data_plane::Options, routes: shipway_proxy::protocol::RouteSnapshot)
//! # -> Result<(), shipway_drivers::data_plane::DataPlaneError> {
//! use shipway_drivers::data_plane::DataPlane;
//! let plane = DataPlane::attach_or_start(options).await?;
//! plane.apply_routes(routes).await?;
//! drop(plane); // the proxy goes on serving these routes
//! # Ok(()) }
//! ```

pub mod counter_totals;
mod proxy_process;
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
    target::{InstanceId, Place, SetKey},
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

/// One call on a unix socket of this machine; a proxy that takes longer is stuck.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// On top of a grace the proxy was given, before it is given up.
const MARGIN: Duration = Duration::from_secs(5);

/// No more instances of a release are taken down at once.
const SLOTS_MAX: u32 = 256;

/// How a proxy is found or started.
#[derive(Clone, Debug)]
pub struct DataPlaneOptions {
    /// The program and its first arguments: `shipway`, `proxy`.
    pub exe: Vec<OsString>,
    /// The control socket: who listens here is the proxy.
    pub control: PathBuf,
    /// The folder in which it keeps the last snapshot; `proxy/` of the data directory.
    pub state: PathBuf,
    /// Where it listens for requests.
    pub listen: Vec<SocketAddr>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Proxies in front of it; of one that is started here.
    pub trusted: Vec<TrustedNetwork>,
    /// What it prints goes here, appended.
    pub log: PathBuf,
}

/// Why there is no data plane, or why it didn't do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// The program could not be run.
    #[error("the proxy {exe:?} could not be started: {source}")]
    Spawn {
        /// The program.
        exe: OsString,
        /// Why not.
        source: io::Error,
    },
    /// It was started and ended at once: a port is in use, usually.
    #[error("the proxy ended as soon as it was started: {0}")]
    Ended(String),
    /// It was started and doesn't answer.
    #[error("the proxy was started and did not answer within {} s; its log is {}", after.as_secs(), log_file.display())]
    Silent {
        /// How long it was waited for.
        after: Duration,
        /// Where it says what it does.
        log_file: PathBuf,
    },
    /// It does not take the routes. Putting the same again is useless.
    #[error("the proxy refuses the routes: {0}")]
    Refused(String),
    /// It does not answer now; it is being started again.
    #[error(transparent)]
    Unreachable(#[from] ControlError),
    /// It did not answer in time.
    #[error("the proxy did not answer within {} s", CALL_DEADLINE.as_secs())]
    Timeout,
    /// [`DataPlane::stop`] was called.
    #[error("the proxy was stopped")]
    Stopped,
}

/// The proxy, kept running. Dropping this leaves the proxy as it is and ends the supervision.
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
    /// Attaches to the proxy behind the control socket, or starts one and waits until it answers. Its routes stay as they are
    /// until the first [`DataPlane::apply_routes`].
    ///
    /// # Errors
    /// When there is none and none can be started, with the reason from its log.
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

    /// Puts these routes in force, and again whenever the proxy was started anew. Returns when the proxy has them or newer ones; as
    /// long as there is no proxy, that takes until there is. The latest call wins. A cancelled call is carried out all the same.
    ///
    /// # Errors
    /// When the proxy refuses all of them; those before stay in force then. Routes of one place that make no sense are named in
    /// the answer.
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
        outcome.map_err(DataPlaneError::Refused)
    }

    /// What the present proxy has counted since it was started; see [`traffic_meter::TrafficMeter`] for totals.
    ///
    /// # Errors
    /// When the proxy doesn't answer.
    pub async fn counters(&self) -> Result<ProxyCounters, DataPlaneError> {
        self.call_with_deadline(self.control.counters()).await
    }

    /// Who the proxy is and where it listens.
    ///
    /// # Errors
    /// When the proxy doesn't answer.
    pub async fn health(&self) -> Result<ProxyHealth, DataPlaneError> {
        self.call_with_deadline(self.control.health()).await
    }

    /// Where the proxy listens for requests, first of all: a port that was asked for as 0 is known here. `None` when it doesn't
    /// answer.
    pub async fn listen_address(&self) -> Option<SocketAddr> {
        self.health().await.ok()?.listen.first()?.parse().ok()
    }

    /// The ports of routes that the proxy can't listen on now, with the reason; `None` when it doesn't answer.
    pub async fn unreachable_ports(&self) -> Option<BTreeMap<u16, String>> {
        Some(self.health().await.ok()?.unreachable_ports)
    }

    /// Whether the proxy answers.
    pub async fn is_healthy(&self) -> bool {
        self.health().await.is_ok()
    }

    /// The names of all instances in the routes in force; none when the proxy doesn't answer.
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

    /// Waits until the instances of a release beyond the first `keep` have no open request, `limit` at most, and says how many are
    /// open still. They must be out of the routes already. When the proxy died, its connections died with it: nothing is open.
    pub async fn wait_until_drained(
        &self,
        place: &Place,
        release: ReleaseNumber,
        keep: u32,
        limit: Duration,
    ) -> u64 {
        // None named: all of the release. Named as InstanceId prints them; the proxy passes over those it doesn't know.
        let name = |slot| {
            InstanceId {
                set: SetKey {
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
                tracing::warn!("the proxy did not say whether {release} of {place} is drained");
                0
            }
        }
    }

    /// Ends the proxy: no new connections, `grace` for what is open, then it is killed. Nothing starts it again.
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
            tracing::warn!("the proxy did not end within its grace and was killed");
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
