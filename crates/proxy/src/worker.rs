//! A worker: one thread with one runtime, its own clients' connections and its own connections to instances. Workers share the
//! table, the counters and the listening sockets; whoever accepts a connection gives it to the worker that has the fewest.

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
    Shared,
    access::Log,
    connection::{Arrival, Order},
    counters::Worker as Number,
    forward::Forwarder,
    headers::Client,
    open::OpenReport,
    strict::Strict,
};

/// The largest head of a request, as large as other servers take it.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Streams of one HTTP/2 connection that are answered at once.
const STREAMS_MAX: u32 = 256;
/// After an accept failed (no file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often idle connections are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Reports that wait for a worker: the server asks for one at a time, and a successor for another.
pub(crate) const REPORTS_MAX: usize = 16;
/// Messages that wait for a worker; beyond it, connections stay with who accepted them.
pub(crate) const INBOX_MAX: usize = 1_024;
/// An idle client's connection is closed so long after the proxy began to stop, at most: a request may be on its way.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Accept here from now on.
    Listen(SocketAddr, std::net::TcpListener),
    /// Accept there no longer.
    Unlisten(SocketAddr),
    /// Serve a connection that another worker accepted at this port.
    Serve(std::net::TcpStream, SocketAddr, u16),
}

/// Where a worker sends what it has open at this moment.
pub(crate) type ReportRequest = oneshot::Sender<Vec<OpenReport>>;

/// What a worker starts with.
pub(crate) struct Start {
    pub(crate) number: Number,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) asked_for_reports: mpsc::Receiver<ReportRequest>,
    pub(crate) log: Option<Log>,
}

/// Runs until the proxy stops and what is open is over, or the grace is.
pub(crate) fn run(start: Start) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default());
    let runtime = runtime.expect("a runtime can be made at the start of the process");
    runtime.block_on(serve(start));
}

async fn serve(start: Start) {
    let Start {
        number,
        shared,
        mut inbox,
        asked_for_reports,
        log,
    } = start;
    let worker = Rc::new(Worker {
        forwarder: Forwarder::new(shared.clone(), number, log),
        ticks: Rc::default(),
        arrivals: RefCell::default(),
    });
    spawn_local(worker.clone().report(asked_for_reports));
    let mut listening: HashMap<SocketAddr, Listening> = HashMap::new();
    let mut changes = shared.changes.subscribe();
    let mut tick = interval(TICK);
    loop {
        worker.settle();
        tokio::select! {
            () = shared.stopping.cancelled() => break,
            _ = changes.changed() => {}
            _ = tick.tick() => worker.tick(),
            message = inbox.recv() => match message {
                Some(Message::Listen(address, listener)) => match Listening::new(&worker, address, listener) {
                    Ok(new) => drop(listening.insert(address, new)),
                    Err(error) => tracing::error!("{address} can't be listened on: {error}"),
                },
                Some(Message::Unlisten(address)) => drop(listening.remove(&address)),
                Some(message) => worker.take(message),
                None => break,
            },
        }
    }
    for listener in listening.into_values() {
        listener.accept_the_rest(&worker);
    }
    // What others gave before they knew is served, too; from now on they keep theirs.
    inbox.close();
    while let Some(message) = inbox.recv().await {
        worker.take(message);
    }
    worker.stop(shared.grace()).await;
}

struct Worker {
    forwarder: Forwarder,
    ticks: Rc<Cell<u32>>,
    arrivals: RefCell<Vec<Weak<Arrival>>>,
}

/// A socket this worker accepts from.
struct Listening {
    socket: std::net::TcpListener,
    accepting: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listening {
    fn new(
        worker: &Rc<Worker>,
        address: SocketAddr,
        socket: std::net::TcpListener,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        let accepting = spawn_local(worker.clone().accept(listener, address.port()));
        Ok(Self { socket, accepting })
    }

    /// Who is connected already is still served: closing the socket would cut them off.
    fn accept_the_rest(self, worker: &Rc<Worker>) {
        self.accepting.abort();
        let port = self.socket.local_addr().map_or(0, |address| address.port());
        while let Ok((stream, client)) = self.socket.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                worker.serve(stream, client, port);
            }
        }
    }
}

impl Worker {
    /// Says that no request is between looking at an older table and being open: this runs between two polls of their tasks.
    fn settle(&self) {
        let shared = &self.forwarder.shared;
        let generation = shared.table.load().generation;
        let number = self.forwarder.worker;
        shared.settled.send_if_modified(|settled| {
            std::mem::replace(&mut settled[number], generation) != generation
        });
    }

