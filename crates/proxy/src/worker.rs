//! A worker: one thread with one runtime, its own client connections and its own connections to instances.
//!
//! # Why
//!
//! Workers share only the route table, the counters and the listening sockets: a request runs on one thread without locks. The
//! worker that accepts a connection gives it to the worker with the fewest connections.
//!
//! # Invariants
//!
//! - A worker reports a table generation as settled only between two polls of its tasks, when no request is between loading an
//!   older table and being counted as open.
//! - A connection whose recipient's inbox is full or closed stays with the worker that accepted it.
//!
//! # Failure modes
//!
//! - Accepting fails, probably with EMFILE: pause, then retry.
//! - Stopping: connections waiting in the accept queue are still served, idle ones are closed after a while, and open ones when
//!   the grace period has expired.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::LocalOptions,
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_local},
    time::{Instant, interval, sleep, sleep_until},
};

use crate::{
    ProxyState,
    access_log::AccessLog,
    client_connection::{ClientConnection, ConnectionOrder},
    forward::RequestForwarder,
    framing_guard::FramingGuard,
    headers::ClientIdentity,
    release_counters::{OpenRequestReport, WorkerIndex},
};

/// Largest head of a request, as in other servers.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Concurrent streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Pause after a failed accept, probably EMFILE.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Interval for closing idle connections.
const TICK: Duration = Duration::from_secs(1);
/// Queued report requests: one by the server, another by a successor.
pub(crate) const REPORTS_MAX: usize = 16;
/// Queued messages of a worker; beyond that, connections stay with the worker that accepted them.
pub(crate) const INBOX_MAX: usize = 1_024;
/// How long idle connections stay open after the stop began, because a request may be in transit.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Messages to a worker.
#[derive(Debug)]
pub(crate) enum WorkerMessage {
    /// Start accepting at this address.
    Listen(SocketAddr, std::net::TcpListener),
    /// Stop accepting at this address.
    Unlisten(SocketAddr),
    /// Serve a connection that another worker accepted at this port.
    Serve(std::net::TcpStream, SocketAddr, u16),
}

/// Where a worker sends its open requests.
pub(crate) type ReportRequest = oneshot::Sender<Vec<OpenRequestReport>>;

/// Arguments of a worker.
pub(crate) struct WorkerStart {
    pub(crate) number: WorkerIndex,
    pub(crate) shared: Arc<ProxyState>,
    pub(crate) inbox: mpsc::Receiver<WorkerMessage>,
    pub(crate) report_requests: mpsc::Receiver<ReportRequest>,
    pub(crate) log: Option<AccessLog>,
}

/// Runs until the proxy stops and the open connections have ended, or the grace period has expired.
pub(crate) fn run_worker(start: WorkerStart) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default());
    let runtime = runtime.expect("a runtime can be made at the start of the process");
    runtime.block_on(serve_until_stopped(start));
}

async fn serve_until_stopped(start: WorkerStart) {
    let WorkerStart {
        number,
        shared,
        mut inbox,
        report_requests,
        log,
    } = start;
    let worker = Rc::new(ProxyWorker {
        forwarder: RequestForwarder::new(shared.clone(), number, log),
        ticks: Rc::default(),
        connections: RefCell::default(),
    });
    spawn_local(worker.clone().answer_reports(report_requests));
    let mut listening: HashMap<SocketAddr, WorkerListener> = HashMap::new();
    let mut changes = shared.changes.subscribe();
    let mut tick = interval(TICK);
    loop {
        worker.report_generation();
        tokio::select! {
            () = shared.stopping.cancelled() => break,
            _ = changes.changed() => {}
            _ = tick.tick() => worker.close_idle(),
            message = inbox.recv() => match message {
                Some(WorkerMessage::Listen(address, listener)) => match WorkerListener::new(&worker, address, listener) {
                    Ok(new) => drop(listening.insert(address, new)),
                    Err(error) => tracing::error!("can't listen on {address}: {error}"),
                },
                Some(WorkerMessage::Unlisten(address)) => drop(listening.remove(&address)),
                Some(message) => worker.serve_assigned(message),
                None => break,
            },
        }
    }
    for listener in listening.into_values() {
        listener.accept_pending(&worker);
    }
    // Connections assigned before the inbox was closed are still served; later ones stay with their acceptor.
    inbox.close();
    while let Some(message) = inbox.recv().await {
        worker.serve_assigned(message);
    }
    worker.finish_connections(shared.grace()).await;
}

