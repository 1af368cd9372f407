//! The listener of the API: connections with a time limit for everything that a client can leave unfinished.
//!
//! *Limits.* Those of [`ConnectionTimeouts`]: for the head of a request, for an idle connection, and for each part of a body. A transfer
//! that makes progress has no limit: packs of any size, responses that take hours (server-sent events, the progress of a push).
//!
//! *Why not hyper's own.* Its time limit for heads also counts the time between two requests, so that it can't be shorter than the
//! idle one.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    response::Response,
};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

/// What a client may leave unfinished, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimeouts {
    /// From the first byte of a request to the end of its head.
    head: Duration,
    /// Between two requests, and before the first.
    idle: Duration,
    /// Between two parts of a body, while the handler waits for the next. Git sends a pack as it is made.
    body: Duration,
}

impl Default for ConnectionTimeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
        }
    }
}

/// How long connections may take to end their requests when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 4_096;
/// Before the next attempt where accepting failed, as it does while there are no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Both ends of the connection that a request came by; an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionAddresses {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl ConnectionAddresses {
    fn from_stream(stream: &TcpStream) -> Option<Self> {
        Some(Self {
            local: stream.local_addr().ok()?,
            remote: stream.peer_addr().ok()?,
        })
    }
}

/// Serves `router` until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    timeouts: ConnectionTimeouts,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = connection(stream, router.clone(), timeouts, &graceful);
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the API could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = tokio::time::timeout(STOP_TIMEOUT, graceful.shutdown()).await;
    if ended.is_err() {
        tracing::debug!("some connections to the API did not end in time");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

/// Serves one connection to its end.
fn connection(
    stream: TcpStream,
    router: Router,
    timeouts: ConnectionTimeouts,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    // Answers are small and waited for: Nagle's algorithm would delay them.
    let _ = stream.set_nodelay(true);
    let addresses = ConnectionAddresses::from_stream(&stream);
    let activity = Arc::new(ConnectionActivity::new(timeouts));
    let (served, router) = (activity.clone(), TowerToHyperService::new(router));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(addresses) = addresses {
            request.extensions_mut().insert(addresses);
        }
        let busy = RequestGuard::start(served.clone());
        let answer = router.call(request.map(|body| PromptBody::new(body, timeouts.body)));
        async move {
            let response: Response = answer.await?;
            Ok::<_, std::convert::Infallible>(
                response.map(|body| ResponseBody { body, _guard: busy }),
            )
        }
    });
    let io = TokioIo::new(WatchedStream {
        stream,
        activity: activity.clone(),
    });
    let connection = graceful.watch(http1::Builder::new().serve_connection(io, service));
    async move {
        tokio::select! {
            // A client that breaks off is no fault of the server.
            _ = connection => {}
            () = activity.timed_out() => {}
        }
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    /// For the first byte of a request, until then.
    Idle(Instant),
    /// For the rest of a head, until then.
    Head(Instant),
    /// A request is being answered.
    Busy,
}

/// The phase of a connection, shared by its stream, its requests and the task that ends it.
struct ConnectionActivity {
    phase: Mutex<ConnectionPhase>,
    changed: Notify,
    timeouts: ConnectionTimeouts,
}

impl ConnectionActivity {
    fn new(timeouts: ConnectionTimeouts) -> Self {
        Self {
            phase: Mutex::new(ConnectionPhase::Idle(Instant::now() + timeouts.idle)),
            changed: Notify::new(),
            timeouts,
        }
    }

    fn phase(&self) -> ConnectionPhase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: ConnectionPhase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.changed.notify_one();
    }

    fn received(&self) {
        if matches!(self.phase(), ConnectionPhase::Idle(_)) {
            self.set(ConnectionPhase::Head(Instant::now() + self.timeouts.head));
        }
    }

    /// Resolves when the connection has waited too long.
    async fn timed_out(&self) {
        loop {
            match self.phase() {
                ConnectionPhase::Busy => self.changed.notified().await,
                ConnectionPhase::Idle(until) | ConnectionPhase::Head(until) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(until) => {
                        if matches!(self.phase(), ConnectionPhase::Idle(it) | ConnectionPhase::Head(it) if it <= until) {
                            return;
                        }
                    }
                },
            }
        }
    }
}

