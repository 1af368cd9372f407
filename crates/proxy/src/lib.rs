//! The data plane: a reverse proxy with exact sticky weights, as a process of its own. It keeps serving the last routes when
//! nobody controls it.
//!
//! Architecture: one thread for each worker with its own listeners (`SO_REUSEPORT`) and connections; all share a table of
//! routes that is swapped atomically, and counters that are atomics. Choosing (`table`) is pure.
//!
//! What it must never do: forward a request twice once something was sent, decide who gets traffic, or wait for its controller.

mod control;
mod counters;
mod forward;
mod headers;
mod latency;
mod table;
mod upstream;
mod worker;

pub mod client;
pub mod protocol;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{counters::Registry, protocol::Snapshot, table::Table};

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// The control socket.
    pub control: PathBuf,
    /// The folder of `routes.json`.
    pub state: PathBuf,
    /// Worker threads; 0: one per core.
    pub workers: usize,
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
}

/// Where the last routes are kept.
const ROUTES: &str = "routes.json";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;
/// How long open requests may take to finish after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(30);

/// What workers and the control socket share.
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) generations: watch::Sender<u64>,
    pub(crate) registry: Registry,
    pub(crate) boot: String,
    pub(crate) seed: u64,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) own_ports_at: IpAddr,
    pub(crate) stopping: CancellationToken,
    pub(crate) grace: Mutex<Duration>,
    started: Instant,
    state: PathBuf,
    accepting: Mutex<()>,
}

impl Shared {
    /// Takes over a snapshot: checked, kept on disk, swapped in.
    pub(crate) fn accept(&self, snapshot: Snapshot) -> Result<u64, String> {
        let _one_at_a_time = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let generation = self.table.load().generation + 1;
        let table = Table::compile(snapshot, generation, &self.registry)
            .map_err(|error| error.to_string())?;
        keep(&self.state, &table.snapshot)
            .map_err(|error| format!("the routes can't be kept: {error}"))?;
        self.table.store(Arc::new(table));
        self.generations.send_replace(generation);
        Ok(generation)
    }

    pub(crate) fn stop(&self, grace: Duration) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
        self.stopping.cancel();
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Resolves when no request is open.
    pub(crate) async fn idle(&self) {
        let table = self.table.load_full();
        for route in &table.snapshot.routes {
            for backend in &route.backends {
                self.registry.release(route, backend).open.none().await;
            }
        }
    }
}

/// Runs a proxy until it is told to stop. `ready` is called once it serves.
pub async fn run(options: Options, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ProxyError> {
    let state_error = |source| ProxyError::State {
        path: options.state.display().to_string(),
        source,
    };
    std::fs::create_dir_all(&options.state).map_err(state_error)?;
    let control = control::bind(&options.control).map_err(|source| ProxyError::Control {
        path: options.control.display().to_string(),
        source,
    })?;
    let workers = if options.workers == 0 {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        options.workers
    };
    let mut listeners: Vec<Vec<std::net::TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for wanted in &options.listen {
        let mut address = *wanted;
        for (number, of_worker) in listeners.iter_mut().enumerate() {
            // Only the first proves that nobody else listens: with SO_REUSEPORT the others share.
            let listener = if number == 0 {
                listen_first(address)
            } else {
                listen(address)
            };
            let listener = listener.map_err(|source| ProxyError::Listen { address, source })?;
            address = listener
                .local_addr()
                .map_err(|source| ProxyError::Listen { address, source })?;
            of_worker.push(listener);
        }
        addresses.push(address);
    }
    let shared = Arc::new(share(&options, addresses.clone()));
    let threads: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(number, listeners)| {
            let start = worker::Start {
                number,
                shared: shared.clone(),
                listeners,
            };
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker::run(start))
                .expect("a thread can be started at the start of the process")
        })
        .collect();
    tokio::spawn(control::serve(control, shared.clone()));
    ready(&addresses);
    terminated(&shared).await;
    let joined = tokio::task::spawn_blocking(move || {
        threads.into_iter().for_each(|thread| drop(thread.join()))
    });
    let _ = joined.await;
    let _ = std::fs::remove_file(&options.control);
    Ok(())
}

async fn terminated(shared: &Shared) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return shared.stopping.cancelled().await;
    };
    tokio::select! {
        () = shared.stopping.cancelled() => {}
        _ = term.recv() => shared.stop(TERM_GRACE),
        _ = interrupt.recv() => shared.stop(TERM_GRACE),
    }
}

fn share(options: &Options, listen: Vec<SocketAddr>) -> Shared {
    let mut random = [0u8; 16];
    // Without randomness ids are only less random.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let (seed, more) = (
        u64::from_le_bytes(random[..8].try_into().expect("8 bytes")),
        u64::from_le_bytes(random[8..].try_into().expect("8 bytes")),
    );
    let registry = Registry::default();
    let empty = || Snapshot {
        version: protocol::VERSION,
        routes: Vec::new(),
    };
    let path = options.state.join(ROUTES);
    let table = match load(&path) {
        Ok(snapshot) => Table::compile(snapshot, 1, &registry).map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let table = table.unwrap_or_else(|why| {
        tracing::warn!(
            "{} can't be used ({why}); starting without routes",
            path.display()
        );
        Table::compile(empty(), 1, &registry).expect("nothing is nothing wrong")
    });
    Shared {
        own_ports_at: listen
            .first()
            .map_or(IpAddr::from([127, 0, 0, 1]), SocketAddr::ip),
        generations: watch::Sender::new(table.generation),
        table: ArcSwap::from_pointee(table),
        registry,
        boot: format!("{seed:016x}{more:016x}"),
        seed,
        listen,
        stopping: CancellationToken::new(),
        grace: Mutex::new(TERM_GRACE),
        started: Instant::now(),
        state: options.state.clone(),
        accepting: Mutex::new(()),
    }
}

fn load(path: &Path) -> Result<Snapshot, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Snapshot {
            version: protocol::VERSION,
            routes: Vec::new(),
        }),
        Err(error) => Err(error.to_string()),
    }
}

/// Written beside, fsynced, renamed: the file is always whole.
fn keep(folder: &Path, snapshot: &Snapshot) -> io::Result<()> {
    use std::io::Write as _;
    let (path, beside) = (folder.join(ROUTES), folder.join("routes.json.new"));
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, &path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// A listener that may share its port with those of other workers.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The first listener of this process at `address`: refused when anybody else listens there.
fn listen_first(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let probe = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    probe.set_reuse_address(true)?;
    probe.bind(&address.into())?;
    probe.listen(1)?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    listen(address)
}
