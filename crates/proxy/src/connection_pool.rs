//! Connections to instances, pooled per worker and used by its thread only.
//!
//! # Why no task per connection
//!
//! The request that uses a connection drives it, first for the head of the response, then for the body. That saves two task
//! switches per request. Only requests with a body and upgrades get a task: they must keep sending while nothing polls the
//! response.
//!
//! # Failure modes
//!
//! A pooled connection is not polled; whether the instance closed it is noticed when it is taken out.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body as _, Frame, Incoming},
    client::conn::{
        TrySendError,
        http1::{self, Connection, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::spawn_local,
};

use crate::request_body::RequestBody;

/// Connect timeout: an instance on this machine or network accepts sooner, or is down.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Limits for the head of a response; above the defaults of all common servers and browsers.
const ANSWER_HEADERS_MAX: usize = 1_000;
const ANSWER_HEAD_BYTES_MAX: usize = 400 << 10;
/// Idle connections kept per instance: as many as usually run concurrently.
const IDLE_MAX: usize = 256;
/// Idle connections older than this are not reused: servers usually close theirs after 5 s or more.
const IDLE_AGE_MAX: Duration = Duration::from_secs(4);
/// The same for requests that can't be sent again: a close by the instance at the same moment must be very unlikely.
const CAREFUL_AGE_MAX: Duration = Duration::from_millis(500);

/// Idle connections by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionPool(Rc<RefCell<HashMap<SocketAddr, Vec<IdleConnection>>>>);

#[derive(Debug)]
struct IdleConnection {
    upstream: InstanceConnection,
    since: Instant,
}

/// Whether a request may be sent again if the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetrySafety {
    Safe,
    Unsafe,
}

impl ConnectionPool {
    /// Takes an idle connection that is still open.
    pub(crate) fn take(
        &self,
        address: SocketAddr,
        retry: RetrySafety,
        now: Instant,
    ) -> Option<InstanceConnection> {
        let age_max = match retry {
            RetrySafety::Safe => IDLE_AGE_MAX,
            RetrySafety::Unsafe => CAREFUL_AGE_MAX,
        };
        let mut pools = self.0.borrow_mut();
        let idle = pools.get_mut(&address)?;
        // The most recently used is last: few are reused, the others age out.
        while let Some(mut found) = idle.pop_if(|it| now.duration_since(it.since) < age_max) {
            if found.upstream.is_usable() {
                return Some(found.upstream);
            }
        }
        None
    }

    /// Returns a connection to the pool if its response was read to the end.
    pub(crate) fn return_connection(&self, address: SocketAddr, mut upstream: InstanceConnection) {
        if upstream.is_usable() {
            self.store_idle(address, upstream);
        } else if matches!(upstream.driver, ConnectionDriver::Task) {
            // Its task may not have seen the end of the response yet; or the request isn't over, and then it won't be ready
            // soon.
            let pool = self.clone();
            spawn_local(async move {
                let ready = tokio::time::timeout(CONNECT_MAX, upstream.sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) {
                    pool.store_idle(address, upstream);
                }
            });
        }
    }

    fn store_idle(&self, address: SocketAddr, upstream: InstanceConnection) {
        let mut pools = self.0.borrow_mut();
        let idle = pools.entry(address).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(IdleConnection {
                upstream,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections that are too old or lead to instances that are in no route any more.
    pub(crate) fn close_stale(&self, known: impl Fn(&SocketAddr) -> bool) {
        let mut pools = self.0.borrow_mut();
        pools.retain(|address, idle| {
            idle.retain(|it| it.since.elapsed() < IDLE_AGE_MAX);
            known(address)
        });
    }
}

/// A connection to an instance.
pub(crate) struct InstanceConnection {
    sender: SendRequest<RequestBody>,
    driver: ConnectionDriver,
    received: ReceivedFlag,
}

/// What polls the connection.
enum ConnectionDriver {
    /// The request that uses it.
    Inline(Box<Connection<TokioIo<WatchedStream>, RequestBody>>),
    /// A task of its own.
    Task,
    /// Nothing: it is closed.
    Closed,
}

/// Whether bytes were received; shared with the connection, which may run in a task.
#[derive(Clone, Debug, Default)]
struct ReceivedFlag(Arc<AtomicBool>);

/// A stream that records that bytes were received.
#[derive(Debug)]
struct WatchedStream {
    stream: TcpStream,
    received: ReceivedFlag,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.received.0.store(true, Relaxed);
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for InstanceConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceConnection").finish_non_exhaustive()
    }
}

/// Whether a connection must support an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionKind {
    Plain,
    Upgradable,
}

impl InstanceConnection {
    /// Opens a connection.
    pub(crate) async fn connect(address: SocketAddr, kind: ConnectionKind) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let received = ReceivedFlag::default();
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .max_headers(ANSWER_HEADERS_MAX)
            .max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(WatchedStream {
                stream,
                received: received.clone(),
            }))
            .await
            .map_err(io::Error::other)?;
        let driver = match kind {
            ConnectionKind::Plain => ConnectionDriver::Inline(Box::new(connection)),
            ConnectionKind::Upgradable => {
                // Its end is noticed through the sender.
                spawn_local(async move { drop(connection.with_upgrades().await) });
                ConnectionDriver::Task
            }
        };
        Ok(Self {
            sender,
            driver,
            received,
        })
    }

    /// Moves the connection into a task of its own.
    pub(crate) fn detach(&mut self) {
        match std::mem::replace(&mut self.driver, ConnectionDriver::Task) {
            ConnectionDriver::Inline(connection) => {
                drop(spawn_local(async move { drop(connection.await) }))
            }
            unchanged @ (ConnectionDriver::Task | ConnectionDriver::Closed) => {
                self.driver = unchanged
            }
        }
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send_request(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        self.received.0.store(false, Relaxed);
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        // The response comes only through the connection: while it is driven here, the response future needs no waker.
        std::future::poll_fn(|cx| {
            if driver.poll_connection(cx) {
                answer
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
            } else {
                answer.as_mut().poll(cx)
            }
        })
        .await
    }

    /// Whether any byte was received since the last request was sent.
    pub(crate) fn has_received_bytes(&self) -> bool {
        self.received.0.load(Relaxed)
    }

    /// The next frame of a response body.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !matches!(self.driver, ConnectionDriver::Inline(_)) {
            return Pin::new(body).poll_frame(cx);
        }
        let unwatched = &mut Context::from_waker(Waker::noop());
        // Polling the body requests more data; driving the connection fetches it.
        let asked = Pin::new(&mut *body).poll_frame(unwatched);
        if asked.is_ready() {
            return asked;
        }
        if self.driver.poll_connection(cx) {
            Pin::new(body).poll_frame(unwatched)
        } else {
            Pin::new(body).poll_frame(cx)
        }
    }

    /// Whether another request can be sent.
    fn is_usable(&mut self) -> bool {
        self.driver
            .poll_connection(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

impl ConnectionDriver {
    /// Polls the connection. Returns whether it is still driven here.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Inline(connection) = self else {
            return false;
        };
        if Pin::new(connection).poll(cx).is_ready() {
            // Dropping the connection completes its pending futures.
            *self = Self::Closed;
            return false;
        }
        true
    }
}
