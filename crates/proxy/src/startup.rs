//! Startup and shutdown: sockets, threads, the control socket, signals.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Proxy, ProxyError, ProxyState, TakeoverPolicy, access_log,
    access_log::AccessLog,
    control_socket::{self, ControlSocket},
    counter_registry::CounterRegistry,
    listener_set::ListenerSet,
    protocol::{FinalCounters, HandoverInventory, ListeningSocket, StopRequest},
    route_table::RouteTable,
    routes_file, takeover,
    worker::{self, ReportRequest, WorkerMessage},
};

/// Grace for open requests after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(30);
/// Grace of a proxy that was replaced: it exits when its last connection ends, but within a day.
const REPLACED_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Timeout for sending the final counters: a few hundred kilobytes over a local socket.
const INHERIT_MAX: Duration = Duration::from_secs(5);

/// The sockets that are acquired before the workers start.
struct StartupState {
    socket: ControlSocket,
    control: std::os::unix::net::UnixListener,
    listeners: ListenerSet,
    predecessor: Option<HandoverInventory>,
}

pub(crate) async fn run_proxy(
    proxy: Proxy,
    ready: impl FnOnce(&[SocketAddr]),
) -> Result<(), ProxyError> {
    let folder = &proxy.options.state;
    let state_error = |source| ProxyError::State {
        path: folder.display().to_string(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(state_error)?;
    let (log, writer) = open_access_log(&proxy)?;
    let mut startup = acquire_sockets(&proxy).await?;
    let addresses = open_listeners(&mut startup.listeners, &proxy.options.listen)?;
    let control_error = |source| control_error(&proxy, source);
    startup
        .control
        .set_nonblocking(true)
        .map_err(control_error)?;
    let control = UnixListener::from_std(startup.control).map_err(control_error)?;
    let workers = match proxy.options.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    };
    let (inboxes, inboxes_read) = worker_channels(workers, worker::INBOX_MAX);
    let (reports, reports_read) = worker_channels(workers, worker::REPORTS_MAX);
    let predecessor = startup.predecessor;
    let shared = build_state(
        &proxy,
        addresses.clone(),
        startup.socket,
        startup.listeners,
        (inboxes, reports),
        predecessor.as_ref(),
    );
    let ends = inboxes_read.into_iter().zip(reports_read).collect();
    let threads = start_workers(&shared, ends, log.as_ref());
    // The workers hold the only other senders: the log thread ends with the last worker.
    drop(log);
    send_listeners_to_workers(&shared).await;
    let serving = tokio::spawn(control_socket::serve_control(control, shared.clone()));
    let ports = shared.clone();
    let retrying = tokio::spawn(async move { ports.retry_unreachable_ports().await });
    if let Some(predecessor) = predecessor {
        stop_predecessor(&proxy, &shared, predecessor.pid).await;
    }
    ready(&addresses);
    wait_for_stop(&shared).await;
    join_workers(threads).await;
    send_final_counters(&shared).await;
    serving.abort();
    retrying.abort();
    shared.socket.remove_paths();
    if let Some(writer) = writer {
        writer.join();
    }
    Ok(())
}

/// One channel for each worker.
fn worker_channels<T>(
    workers: usize,
    capacity: usize,
) -> (Vec<mpsc::Sender<T>>, Vec<mpsc::Receiver<T>>) {
    (0..workers).map(|_| mpsc::channel(capacity)).unzip()
}

async fn join_workers(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        threads
            .into_iter()
            .filter_map(|thread| thread.join().err())
            .count()
    });
    if joined.await.unwrap_or(1) > 0 {
        tracing::error!("a worker panicked");
    }
}

fn control_error(proxy: &Proxy, source: std::io::Error) -> ProxyError {
    ProxyError::Control {
        path: proxy.options.control.display().to_string(),
        source,
    }
}

