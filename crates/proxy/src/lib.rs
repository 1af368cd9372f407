//! The data plane: a reverse proxy with exact sticky weights, running as its own process. It keeps serving the last routes when
//! no controller is connected.
//!
//! # Structure
//!
//! One thread per worker, each with its own connections (`worker`). Workers share the listening sockets, a route table that is
//! swapped atomically (`route_table`), and counters in which each worker writes its own cells (`counters`). Choosing a route and
//! a release is pure (`route_matching`).
//!
//! A request passes through `framing_guard` and `request` (validation), `forward` (choice of the target, retries, holding),
//! `attempt` (one attempt at one instance), `body` (both bodies) and `open_requests` (counting, also while there is no
//! response). [`protocol`] defines the messages of the control socket, [`control_client`] sends them.
//!
//! # Invariants
//!
//! - A request is never sent twice once anything was sent that must not be repeated.
//! - The proxy does not decide which release gets traffic, and never waits for its controller.
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_proxy::ProxyError> {
//! let options = shipway_proxy::ProxyOptions {
//! listen: vec!["127.0.0.1:8080".parse().expect("an address")],
//! control: "/run/shipway/proxy.sock".into(),
//! state: "/var/lib/shipway/proxy".into(),
//! workers: 0,
//! trusted: Vec::new(),
//! };
//! shipway_proxy::Proxy::new(options).with_takeover().run(|addresses| println!("{addresses:?}")).await
//! # }
//! ```

mod access_log;
mod attempt;
mod client_connection;
mod connection_pool;
mod control_socket;
mod counter_registry;
mod failed_users;
mod forward;
mod framing_guard;
mod headers;
mod instance_affinity;
mod latency_histogram;
mod listener_set;
mod match_rules;
mod mirror;
mod open_requests;
mod release_counters;
mod request;
mod request_body;
mod response_body;
mod route_matching;
mod route_table;
mod routes_file;
mod startup;
mod takeover;
mod traffic_totals;
mod trusted_network;
mod tunnel;
mod worker;

pub mod control_client;
pub mod protocol;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use crate::trusted_network::{ParseNetworkError, TrustedNetwork};
use crate::{
    counter_registry::CounterRegistry,
    listener_set::ListenerSet,
    protocol::{AcceptedRoutes, InjectedFault, ListeningSocket, RouteSnapshot},
    route_table::{RouteTable, RouteTableError},
    worker::{ReportRequest, WorkerMessage},
};

/// Configuration of a proxy.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Addresses to listen on for requests.
    pub listen: Vec<SocketAddr>,
    /// Path of the control socket. Paths with this prefix are used too: a lock file, and the sockets of proxies that are being
    /// replaced.
    pub control: PathBuf,
    /// The folder that holds `routes.json`.
    pub state: PathBuf,
    /// Number of worker threads; 0 means one per core.
    pub workers: usize,
    /// Networks of proxies in front of this one. Forwarding headers from these are kept, those from other clients are replaced.
    pub trusted: Vec<TrustedNetwork>,
}

/// A configured proxy that has not been started.
#[derive(Clone, Debug)]
pub struct Proxy {
    options: ProxyOptions,
    access_log: Option<PathBuf>,
    take_over: TakeoverPolicy,
    head_timeout: Duration,
}

/// What to do if a proxy already runs at the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakeoverPolicy {
    Refuse,
    ReplaceRunning,
}

/// Timeout for the head of a client's next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

impl Proxy {
    /// A proxy without an access log that refuses to start where another one runs.
    #[must_use]
    pub fn new(options: ProxyOptions) -> Self {
        Self {
            options,
            access_log: None,
            take_over: TakeoverPolicy::Refuse,
            head_timeout: HEAD_TIMEOUT,
        }
    }

    /// Writes one line of JSON per request to this file, which is renamed to `.1` at 64 MiB.
    #[must_use]
    pub fn with_access_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.access_log = Some(path.into());
        self
    }

    /// Replaces the proxy that runs with the same options, if there is one, without losing a connection.
    #[must_use]
    pub fn with_takeover(mut self) -> Self {
        self.take_over = TakeoverPolicy::ReplaceRunning;
        self
    }

    /// Timeout for the head of a client's next request, in whole seconds; 60 s by default.
    #[must_use]
    pub fn with_head_timeout(mut self, limit: Duration) -> Self {
        self.head_timeout = limit;
        self
    }

    /// Runs until the proxy is stopped. `ready` is called once it serves requests.
    pub async fn run(self, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ProxyError> {
        startup::run_proxy(self, ready).await
    }
}

