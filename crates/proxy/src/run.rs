//! Starting and ending: sockets, threads, the control socket, signals.

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
    Proxy, ProxyError, Shared, TakeOver, access,
    access::Log,
    control::{self, Socket},
    counters::Registry,
    listen::Listeners,
    protocol::{Inheritance, Inventory, Stop},
    state,
    table::Table,
    takeover,
    worker::{self, Message, ReportRequest},
};

/// How long open requests may take to finish after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(30);
/// A proxy that was replaced lives as long as its longest connection, within reason.
const REPLACED_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The last counts are a few hundred kilobytes on a local socket.
const INHERIT_MAX: Duration = Duration::from_secs(5);

/// What is there before the workers are.
struct Ground {
    socket: Socket,
    control: std::os::unix::net::UnixListener,
    listeners: Listeners,
    predecessor: Option<Inventory>,
}

pub(crate) async fn run(proxy: Proxy, ready: impl FnOnce(&[SocketAddr])) -> Result<(), ProxyError> {
    let folder = &proxy.options.state;
    let state_error = |source| ProxyError::State {
        path: folder.display().to_string(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(state_error)?;
    let (log, writer) = open_log(&proxy)?;
    let mut ground = prepare(&proxy).await?;
    let addresses = listen(&mut ground.listeners, &proxy.options.listen)?;
    let control_error = |source| control_error(&proxy, source);
    ground
        .control
        .set_nonblocking(true)
        .map_err(control_error)?;
    let control = UnixListener::from_std(ground.control).map_err(control_error)?;
    let workers = match proxy.options.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    };
    let (inboxes, inboxes_read): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| mpsc::channel(worker::INBOX_MAX))
        .unzip();
    let (reports, reports_read): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| mpsc::channel(worker::REPORTS_MAX))
        .unzip();
    let predecessor = ground.predecessor;
    let shared = share(
        &proxy,
        addresses.clone(),
        ground.socket,
        ground.listeners,
        (inboxes, reports),
        predecessor.as_ref(),
    );
    let ends = inboxes_read.into_iter().zip(reports_read).collect();
    let threads = start_workers(&shared, ends, log.as_ref());
    // Workers hold the only other ends: when they end, so does the log's thread.
    drop(log);
    listen_everywhere(&shared).await;
    let serving = tokio::spawn(control::serve(control, shared.clone()));
    let ports = shared.clone();
    let retrying = tokio::spawn(async move { ports.retry_ports().await });
    if let Some(predecessor) = predecessor {
        dismiss(&proxy, &shared, predecessor.pid).await;
    }
    ready(&addresses);
    stopped(&shared).await;
    let joined = tokio::task::spawn_blocking(move || {
        threads
            .into_iter()
            .filter_map(|thread| thread.join().err())
            .count()
    });
    if joined.await.unwrap_or(1) > 0 {
        tracing::error!("a worker panicked");
    }
    bequeath(&shared).await;
    serving.abort();
    retrying.abort();
    shared.socket.remove();
    if let Some(writer) = writer {
        writer.join();
    }
    Ok(())
}

fn control_error(proxy: &Proxy, source: std::io::Error) -> ProxyError {
    ProxyError::Control {
        path: proxy.options.control.display().to_string(),
        source,
    }
}