struct ProxyWorker {
    forwarder: RequestForwarder,
    ticks: Rc<Cell<u32>>,
    connections: RefCell<Vec<Weak<ClientConnection>>>,
}

/// A socket that this worker accepts from.
struct WorkerListener {
    socket: std::net::TcpListener,
    accepting: JoinHandle<()>,
}

impl Drop for WorkerListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl WorkerListener {
    fn new(
        worker: &Rc<ProxyWorker>,
        address: SocketAddr,
        socket: std::net::TcpListener,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        let accepting = spawn_local(worker.clone().accept_connections(listener, address.port()));
        Ok(Self { socket, accepting })
    }

    /// Serves the connections in the accept queue: closing the socket would reset them.
    fn accept_pending(self, worker: &Rc<ProxyWorker>) {
        self.accepting.abort();
        let port = self.socket.local_addr().map_or(0, |address| address.port());
        while let Ok((stream, client)) = self.socket.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                worker.serve_connection(stream, client, port);
            }
        }
    }
}

impl ProxyWorker {
    /// Reports the current table generation as settled. Runs between two polls of the tasks, so no request is between loading an
    /// older table and being open.
    fn report_generation(&self) {
        let shared = &self.forwarder.shared;
        let generation = shared.table.load().generation;
        let number = self.forwarder.worker;
        shared.settled.send_if_modified(|settled| {
            std::mem::replace(&mut settled[number], generation) != generation
        });
    }

    /// Answers requests for open requests, also while the worker stops.
    async fn answer_reports(self: Rc<Self>, mut asked: mpsc::Receiver<ReportRequest>) {
        while let Some(asked) = asked.recv().await {
            let forwarder = &self.forwarder;
            let report = forwarder
                .open
                .report_open_requests(forwarder.worker, std::time::Instant::now());
            // The requester may have gone.
            let _ = asked.send(report);
        }
    }

