//! A worker: one thread, one runtime, its own listeners and its own connections. Workers share the table and the counters.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, LocalSet, spawn_local},
};

use crate::{
    Shared,
    forward::{Arrival, Forwarder},
};

/// A client that takes longer to send the head of its request is let go.
const HEADER_MAX: Duration = Duration::from_secs(30);
/// After an accept failed (no file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a worker starts with.
pub(crate) struct Start {
    pub(crate) number: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) listeners: Vec<std::net::TcpListener>,
}

/// Runs until the proxy stops and what is open is over, or the grace is.
pub(crate) fn run(start: Start) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made at the start of the process");
    LocalSet::new().block_on(&runtime, serve(start));
}

async fn serve(start: Start) {
    let shared = start.shared;
    let seed = shared.seed ^ (start.number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let worker = Rc::new(Worker {
        forwarder: Forwarder::new(shared.clone(), seed),
        graceful: GracefulShutdown::new(),
    });
    let mut accepting: Vec<JoinHandle<()>> = Vec::new();
    for listener in start.listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => accepting.push(spawn_local(worker.clone().accept(listener))),
            Err(error) => tracing::error!(%error, "a listener can't be used"),
        }
    }
    let mut own: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    let mut generations = shared.generations.subscribe();
    loop {
        worker.open_ports(&mut own);
        let stale = shared.table.load_full();
        worker.forwarder.pool.retain(|address| {
            let text = address.to_string();
            stale
                .snapshot
                .routes
                .iter()
                .flat_map(|route| &route.backends)
                .flat_map(|backend| &backend.instances)
                .any(|instance| instance.address == text)
        });
        tokio::select! {
            changed = generations.changed() => if changed.is_err() { break },
            () = shared.stopping.cancelled() => break,
        }
    }
    for task in accepting.into_iter().chain(own.into_values()) {
        task.abort();
    }
    let grace = *shared
        .grace
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Ok(worker) = Rc::try_unwrap(worker).map_err(|_| ()) {
        let _ = tokio::time::timeout(grace, worker.graceful.shutdown()).await;
    } else {
        // Requests are open: they hold the worker. Their connections end with them.
        let _ = tokio::time::timeout(grace, shared.idle()).await;
    }
}

struct Worker {
    forwarder: Forwarder,
    graceful: GracefulShutdown,
}

impl Worker {
    /// Opens and closes the ports that routes have of their own.
    fn open_ports(self: &Rc<Self>, own: &mut BTreeMap<u16, JoinHandle<()>>) {
        let wanted = self.forwarder.shared.table.load().ports();
        own.retain(|port, task| {
            let keep = wanted.contains(port);
            if !keep {
                task.abort();
            }
            keep
        });
        for port in wanted {
            if own.contains_key(&port) {
                continue;
            }
            match crate::listen(SocketAddr::new(self.forwarder.shared.own_ports_at, port))
                .and_then(TcpListener::from_std)
            {
                Ok(listener) => drop(own.insert(port, spawn_local(self.clone().accept(listener)))),
                Err(error) => {
                    tracing::error!(%error, port, "the port of a route can't be listened on")
                }
            }
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        let port = listener.local_addr().map_or(0, |address| address.port());
        loop {
            match listener.accept().await {
                Ok((stream, client)) => self.clone().connection(
                    stream,
                    Arrival {
                        client: client.ip(),
                        port,
                    },
                ),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(self: Rc<Self>, stream: TcpStream, arrival: Arrival) {
        // Without it small answers wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let mut builder = auto::Builder::new(LocalExecutor);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_MAX)
            .pipeline_flush(true);
        builder.http2().timer(TokioTimer::new());
        let watcher = self.graceful.watcher();
        let worker = self;
        spawn_local(async move {
            let service = service_fn(move |request| {
                let worker = worker.clone();
                async move { worker.forwarder.answer(request, arrival).await }
            });
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::trace!(%error, "a client went away");
            }
        });
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