fn open_log(proxy: &Proxy) -> Result<(Option<Log>, Option<access::Writer>), ProxyError> {
    let Some(path) = &proxy.access_log else {
        return Ok((None, None));
    };
    match access::open(path) {
        Ok((log, writer)) => Ok((Some(log), Some(writer))),
        Err(source) => Err(ProxyError::AccessLog {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// The control socket and, from a proxy that runs already, its listening sockets.
async fn prepare(proxy: &Proxy) -> Result<Ground, ProxyError> {
    let path = &proxy.options.control;
    let taken = match proxy.take_over {
        TakeOver::Refuse => None,
        TakeOver::IfThere => takeover::take(path)
            .await
            .map_err(|error| ProxyError::TakeOver(error.to_string()))?,
    };
    let ground = match taken {
        None => control::bind(path).map(|(socket, control)| Ground {
            socket,
            control,
            listeners: Listeners::default(),
            predecessor: None,
        }),
        Some(taken) => {
            control::replace(path, taken.inventory.pid, taken.lock).map(|(socket, control)| {
                Ground {
                    socket,
                    control,
                    listeners: taken.listeners,
                    predecessor: Some(taken.inventory),
                }
            })
        }
    };
    ground.map_err(|source| control_error(proxy, source))
}

fn listen(listeners: &mut Listeners, wanted: &[SocketAddr]) -> Result<Vec<SocketAddr>, ProxyError> {
    let open = |address: &SocketAddr| {
        listeners
            .open(*address, false)
            .map_err(|source| ProxyError::Listen {
                address: *address,
                source,
            })
    };
    wanted.iter().map(open).collect()
}

fn share(
    proxy: &Proxy,
    listen: Vec<SocketAddr>,
    socket: Socket,
    listeners: Listeners,
    (inboxes, reports): (Vec<mpsc::Sender<Message>>, Vec<mpsc::Sender<ReportRequest>>),
    predecessor: Option<&Inventory>,
) -> Arc<Shared> {
    let workers = inboxes.len();
    let registry = Registry::new(workers);
    let generation = predecessor.map_or(1, |it| it.generation + 1);
    let table = last_routes(proxy, generation, &registry);
    let [seed, more] = random();
    let predecessors = predecessor.map(|it| {
        let mut pids = it.predecessors.clone();
        pids.push(it.pid);
        pids
    });
    Arc::new(Shared {
        table: ArcSwap::from_pointee(table),
        faults: ArcSwap::default(),
        registry,
        // Whoever reads the counters goes on where it was.
        boot: predecessor.map_or_else(|| format!("{seed:016x}{more:016x}"), |it| it.boot.clone()),
        seed,
        listen,
        head_max: proxy.head_max,
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

/// What was served last. Routes that can't be used are no reason not to start: somebody will put new ones.
fn last_routes(proxy: &Proxy, generation: u64, registry: &Registry) -> Table {
    let table = state::load(&proxy.options.state)
        .map_err(|error| error.to_string())
        .and_then(|snapshot| {
            Table::compile(snapshot, generation, registry)
                .map_err(|error| format!("routes.json makes no sense: {error}"))
        });
    table.unwrap_or_else(|why| {
        tracing::warn!("{why}; starting without routes");
        Table::compile(state::empty(), generation, registry).expect("nothing is nothing wrong")
    })
}

/// Two random numbers; without randomness, what is made of them is only less random.
fn random() -> [u64; 2] {
    let mut bytes = [0u8; 16];
    if let Err(error) = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        tracing::warn!("the kernel gives no random numbers: {error}");
        bytes = (u128::from(std::process::id()) * 0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

fn start_workers(
    shared: &Arc<Shared>,
    ends: Vec<(mpsc::Receiver<Message>, mpsc::Receiver<ReportRequest>)>,
    log: Option<&Log>,
) -> Vec<JoinHandle<()>> {
    let start = |(number, (inbox, asked_for_reports))| {
        let start = worker::Start {
            number,
            shared: shared.clone(),
            inbox,
            asked_for_reports,
            log: log.cloned(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        thread
            .spawn(move || worker::run(start))
            .expect("a thread can be started at the start of the process")
    };
    ends.into_iter().enumerate().map(start).collect()
}

async fn listen_everywhere(shared: &Arc<Shared>) {
    let mut listeners = shared.listeners.lock().await;
    match listeners.messages() {
        Ok(messages) => {
            for message in messages {
                if let Message::Listen(address, _) = message {
                    shared.tell(|| listeners.message(address)).await;
                }
            }
        }
        Err(error) => tracing::error!("a listening socket can't be shared: {error}"),
    }
    let ports = shared.table.load().ports();
    shared.listen_for_routes(&mut listeners, &ports).await;
}

/// The predecessor accepts no more; it ends when what it has open is over.
async fn dismiss(proxy: &Proxy, shared: &Shared, pid: u32) {
    let aside = takeover::beside(&proxy.options.control, &pid.to_string());
    let grace_ms = u64::try_from(REPLACED_GRACE.as_millis()).unwrap_or(u64::MAX);
    let stopped = crate::client::Control::new(aside)
        .stop(Stop { grace_ms })
        .await;
    match stopped {
        Ok(_) => tracing::info!(pid, "took over"),
        Err(error) => {
            tracing::warn!(pid, "the proxy before this one ended by itself: {error}");
            shared.forget_predecessor(pid);
        }
    }
}

async fn stopped(shared: &Shared) {
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

/// Tells a successor the last counts, if there is one.
async fn bequeath(shared: &Shared) {
    if !shared.is_superseded() {
        return;
    }
    // The workers have ended: nothing is open.
    let counters = control::totals(shared, &[]);
    let inheritance = Inheritance {
        pid: std::process::id(),
        counters,
    };
    let successor = shared.socket.successor();
    match tokio::time::timeout(INHERIT_MAX, successor.inherit(&inheritance)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!("the last counts are lost: {error}"),
        Err(_) => tracing::warn!("the last counts are lost: the successor does not answer"),
    }
}