/// Runs a proxy until it is stopped. `ready` is called once it serves requests.
pub async fn run(
    options: ProxyOptions,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), ProxyError> {
    Proxy::new(options).run(ready).await
}

/// Why a proxy can't run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listening port can't be opened.
    #[error("can't listen on {address}: {source}; is another proxy or server running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The control socket can't be bound.
    #[error("the control socket {path} can't be used: {source}")]
    Control {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The state folder can't be created.
    #[error("the folder {path} can't be used: {source}")]
    State {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The access log can't be opened.
    #[error("the access log {path} can't be written: {source}")]
    AccessLog {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The running proxy could not be taken over; it keeps serving.
    #[error("the running proxy can't be replaced: {0}")]
    TakeOver(String),
}

/// Why a snapshot was not applied. The routes in force stay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyRoutesError {
    #[error("the proxy is stopping")]
    Stopping,
    #[error(transparent)]
    Table(#[from] RouteTableError),
    #[error("the routes can't be saved: {0}")]
    Save(io::Error),
    /// The thread that writes the file panicked or was cancelled.
    #[error(transparent)]
    SaveThread(#[from] tokio::task::JoinError),
}

/// Pause between two attempts to listen on a port that another program holds.
const PORT_RETRY: Duration = Duration::from_secs(1);

/// How long `apply_routes` waits for all workers to use a new table. They need microseconds; one that is stuck must not block
/// the controller.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// State shared by the workers and the control socket.
pub(crate) struct ProxyState {
    pub(crate) table: ArcSwap<RouteTable>,
    pub(crate) faults: ArcSwap<Vec<InjectedFault>>,
    pub(crate) registry: CounterRegistry,
    pub(crate) boot: String,
    pub(crate) seed: u64,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) head_timeout: Duration,
    pub(crate) trusted: Arc<[TrustedNetwork]>,
    /// Incremented when held requests should check again: new routes, or an instance was readmitted.
    pub(crate) changes: watch::Sender<u64>,
    /// Per worker, the newest table generation such that no request uses an older one.
    pub(crate) settled: watch::Sender<Vec<u64>>,
    /// Open client connections of each worker.
    pub(crate) connections: Vec<AtomicUsize>,
    pub(crate) inboxes: Vec<mpsc::Sender<WorkerMessage>>,
    pub(crate) reports: Vec<mpsc::Sender<ReportRequest>>,
    /// Locked while routes change: changes are applied one at a time.
    pub(crate) listeners: tokio::sync::Mutex<ListenerSet>,
    unreachable_ports: Mutex<BTreeMap<u16, String>>,
    pub(crate) socket: control_socket::ControlSocket,
    pub(crate) stopping: CancellationToken,
    pub(crate) state: PathBuf,
    grace: Mutex<Duration>,
    handed_over: Mutex<Option<Instant>>,
    predecessors: Mutex<Vec<u32>>,
}

impl ProxyState {
    /// Applies a snapshot. When this returns, it was checked, is on disk, and every worker uses it. Invalid routes are left out
    /// and listed in the result.
    pub(crate) async fn apply_routes(
        self: &Arc<Self>,
        snapshot: RouteSnapshot,
    ) -> Result<AcceptedRoutes, ApplyRoutesError> {
        let mut listeners = self.listeners.lock().await;
        if self.stopping.is_cancelled() {
            return Err(ApplyRoutesError::Stopping);
        }
        let current = self.table.load_full();
        let generation = current.generation + 1;
        let (snapshot, refused) = route_table::admit_snapshot(snapshot, &current.snapshot)?;
        let table = RouteTable::compile(snapshot, generation, &self.registry)?;
        let (folder, kept) = (self.state.clone(), table.snapshot.clone());
        tokio::task::spawn_blocking(move || routes_file::save_routes(&folder, &kept))
            .await?
            .map_err(ApplyRoutesError::Save)?;
        let ports = table.route_ports();
        self.table.store(Arc::new(table));
        self.wake_held_requests();
        self.open_route_ports(&mut listeners, &ports).await;
        let mut settled = self.settled.subscribe();
        let all = settled.wait_for(|settled| settled.iter().all(|it| *it >= generation));
        if tokio::time::timeout(SETTLE_MAX, all).await.is_err() {
            tracing::warn!("a worker does not use the new routes yet");
        }
        self.registry.drop_unused_instances();
        Ok(AcceptedRoutes {
            generation,
            refused,
            unreachable_ports: self.unreachable_ports(),
        })
    }

    /// Route ports that can't be opened now, each with the reason.
    pub(crate) fn unreachable_ports(&self) -> BTreeMap<u16, String> {
        lock(&self.unreachable_ports).clone()
    }

    /// Retries the route ports that couldn't be opened until the proxy stops; another program may free them.
    pub(crate) async fn retry_unreachable_ports(&self) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(PORT_RETRY) => {}
            }
            if self.unreachable_ports().is_empty() || self.handed_over_at().is_some() {
                continue;
            }
            let mut listeners = self.listeners.lock().await;
            if self.stopping.is_cancelled() {
                return;
            }
            let ports = self.table.load().route_ports();
            self.open_route_ports(&mut listeners, &ports).await;
        }
    }

    /// Opens and closes the ports of routes. A port that can't be opened must not delay the other routes.
    async fn open_route_ports(&self, listeners: &mut ListenerSet, ports: &BTreeSet<u16>) {
        for address in listeners.close_unused(&self.listen, ports) {
            self.send_to_workers(|| Ok(WorkerMessage::Unlisten(address)))
                .await;
        }
        let Some(host) = self.listen.first().map(SocketAddr::ip) else {
            return;
        };
        let mut unreachable = BTreeMap::new();
        for port in ports {
            let address = SocketAddr::new(host, *port);
            if listeners.contains(address) {
                continue;
            }
            match listeners.open(ListeningSocket::for_route(address)) {
                Ok(address) => {
                    self.send_to_workers(|| listeners.listen_message(address))
                        .await
                }
                Err(error) => drop(unreachable.insert(*port, error.to_string())),
            }
        }
        let before = std::mem::replace(&mut *lock(&self.unreachable_ports), unreachable.clone());
        for (port, reason) in unreachable
            .iter()
            .filter(|(port, _)| !before.contains_key(port))
        {
            tracing::error!(
                port,
                reason,
                "can't listen on the port of a route; retrying"
            );
        }
        for port in before.keys().filter(|port| !unreachable.contains_key(port)) {
            tracing::info!(port, "the port of a route is no longer unreachable");
        }
    }

    /// Sends a message to every worker.
    pub(crate) async fn send_to_workers(&self, message: impl Fn() -> io::Result<WorkerMessage>) {
        for inbox in &self.inboxes {
            match message() {
                // Sending fails only when the worker has exited.
                Ok(message) => drop(inbox.send(message).await),
                Err(error) => tracing::error!("a listening socket can't be shared: {error}"),
            }
        }
    }

    /// Makes held requests check again, and workers report their table generation.
    pub(crate) fn wake_held_requests(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    /// Lets workers finish. Only their copies of the listening sockets remain: later connections are refused or accepted by a
    /// successor, none waits in a queue that is never served.
    pub(crate) async fn stop(&self, grace: Duration) {
        let mut listeners = self.listeners.lock().await;
        *listeners = ListenerSet::default();
        *lock(&self.grace) = grace;
        self.stopping.cancel();
    }

    pub(crate) fn grace(&self) -> Duration {
        *lock(&self.grace)
    }

    /// When the sockets were handed to a successor.
    pub(crate) fn handed_over_at(&self) -> Option<Instant> {
        *lock(&self.handed_over)
    }

    /// Whether a successor answers at the control socket.
    pub(crate) fn is_superseded(&self) -> bool {
        self.handed_over_at().is_some() && !self.socket.is_current()
    }

    pub(crate) fn mark_handed_over(&self) {
        *lock(&self.handed_over) = Some(Instant::now());
    }

    pub(crate) fn predecessor_pids(&self) -> Vec<u32> {
        lock(&self.predecessors).clone()
    }

    pub(crate) fn forget_predecessor(&self, pid: u32) {
        lock(&self.predecessors).retain(|it| *it != pid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