/// A request that is being answered, until its answer is sent.
struct RequestGuard(Arc<ConnectionActivity>);

impl RequestGuard {
    fn start(activity: Arc<ConnectionActivity>) -> Self {
        activity.set(ConnectionPhase::Busy);
        Self(activity)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0
            .set(ConnectionPhase::Idle(Instant::now() + self.0.timeouts.idle));
    }
}

/// The body of an answer, which ends the request when it has been sent.
struct ResponseBody {
    body: Body,
    _guard: RequestGuard,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request: an error when nothing comes for too long while it is waited for.
struct PromptBody {
    body: Incoming,
    timeout: Duration,
    /// Runs while the next part is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl PromptBody {
    const fn new(body: Incoming, timeout: Duration) -> Self {
        Self {
            body,
            timeout,
            sleep: None,
        }
    }
}

impl HttpBody for PromptBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.sleep = None;
            return Poll::Ready(frame.map(|it| it.map_err(io::Error::other)));
        }
        let timeout = self.timeout;
        let fresh = || Box::pin(tokio::time::sleep(timeout));
        let sleep = self.sleep.get_or_insert_with(fresh);
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Some(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the body of the request stalled",
        ))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A stream that says when bytes come.
struct WatchedStream {
    stream: TcpStream,
    activity: Arc<ConnectionActivity>,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Long enough for a busy machine; a limit that is meant to be met is far below.
    const FOREVER: Duration = Duration::from_secs(300);
    const SHORT: Duration = Duration::from_millis(200);
    const TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
        head: FOREVER,
        idle: FOREVER,
        body: FOREVER,
    };

    /// What a client gets that sends these bytes one after the other, and then nothing more: the answer, up to the end of the
    /// connection.
    async fn answer(timeouts: ConnectionTimeouts, parts: &[&[u8]], between: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/", post(|body: String| async move { body }));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, timeouts, stop.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let started = Instant::now();
        for part in parts {
            tokio::time::sleep(between).await;
            if client.write_all(part).await.is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert!(
            started.elapsed() < FOREVER / 2,
            "nothing ended the connection"
        );
        stop.cancel();
        server.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_is_not_finished_ends_the_connection() {
        let timeouts = ConnectionTimeouts {
            head: SHORT,
            ..TIMEOUTS
        };
        let started: &[&[u8]] = &[b"GET / HTTP/1.1\r\nhost: x\r\n"];
        assert_eq!(answer(timeouts, started, Duration::ZERO).await, "");
        // Bytes that trickle in don't keep it: the limit is for the whole head.
        let trickle: Vec<&[u8]> = std::iter::repeat_n(b"G".as_slice(), 100).collect();
        assert_eq!(answer(timeouts, &trickle, SHORT / 4).await, "");
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_closed() {
        let timeouts = ConnectionTimeouts {
            idle: SHORT,
            ..TIMEOUTS
        };
        assert_eq!(answer(timeouts, &[], Duration::ZERO).await, "");
        let whole: &[&[u8]] = &[b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"];
        let answered = answer(timeouts, whole, Duration::ZERO).await;
        assert!(answered.ends_with("hello"), "{answered}");
    }

    #[tokio::test]
    async fn a_body_may_be_slow_but_not_stand_still() {
        let head: &[u8] =
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
        let timeouts = ConnectionTimeouts {
            body: Duration::from_secs(2),
            ..TIMEOUTS
        };
        let slow = [head, b"a", b"b", b"c", b"d"];
        let answered = answer(timeouts, &slow, Duration::from_millis(700)).await;
        assert!(answered.ends_with("abcd"), "{answered}");
        let answered = answer(timeouts, &[head, b"a"], Duration::ZERO).await;
        assert!(answered.starts_with("HTTP/1.1 400"), "{answered}");
    }
}