    /// Says what is open whenever it is asked, also while it stops.
    async fn report(self: Rc<Self>, mut asked: mpsc::Receiver<ReportRequest>) {
        while let Some(asked) = asked.recv().await {
            let forwarder = &self.forwarder;
            let report = forwarder
                .open
                .report(forwarder.worker, std::time::Instant::now());
            // A reader that has gone needs no report.
            let _ = asked.send(report);
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, port: u16) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => self.place(stream, client, port),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Gives the connection to the worker with the fewest.
    fn place(self: &Rc<Self>, stream: TcpStream, client: SocketAddr, port: u16) {
        let (shared, me) = (&self.forwarder.shared, self.forwarder.worker);
        let load = |number: &usize| (shared.connections[*number].load(Relaxed), *number != me);
        let least = (0..shared.connections.len()).min_by_key(load).unwrap_or(me);
        if least == me {
            return self.serve(stream, client, port);
        }
        let Ok(stream) = stream.into_std() else {
            return;
        };
        if let Err(error) = shared.inboxes[least].try_send(Message::Serve(stream, client, port))
            && let Message::Serve(stream, ..) = error.into_inner()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            self.serve(stream, client, port);
        }
    }

    /// Serves what another worker accepted.
    fn take(self: &Rc<Self>, message: Message) {
        let Message::Serve(stream, client, port) = message else {
            return;
        };
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve(stream, client, port),
            Err(error) => tracing::warn!("a connection was lost: {error}"),
        }
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, client: SocketAddr, port: u16) {
        // Without it small answers wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let client = Client::new(client.ip(), &self.forwarder.shared.trusted);
        let arrival = Rc::new(Arrival::new(client, port, self.ticks.clone()));
        self.arrivals.borrow_mut().push(Rc::downgrade(&arrival));
        let counted = Counted::new(&self.forwarder);
        let connection = self.clone().connection(stream, arrival);
        self.forwarder.tasks.spawn_local(async move {
            let _counted = counted;
            connection.await;
        });
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, arrival: Rc<Arrival>) {
        let mut builder = auto::Builder::new(LocalExecutor);
        // Copying head and body together costs less than a vectored write. Heads that take too long are seen to by `tick`, which costs no timer for each request. `pipeline_flush` stays off: it
        // buffers without bound for a client that doesn't read, and holds back what a client waits for before it says more.
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
        let asked = arrival.clone();
        let worker = self.clone();
        let service = service_fn(move |request| {
            let (worker, arrival) = (worker.clone(), asked.clone());
            async move { worker.forwarder.answer(request, &arrival).await }
        });
        let stream = TokioIo::new(Strict::new(stream, arrival.switched.clone()));
        let served = builder.serve_connection_with_upgrades(stream, service);
        let mut served = std::pin::pin!(served);
        let (mut known, mut finishing) = (false, false);
        std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut known, true) {
                arrival.listen(cx.waker());
            }
            match arrival.order() {
                Order::Serve => {}
                Order::Finish if finishing => {}
                Order::Finish => {
                    finishing = true;
                    served.as_mut().graceful_shutdown();
                }
                Order::Close => return Poll::Ready(()),
            }
            served.as_mut().poll(cx).map(|ended| {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a client's connection ended");
                }
            })
        })
        .await;
    }

    /// Sees to what has waited too long.
    fn tick(&self) {
        self.ticks.set(self.ticks.get().saturating_add(1));
        let limit = u32::try_from(self.forwarder.shared.head_max.as_secs()).unwrap_or(u32::MAX);
        self.arrivals.borrow_mut().retain(|arrival| {
            let Some(arrival) = arrival.upgrade() else {
                return false;
            };
            // First politely; whoever is in the middle of a head doesn't hear that.
            match arrival.idle_ticks() {
                idle if idle > limit => arrival.tell(Order::Close),
                idle if idle == limit => arrival.tell(Order::Finish),
                _ => {}
            }
            true
        });
        let table = self.forwarder.shared.table.load();
        let routed: std::collections::HashSet<SocketAddr> =
            table.instances().map(|instance| instance.address).collect();
        self.forwarder.pool.tidy(|address| routed.contains(address));
    }

    /// Answers what is open, asks clients to go, and closes what is idle.
    async fn stop(&self, grace: Duration) {
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
        for arrival in self.arrivals.borrow().iter().filter_map(Weak::upgrade) {
            arrival.tell(Order::Finish);
        }
        tokio::select! {
            () = &mut ended => {}
            () = sleep_until(until) => tracing::warn!("connections were cut: the grace is over"),
        }
    }
}

/// One connection in the worker's load.
struct Counted {
    shared: Arc<Shared>,
    worker: Number,
}

impl Counted {
    fn new(forwarder: &Forwarder) -> Self {
        let counted = Self {
            shared: forwarder.shared.clone(),
            worker: forwarder.worker,
        };
        counted.shared.connections[counted.worker].fetch_add(1, Relaxed);
        counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.connections[self.worker].fetch_sub(1, Relaxed);
    }
}

/// Runs HTTP/2's helpers on the worker's own thread.
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