    async fn accept_connections(self: Rc<Self>, listener: TcpListener, port: u16) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => self.assign_connection(stream, client, port),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Assigns the connection to the worker with the fewest.
    fn assign_connection(self: &Rc<Self>, stream: TcpStream, client: SocketAddr, port: u16) {
        let (shared, me) = (&self.forwarder.shared, self.forwarder.worker);
        let load = |number: &usize| (shared.connections[*number].load(Relaxed), *number != me);
        let least = (0..shared.connections.len()).min_by_key(load).unwrap_or(me);
        if least == me {
            return self.serve_connection(stream, client, port);
        }
        let Ok(stream) = stream.into_std() else {
            return;
        };
        if let Err(error) =
            shared.inboxes[least].try_send(WorkerMessage::Serve(stream, client, port))
            && let WorkerMessage::Serve(stream, ..) = error.into_inner()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            self.serve_connection(stream, client, port);
        }
    }

    /// Serves a connection that another worker accepted.
    fn serve_assigned(self: &Rc<Self>, message: WorkerMessage) {
        let WorkerMessage::Serve(stream, client, port) = message else {
            return;
        };
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve_connection(stream, client, port),
            Err(error) => tracing::warn!("a connection was lost: {error}"),
        }
    }

    fn serve_connection(self: &Rc<Self>, stream: TcpStream, client: SocketAddr, port: u16) {
        // TCP_NODELAY: Nagle's algorithm would delay small responses.
        let _ = stream.set_nodelay(true);
        let client = ClientIdentity::new(client.ip(), &self.forwarder.shared.trusted);
        let connection = Rc::new(ClientConnection::new(client, port, self.ticks.clone()));
        self.connections
            .borrow_mut()
            .push(Rc::downgrade(&connection));
        let counted = ConnectionCountGuard::new(&self.forwarder);
        let connection = self.clone().drive_connection(stream, connection);
        self.forwarder.tasks.spawn_local(async move {
            let _counted = counted;
            connection.await;
        });
    }

    async fn drive_connection(self: Rc<Self>, stream: TcpStream, connection: Rc<ClientConnection>) {
        let mut builder = auto::Builder::new(LocalExecutor);
        // One copied write of head and body costs less than a vectored write. `close_idle` enforces the head timeout without a
        // timer per request. `pipeline_flush` stays off: it buffers without bound for a client that doesn't read, and delays
        // responses.
        builder
            .http1()
            .max_buf_size(HEAD_MAX_BYTES)
            .header_read_timeout(None)
            .writev(false);
        let mut http2 = builder.http2();
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX);
        http2.max_header_list_size(HEAD_MAX_BYTES as u32);
        let service_connection = connection.clone();
        let worker = self.clone();
        let service = service_fn(move |request| {
            let (worker, connection) = (worker.clone(), service_connection.clone());
            async move { worker.forwarder.handle_request(request, &connection).await }
        });
        let stream = TokioIo::new(FramingGuard::new(stream, connection.upgraded.clone()));
        let served = builder.serve_connection_with_upgrades(stream, service);
        let mut served = std::pin::pin!(served);
        let (mut known, mut finishing) = (false, false);
        std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut known, true) {
                connection.set_waker(cx.waker());
            }
            match connection.current_order() {
                ConnectionOrder::Serve => {}
                ConnectionOrder::Finish if finishing => {}
                ConnectionOrder::Finish => {
                    finishing = true;
                    served.as_mut().graceful_shutdown();
                }
                ConnectionOrder::Close => return Poll::Ready(()),
            }
            served.as_mut().poll(cx).map(|ended| {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a client's connection ended");
                }
            })
        })
        .await;
    }

    /// Closes client connections that were idle for too long, and stale pooled connections.
    fn close_idle(&self) {
        self.ticks.set(self.ticks.get().saturating_add(1));
        let limit = u32::try_from(self.forwarder.shared.head_timeout.as_secs()).unwrap_or(u32::MAX);
        self.connections.borrow_mut().retain(|connection| {
            let Some(connection) = connection.upgrade() else {
                return false;
            };
            // First gracefully; a connection in the middle of a head ignores that.
            match connection.idle_ticks() {
                idle if idle > limit => connection.raise_order(ConnectionOrder::Close),
                idle if idle == limit => connection.raise_order(ConnectionOrder::Finish),
                _ => {}
            }
            true
        });
        let table = self.forwarder.shared.table.load();
        let routed: std::collections::HashSet<SocketAddr> =
            table.instances().map(|instance| instance.address).collect();
        self.forwarder
            .pool
            .close_stale(|address| routed.contains(address));
    }

    /// Finishes open requests, asks clients to close, then closes idle connections.
    async fn finish_connections(&self, grace: Duration) {
        let forwarder = &self.forwarder;
        forwarder.stopping.set(true);
        forwarder.tasks.close();
        let until = Instant::now() + grace;
        let linger = sleep(LINGER_MAX.min(grace / 20));
        let ended = forwarder.tasks.wait();
        tokio::pin!(ended, linger);
        tokio::select! {
            () = &mut ended => return,
            () = &mut linger => {}
        }
        for connection in self.connections.borrow().iter().filter_map(Weak::upgrade) {
            connection.raise_order(ConnectionOrder::Finish);
        }
        tokio::select! {
            () = &mut ended => {}
            () = sleep_until(until) => tracing::warn!("connections were cut: the grace period has expired"),
        }
    }
}

/// Counts one connection of the worker while it lives.
struct ConnectionCountGuard {
    shared: Arc<ProxyState>,
    worker: WorkerIndex,
}

impl ConnectionCountGuard {
    fn new(forwarder: &RequestForwarder) -> Self {
        let counted = Self {
            shared: forwarder.shared.clone(),
            worker: forwarder.worker,
        };
        counted.shared.connections[counted.worker].fetch_add(1, Relaxed);
        counted
    }
}

impl Drop for ConnectionCountGuard {
    fn drop(&mut self) {
        self.shared.connections[self.worker].fetch_sub(1, Relaxed);
    }
}

/// Runs HTTP/2's tasks on the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