fn open_access_log(
    proxy: &Proxy,
) -> Result<(Option<AccessLog>, Option<access_log::AccessLogThread>), ProxyError> {
    let Some(path) = &proxy.access_log else {
        return Ok((None, None));
    };
    match access_log::open_access_log(path) {
        Ok((log, writer)) => Ok((Some(log), Some(writer))),
        Err(source) => Err(ProxyError::AccessLog {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// Binds the control socket and, if a proxy runs already, takes its listening sockets over.
async fn acquire_sockets(proxy: &Proxy) -> Result<StartupState, ProxyError> {
    let path = &proxy.options.control;
    let taken = match proxy.take_over {
        TakeoverPolicy::Refuse => None,
        TakeoverPolicy::ReplaceRunning => takeover::take_sockets(path)
            .await
            .map_err(|error| ProxyError::TakeOver(error.to_string()))?,
    };
    let startup = match taken {
        None => control_socket::bind_socket(path).map(|(socket, control)| StartupState {
            socket,
            control,
            listeners: ListenerSet::default(),
            predecessor: None,
        }),
        Some(taken) => control_socket::replace_socket(path, taken.inventory.pid, taken.lock).map(
            |(socket, control)| StartupState {
                socket,
                control,
                listeners: taken.listeners,
                predecessor: Some(taken.inventory),
            },
        ),
    };
    startup.map_err(|source| control_error(proxy, source))
}

fn open_listeners(
    listeners: &mut ListenerSet,
    wanted: &[SocketAddr],
) -> Result<Vec<SocketAddr>, ProxyError> {
    let open = |address: &SocketAddr| {
        listeners
            .open(ListeningSocket::for_proxy(*address))
            .map_err(|source| ProxyError::Listen {
                address: *address,
                source,
            })
    };
    wanted.iter().map(open).collect()
}

fn build_state(
    proxy: &Proxy,
    listen: Vec<SocketAddr>,
    socket: ControlSocket,
    listeners: ListenerSet,
    (inboxes, reports): (
        Vec<mpsc::Sender<WorkerMessage>>,
        Vec<mpsc::Sender<ReportRequest>>,
    ),
    predecessor: Option<&HandoverInventory>,
) -> Arc<ProxyState> {
    let workers = inboxes.len();
    let registry = CounterRegistry::new(workers);
    let generation = predecessor.map_or(1, |it| it.generation + 1);
    let table = load_last_routes(proxy, generation, &registry);
    let [seed, more] = random_seeds();
    let predecessors = predecessor.map(|it| {
        let mut pids = it.predecessors.clone();
        pids.push(it.pid);
        pids
    });
    Arc::new(ProxyState {
        table: ArcSwap::from_pointee(table),
        faults: ArcSwap::default(),
        registry,
        // The `boot` id is inherited, so that readers of the counters see one continuous sequence.
        boot: predecessor.map_or_else(|| format!("{seed:016x}{more:016x}"), |it| it.boot.clone()),
        seed,
        listen,
        head_timeout: proxy.head_timeout,
        trusted: proxy.options.trusted.clone().into(),
        changes: watch::Sender::new(0),
        settled: watch::Sender::new(vec![0; workers]),
        connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        inboxes,
        reports,
        listeners: tokio::sync::Mutex::new(listeners),
        unreachable_ports: Mutex::default(),
        socket,
        stopping: CancellationToken::new(),
        state: proxy.options.state.clone(),
        grace: Mutex::new(TERM_GRACE),
        handed_over: Mutex::new(None),
        predecessors: Mutex::new(predecessors.unwrap_or_default()),
    })
}

/// Loads the last routes. Unusable routes don't prevent the start: the controller sends new ones.
fn load_last_routes(proxy: &Proxy, generation: u64, registry: &CounterRegistry) -> RouteTable {
    let table = routes_file::load_routes(&proxy.options.state)
        .map_err(|error| error.to_string())
        .and_then(|snapshot| {
            RouteTable::compile(snapshot, generation, registry)
                .map_err(|error| format!("routes.json is invalid: {error}"))
        });
    table.unwrap_or_else(|why| {
        tracing::warn!("{why}; starting without routes");
        RouteTable::compile(routes_file::empty_routes(), generation, registry)
            .expect("nothing is nothing wrong")
    })
}

/// Two random numbers. If the kernel provides none, they are derived from the pid, which only weakens their distribution.
fn random_seeds() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    if let Err(error) = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        tracing::warn!("no random numbers from the kernel: {error}");
        bytes = (u128::from(std::process::id()) * 0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

fn start_workers(
    shared: &Arc<ProxyState>,
    ends: Vec<(mpsc::Receiver<WorkerMessage>, mpsc::Receiver<ReportRequest>)>,
    log: Option<&AccessLog>,
) -> Vec<JoinHandle<()>> {
    let start = |(number, (inbox, report_requests))| {
        let start = worker::WorkerStart {
            number,
            shared: shared.clone(),
            inbox,
            report_requests,
            log: log.cloned(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        thread
            .spawn(move || worker::run_worker(start))
            .expect("a thread can be started at the start of the process")
    };
    ends.into_iter().enumerate().map(start).collect()
}

async fn send_listeners_to_workers(shared: &Arc<ProxyState>) {
    let mut listeners = shared.listeners.lock().await;
    match listeners.listen_messages() {
        Ok(messages) => {
            for message in messages {
                if let WorkerMessage::Listen(address, _) = message {
                    shared
                        .send_to_workers(|| listeners.listen_message(address))
                        .await;
                }
            }
        }
        Err(error) => tracing::error!("a listening socket can't be shared: {error}"),
    }
    let ports = shared.table.load().route_ports();
    shared.open_route_ports(&mut listeners, &ports).await;
}

/// Tells the predecessor to stop accepting; it exits when its open requests have ended.
async fn stop_predecessor(proxy: &Proxy, shared: &ProxyState, pid: u32) {
    let aside = takeover::path_with_suffix(&proxy.options.control, &pid.to_string());
    let grace_ms = u64::try_from(REPLACED_GRACE.as_millis()).unwrap_or(u64::MAX);
    let stopped = crate::control_client::ControlClient::new(aside)
        .stop(StopRequest { grace_ms })
        .await;
    match stopped {
        Ok(_) => tracing::info!(pid, "took over"),
        Err(error) => {
            tracing::warn!(pid, "the previous proxy exited: {error}");
            shared.forget_predecessor(pid);
        }
    }
}

async fn wait_for_stop(shared: &ProxyState) {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return shared.stopping.cancelled().await;
    };
    tokio::select! {
        () = shared.stopping.cancelled() => {}
        _ = term.recv() => shared.stop(TERM_GRACE).await,
        _ = interrupt.recv() => shared.stop(TERM_GRACE).await,
    }
}

/// Sends the final counters to the successor, if there is one.
async fn send_final_counters(shared: &ProxyState) {
    if !shared.is_superseded() {
        return;
    }
    // The workers have exited: no request is open.
    let counters = control_socket::sum_counters(shared, &[]);
    let inheritance = FinalCounters {
        pid: std::process::id(),
        counters,
    };
    let successor = shared.socket.successor_client();
    match tokio::time::timeout(INHERIT_MAX, successor.send_final_counters(&inheritance)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!("the last counts are lost: {error}"),
        Err(_) => tracing::warn!("the last counts are lost: the successor does not respond"),
    }
}
