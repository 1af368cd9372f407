//! Bodies of requests: streamed from the client without buffering, and counted.

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
