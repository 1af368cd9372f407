//! Connections to instances: a pool for each worker, used by its thread alone.
//!
//! A connection has no task of its own: whoever sends over it drives it, first for the head of the answer, then for its body. That
//! saves two switches between tasks for each request. Only requests with a body, and those that change the protocol, get a task:
//! they must go on sending while nobody asks for more of the answer.
//!
//! A connection that waits in the pool is not watched; whether it was closed meanwhile is seen when it is taken out.

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

use crate::body::Upload;

/// An instance on this machine or in this network answers sooner, or is not there.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Fields in the head of an answer, and its bytes; more than any server or browser takes by default.
const ANSWER_HEADERS_MAX: usize = 1_000;
const ANSWER_HEAD_BYTES_MAX: usize = 400 << 10;
/// Idle connections kept to each instance: as many as requests that usually run at once.
const IDLE_MAX: usize = 256;
/// Idle connections older than this are not used: servers close theirs, usually after 5 s or more.
const IDLE_AGE_MAX: Duration = Duration::from_secs(4);
/// The same for requests that can't be sent again: it must be most unlikely that the instance closes it at this moment.
const CAREFUL_AGE_MAX: Duration = Duration::from_millis(500);

/// Connections that wait for their next request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Rc<RefCell<HashMap<SocketAddr, Vec<Idle>>>>);

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// Whether a request may be sent again should the connection break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Yes,
    No,
}

impl Pool {
    /// A connection that was used before and is still open.
    pub(crate) fn take(&self, address: SocketAddr, again: Again, now: Instant) -> Option<Link> {
        let age_max = match again {
            Again::Yes => IDLE_AGE_MAX,
            Again::No => CAREFUL_AGE_MAX,
        };
        let mut pools = self.0.borrow_mut();
        let idle = pools.get_mut(&address)?;
        // The one used last is at the end, so that few are used and the others grow old.
        while let Some(mut found) = idle.pop_if(|it| now.duration_since(it.since) < age_max) {
            if found.link.is_usable() {
                return Some(found.link);
            }
        }
        None
    }

    /// Keeps a connection for the next request, when it has taken its answer to the end.
    pub(crate) fn put(&self, address: SocketAddr, mut link: Link) {
        if link.is_usable() {
            self.keep(address, link);
        } else if matches!(link.drive, Drive::Apart) {
            // Its task has yet to see that the answer is over; or the request isn't, and then it won't be ready soon.
            let pool = self.clone();
            spawn_local(async move {
                let ready = tokio::time::timeout(CONNECT_MAX, link.sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) {
                    pool.keep(address, link);
                }
            });
        }
    }

    fn keep(&self, address: SocketAddr, link: Link) {
        let mut pools = self.0.borrow_mut();
        let idle = pools.entry(address).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle {
                link,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections that are too old, and those to instances that are in no route any more.
    pub(crate) fn tidy(&self, known: impl Fn(&SocketAddr) -> bool) {
        let mut pools = self.0.borrow_mut();
        pools.retain(|address, idle| {
            idle.retain(|it| it.since.elapsed() < IDLE_AGE_MAX);
            known(address)
        });
    }
}

/// A connection to an instance.
pub(crate) struct Link {
    sender: SendRequest<Upload>,
    drive: Drive,
    received: Received,
}

/// Who polls the connection.
enum Drive {
    /// Whoever uses it.
    Here(Box<Connection<TokioIo<Watched>, Upload>>),
    /// A task.
    Apart,
    /// Nobody: it is closed.
    Over,
}

/// Whether bytes came; shared with the connection, which may have a task of its own.
#[derive(Clone, Debug, Default)]
struct Received(Arc<AtomicBool>);

/// A connection's stream that notes when bytes come.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    received: Received,
}

impl AsyncRead for Watched {
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

impl AsyncWrite for Watched {
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

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Whether a connection may have to change its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Upgradable,
}

impl Link {
    /// A new connection.
    pub(crate) async fn connect(address: SocketAddr, kind: Kind) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let received = Received::default();
        let (sender, connection) = http1::Builder::new()
            .writev(false)
            .max_headers(ANSWER_HEADERS_MAX)
            .max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(Watched {
                stream,
                received: received.clone(),
            }))
            .await
            .map_err(io::Error::other)?;
        let drive = match kind {
            Kind::Plain => Drive::Here(Box::new(connection)),
            Kind::Upgradable => {
                // Its end is seen by whoever uses the sender.
                spawn_local(async move { drop(connection.with_upgrades().await) });
                Drive::Apart
            }
        };
        Ok(Self {
            sender,
            drive,
            received,
        })
    }

    /// Gives the connection a task of its own.
    pub(crate) fn detach(&mut self) {
        match std::mem::replace(&mut self.drive, Drive::Apart) {
            Drive::Here(connection) => drop(spawn_local(async move { drop(connection.await) })),
            unchanged @ (Drive::Apart | Drive::Over) => self.drive = unchanged,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        self.received.0.store(false, Relaxed);
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let drive = &mut self.drive;
        // The answer can only come from the connection, so nobody has to be woken for it while that is driven here.
        std::future::poll_fn(|cx| {
            if drive.poll(cx) {
                answer
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
            } else {
                answer.as_mut().poll(cx)
            }
        })
        .await
    }

    /// Whether anything came since the last request was sent.
    pub(crate) fn has_received(&self) -> bool {
        self.received.0.load(Relaxed)
    }

    /// The next piece of an answer's body.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !matches!(self.drive, Drive::Here(_)) {
            return Pin::new(body).poll_frame(cx);
        }
        let unwatched = &mut Context::from_waker(Waker::noop());
        // Asking says that more is wanted; driving then brings it.
        let asked = Pin::new(&mut *body).poll_frame(unwatched);
        if asked.is_ready() {
            return asked;
        }
        if self.drive.poll(cx) {
            Pin::new(body).poll_frame(unwatched)
        } else {
            Pin::new(body).poll_frame(cx)
        }
    }

    /// Whether the next request can be sent.
    fn is_usable(&mut self) -> bool {
        self.drive.poll(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

impl Drive {
    /// Lets the connection do what it can. Whether it goes on being driven here.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Here(connection) = self else {
            return false;
        };
        if Pin::new(connection).poll(cx).is_ready() {
            // Dropping it answers whoever still waits for something.
            *self = Self::Over;
            return false;
        }
        true
    }
}
