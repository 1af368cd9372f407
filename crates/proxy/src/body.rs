//! Bodies of requests and responses: streamed without buffering, and counted.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use tokio::task::spawn_local;

use crate::{
    client_connection::BusyGuard,
    connection_pool::{ConnectionPool, InstanceConnection},
    open_requests::OpenRequest,
};

/// Body of a request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// No body: the request can be sent again.
    None,
    /// Streamed from the client.
    Client(ClientBody),
    /// The buffered body of a mirrored copy; `None` once sent.
    Copy(Option<Bytes>),
}

/// A client that disconnects after the response stalled for this long has abandoned it.
const STALLED_MIN: Duration = Duration::from_secs(1);
/// Limits for reading an unwanted upload, like nginx's lingering close.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const DRAINED_BYTES_MAX: usize = 256 << 20;
/// Largest body that is copied for mirroring.
const COPIED_MAX: usize = 64 * 1024;

/// When a client sends the body of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UploadStart {
    #[default]
    AtOnce,
    /// After `100 Continue`, which is sent when the body is polled first.
    AfterContinue,
}

/// Progress of an upload.
#[derive(Debug, Default)]
pub(crate) struct UploadProgress {
    pub(crate) bytes: Cell<u64>,
    /// All of the body was received.
    pub(crate) complete: Cell<bool>,
    /// The client disconnected or sent broken framing.
    pub(crate) broken: Cell<bool>,
    start: UploadStart,
    /// When the last frame was received.
    last_piece_at: Cell<Option<Instant>>,
    /// The last poll for more data was pending: the client is slower than the instance.
    starved: Cell<bool>,
    /// The body received so far, if a copy is needed and small enough.
    copy: RefCell<Option<BytesMut>>,
}

impl UploadProgress {
    /// Starts copying the body; called before any of it is received.
    pub(crate) fn start_copy(&self) {
        *self.copy.borrow_mut() = Some(BytesMut::new());
    }

    /// When the last frame was received from the client.
    pub(crate) fn last_piece_at(&self) -> Option<Instant> {
        self.last_piece_at.get()
    }

    /// Whether the request waits for its client instead of the instance.
    pub(crate) fn awaits_client(&self) -> bool {
        self.broken.get() || (self.starved.get() && !self.complete.get())
    }

    /// The copy, if it is complete.
    pub(crate) fn take_copy(&self) -> Option<Bytes> {
        let copy = self.copy.borrow_mut().take()?;
        self.complete.get().then(|| copy.freeze())
    }

    fn append_to_copy(&self, data: &[u8]) {
        let mut copy = self.copy.borrow_mut();
        copy.take_if(|copy| copy.len() + data.len() > COPIED_MAX);
        if let Some(copy) = copy.as_mut() {
            copy.extend_from_slice(data);
        }
    }
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, start: UploadStart) -> (Self, Option<Rc<UploadProgress>>) {
        if body.is_end_stream() {
            return (Self::None, None);
        }
        let progress = Rc::new(UploadProgress {
            start,
            ..UploadProgress::default()
        });
        let client = ClientBody {
            body: Some(body),
            progress: progress.clone(),
        };
        (Self::Client(client), Some(progress))
    }
}

/// A body streamed from the client.
///
/// If the request was answered before all of the body was read, the rest is read and discarded within bounds: closing the
/// connection with unread data would reset it, and the client could lose the response.
#[derive(Debug)]
pub(crate) struct ClientBody {
    /// `None` only during drop.
    body: Option<Incoming>,
    progress: Rc<UploadProgress>,
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let progress = &self.progress;
        let is_sent = progress.start == UploadStart::AtOnce || progress.bytes.get() > 0;
        if let Some(body) = self
            .body
            .take()
            .filter(|_| is_sent && !progress.broken.get())
        {
            drain_body(body);
        }
    }
}

