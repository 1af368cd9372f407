//! The data plane: a reverse proxy with exact sticky weights, as a process of its own. It keeps serving the last routes when
//! nobody controls it.
//!
//! Architecture: one thread for each worker with its own connections (`worker`); all share the listening sockets, a table of
//! routes that is swapped atomically (`table`), and counters that each worker writes in cells of its own (`counters`). Choosing
//! (`route`) is pure. A request goes through `strict` and
//! `asked` (is it sound?), `forward` (where to?), `exchange` (one attempt) `body`
//! (both bodies) and `open` (counted, also while it has no answer). [`protocol`] is what the control socket speaks, [`client`] speaks it.
//!
//! What it must never do: forward a request twice once something was sent that may not be repeated, decide who gets traffic, or
//! wait for its controller.
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_proxy::ProxyError> {
//! let options = shipway_proxy::Options {
//!     listen: vec!["127.0.0.1:8080".parse().expect("an address")],
//!     control: "/run/shipway/proxy.sock".into(),
//!     state: "/var/lib/shipway/proxy".into(),
//!     workers: 0,
//!     trusted: Vec::new(),
//! };
//! shipway_proxy::Proxy::new(options).taking_over().run(|addresses| println!("{addresses:?}")).await
//! # }
//! ```

mod access;
mod asked;
mod body;
mod connection;
mod control;
mod counters;
mod exchange;
mod forward;
mod headers;
mod latency;
mod listen;
mod mirror;
mod open;
mod route;
mod rules;
mod run;
mod state;
mod strict;
mod table;
mod takeover;
mod trust;
mod tunnel;
mod upstream;
mod users;
mod worker;

pub mod client;
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

pub use crate::trust::{ParseNetworkError, TrustedNetwork};
use crate::{
    counters::Registry,
    listen::Listeners,
    protocol::{Accepted, Fault, Snapshot},
    table::Table,
    worker::{Message, ReportRequest},
};

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The control socket. Names that begin with it are used too: a lock, and sockets of proxies that are being replaced.
    pub control: PathBuf,
    /// The folder of `routes.json`.
    pub state: PathBuf,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Proxies in front of this one: what they say about clients is kept, what others say is replaced.
    pub trusted: Vec<TrustedNetwork>,
}

/// A proxy that is about to run.
#[derive(Clone, Debug)]
pub struct Proxy {
    options: Options,
    access_log: Option<PathBuf>,
    take_over: TakeOver,
    head_max: Duration,
}

/// What to do about a proxy that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakeOver {
    Refuse,
    IfThere,
}

/// A client that takes longer for the head of its next request is let go.
const HEAD_MAX: Duration = Duration::from_secs(60);

impl Proxy {
    /// A proxy with no access log, which refuses to start where another one runs.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            access_log: None,
            take_over: TakeOver::Refuse,
            head_max: HEAD_MAX,
        }
    }

    /// Writes a line of JSON for each request to this file; at 64 MiB it becomes `.1`.
    #[must_use]
    pub fn access_log(mut self, path: impl Into<PathBuf>) -> Self {
        self.access_log = Some(path.into());
        self
    }

    /// Replaces the proxy that runs with the same options, if one does, without losing a connection.
    #[must_use]
    pub fn taking_over(mut self) -> Self {
        self.take_over = TakeOver::IfThere;
        self
    }

    /// How long a client may take for the head of its next request, in whole seconds; 60 s if not said.
    #[must_use]
    pub fn head_within(mut self, limit: Duration) -> Self {
        self.head_max = limit;
        self
    }

    /// Runs until it is told to stop. `ready` is called once it serves.
    pub async fn run(self, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ProxyError> {
        run::run(self, ready).await
    }
}

/// Runs a proxy until it is told to stop. `ready` is called once it serves.
pub async fn run(options: Options, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ProxyError> {
    Proxy::new(options).run(ready).await
}

/// Why a proxy can't run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A port.
    #[error("{address} can't be listened on: {source}; is another proxy or server running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The control socket.
    #[error("the control socket {path} can't be used: {source}")]
    Control {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The state folder.
    #[error("the folder {path} can't be used: {source}")]
    State {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The access log.
    #[error("the access log {path} can't be written: {source}")]
    AccessLog {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy that runs could not be taken over; it goes on.
    #[error("the running proxy can't be replaced: {0}")]
    TakeOver(String),
}

/// Between two attempts to listen on a port that another program has.
const PORT_RETRY: Duration = Duration::from_secs(1);

/// After a snapshot was swapped in, workers use it within microseconds; one that is stuck must not hold the controller up.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// What workers and the control socket share.
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) faults: ArcSwap<Vec<Fault>>,
    pub(crate) registry: Registry,
    pub(crate) boot: String,
    pub(crate) seed: u64,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) head_max: Duration,
    pub(crate) trusted: Arc<[TrustedNetwork]>,
    /// Moves when held requests should look again: new routes, or an instance is back.
    pub(crate) changes: watch::Sender<u64>,
    /// By worker: the table since which no request uses an older one.
    pub(crate) settled: watch::Sender<Vec<u64>>,
    /// By worker: open client connections.
    pub(crate) connections: Vec<AtomicUsize>,
    pub(crate) inboxes: Vec<mpsc::Sender<Message>>,
    pub(crate) reports: Vec<mpsc::Sender<ReportRequest>>,
    /// Locked while routes change, so that they change one after the other.
    pub(crate) listeners: tokio::sync::Mutex<Listeners>,
    unreachable_ports: Mutex<BTreeMap<u16, String>>,
    pub(crate) socket: control::Socket,
    pub(crate) stopping: CancellationToken,
    pub(crate) state: PathBuf,
    grace: Mutex<Duration>,
    handed_over: Mutex<Option<Instant>>,
    predecessors: Mutex<Vec<u32>>,
}