/// Reads and discards the rest of a body. The client's connection stays open meanwhile.
pub(crate) fn drain_body(mut body: Incoming) {
    if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    spawn_local(async move {
        let all = async {
            let mut left = DRAINED_BYTES_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // A client that needs longer loses its connection.
        let _ = tokio::time::timeout(DRAIN_MAX, all).await;
    });
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (body, progress) = match self.get_mut() {
            Self::Client(client) => match &mut client.body {
                Some(body) => (body, &client.progress),
                None => return Poll::Ready(None),
            },
            Self::Copy(body) => return Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::None => return Poll::Ready(None),
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        progress.starved.set(polled.is_pending());
        if polled.is_ready() {
            progress.last_piece_at.set(Some(Instant::now()));
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                progress.bytes.set(progress.bytes.get() + length);
                if let Some(data) = frame.data_ref() {
                    progress.append_to_copy(data);
                }
            }
            Poll::Ready(Some(Err(_))) => progress.broken.set(true),
            Poll::Ready(None) | Poll::Pending => {}
        }
        if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
            progress.complete.set(true);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Client(client) => client.body.as_ref().is_none_or(Body::is_end_stream),
            Self::Copy(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Client(client) => {
                let hint = client.body.as_ref().map(Body::size_hint);
                hint.unwrap_or_else(|| SizeHint::with_exact(0))
            }
            Self::Copy(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// Counts a response when it ends.
#[derive(Debug)]
pub(crate) struct ResponseRecord {
    pub(crate) open: OpenRequest,
    pub(crate) status: u16,
    pub(crate) bytes_out: u64,
    /// The client disconnected while the instance had stalled in the body.
    pub(crate) is_abandoned: bool,
}

impl ResponseRecord {
    pub(crate) fn new(open: OpenRequest, status: u16) -> Self {
        Self {
            open,
            status,
            bytes_out: 0,
            is_abandoned: false,
        }
    }
}

impl Drop for ResponseRecord {
    fn drop(&mut self) {
        if self.is_abandoned {
            self.open.finish_abandoned(self.bytes_out);
        } else {
            self.open.finish_answered(self.status, self.bytes_out);
        }
    }
}

/// A response body on its way to the client. It owns its connection and drives it: no other task is woken for each frame.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Incoming,
    upstream: Option<InstanceConnection>,
    pool: ConnectionPool,
    record: ResponseRecord,
    /// Since when the instance has sent nothing.
    stalled_since: Option<Instant>,
    /// Keeps the client's connection from being closed as idle.
    _busy: BusyGuard,
}

impl ResponseBody {
    pub(crate) fn new(
        body: Incoming,
        upstream: InstanceConnection,
        pool: ConnectionPool,
        record: ResponseRecord,
        busy: BusyGuard,
    ) -> Self {
        Self {
            body,
            upstream: Some(upstream),
            pool,
            record,
            stalled_since: None,
            _busy: busy,
        }
    }

    /// Returns the connection to the pool.
    fn return_connection(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.pool
                .return_connection(self.record.open.instance().address, upstream);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.upstream {
            Some(upstream) => upstream.poll_frame(&mut this.body, cx),
            None => Pin::new(&mut this.body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.record.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.stalled_since = None;
            }
            Poll::Ready(None) => this.return_connection(),
            Poll::Ready(Some(Err(_))) => {
                // The client sees a truncated response: count it as an error.
                this.record.status = 502;
                this.upstream = None;
                this.stalled_since = None;
            }
            Poll::Pending => {
                this.stalled_since.get_or_insert_with(Instant::now);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Otherwise the connection is in the middle of a response and is closed.
        if self.body.is_end_stream() {
            self.return_connection();
            return;
        }
        // A stalled body of declared length is half a response; one without may be a stream that the client is done with.
        let is_sized = self.body.size_hint().exact().is_some();
        let stalled = self.stalled_since.map(|since| since.elapsed());
        self.record.is_abandoned = is_sized && stalled.is_some_and(|it| it >= STALLED_MIN);
    }
}