impl Shared {
    /// Takes over a snapshot: checked, kept on disk, swapped in, and in use by every worker when this returns. What makes no sense
    /// is left out and named in the answer.
    pub(crate) async fn put(self: &Arc<Self>, snapshot: Snapshot) -> Result<Accepted, String> {
        let mut listeners = self.listeners.lock().await;
        if self.stopping.is_cancelled() {
            return Err("the proxy is stopping".to_owned());
        }
        let current = self.table.load_full();
        let generation = current.generation + 1;
        let admitted = table::admit(snapshot, &current.snapshot);
        let (snapshot, refused) = admitted.map_err(|error| error.to_string())?;
        let table = Table::compile(snapshot, generation, &self.registry);
        let table = table.map_err(|error| error.to_string())?;
        let (folder, kept) = (self.state.clone(), table.snapshot.clone());
        tokio::task::spawn_blocking(move || state::keep(&folder, &kept))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("the routes can't be kept: {error}"))?;
        let ports = table.ports();
        self.table.store(Arc::new(table));
        self.wake();
        self.listen_for_routes(&mut listeners, &ports).await;
        let mut settled = self.settled.subscribe();
        let all = settled.wait_for(|settled| settled.iter().all(|it| *it >= generation));
        if tokio::time::timeout(SETTLE_MAX, all).await.is_err() {
            tracing::warn!("a worker does not use the new routes yet");
        }
        self.registry.forget_instances();
        Ok(Accepted {
            generation,
            refused,
            unreachable_ports: self.unreachable_ports(),
        })
    }

    /// Ports of routes that can't be listened on now, with the reason.
    pub(crate) fn unreachable_ports(&self) -> BTreeMap<u16, String> {
        lock(&self.unreachable_ports).clone()
    }

    /// Tries the ports of routes that couldn't be listened on again, until the proxy stops: another program may free them.
    pub(crate) async fn retry_ports(&self) {
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(PORT_RETRY) => {}
            }
            if self.unreachable_ports().is_empty() || self.handed_over().is_some() {
                continue;
            }
            let mut listeners = self.listeners.lock().await;
            if self.stopping.is_cancelled() {
                return;
            }
            let ports = self.table.load().ports();
            self.listen_for_routes(&mut listeners, &ports).await;
        }
    }

    /// Opens and closes the ports that routes have of their own. One that can't be opened must not keep the other routes waiting.
    async fn listen_for_routes(&self, listeners: &mut Listeners, ports: &BTreeSet<u16>) {
        for address in listeners.retain(&self.listen, ports) {
            self.tell(|| Ok(Message::Unlisten(address))).await;
        }
        let Some(host) = self.listen.first().map(SocketAddr::ip) else {
            return;
        };
        let mut unreachable = BTreeMap::new();
        for port in ports {
            let address = SocketAddr::new(host, *port);
            if listeners.has(address) {
                continue;
            }
            match listeners.open(address, true) {
                Ok(address) => self.tell(|| listeners.message(address)).await,
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
                "the port of a route can't be listened on; it is tried again"
            );
        }
        for port in before.keys().filter(|port| !unreachable.contains_key(port)) {
            tracing::info!(port, "the port of a route is no longer unreachable");
        }
    }

    /// Tells all workers.
    pub(crate) async fn tell(&self, message: impl Fn() -> io::Result<Message>) {
        for inbox in &self.inboxes {
            match message() {
                // A worker that ended needs to know nothing.
                Ok(message) => drop(inbox.send(message).await),
                Err(error) => tracing::error!("a listening socket can't be shared: {error}"),
            }
        }
    }

    /// Lets held requests look again, and workers settle.
    pub(crate) fn wake(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    /// Lets workers finish. Their listening sockets are then the last ones: whoever connects from now on is refused, or accepted
    /// by a successor, and nobody waits for ever.
    pub(crate) async fn stop(&self, grace: Duration) {
        let mut listeners = self.listeners.lock().await;
        *listeners = Listeners::default();
        *lock(&self.grace) = grace;
        self.stopping.cancel();
    }

    pub(crate) fn grace(&self) -> Duration {
        *lock(&self.grace)
    }

    /// Since when a successor has the sockets.
    pub(crate) fn handed_over(&self) -> Option<Instant> {
        *lock(&self.handed_over)
    }

    /// Whether a successor answers in its place.
    pub(crate) fn is_superseded(&self) -> bool {
        self.handed_over().is_some() && !self.socket.is_mine()
    }

    pub(crate) fn hand_over(&self) {
        *lock(&self.handed_over) = Some(Instant::now());
    }

    pub(crate) fn predecessors(&self) -> Vec<u32> {
        lock(&self.predecessors).clone()
    }

    pub(crate) fn forget_predecessor(&self, pid: u32) {
        lock(&self.predecessors).retain(|it| *it != pid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
