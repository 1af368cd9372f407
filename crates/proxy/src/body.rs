//! Bodies on their way through: nothing is kept, everything is counted.

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
    connection::Busy,
    open::OpenRequest,
    upstream::{Link, Pool},
};

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Upload {
    /// There is none, so the request can be sent again.
    None,
    /// As the client sends it.
    Client(ClientBody),
    /// That of a copy; `None` once it was sent.
    Copy(Option<Bytes>),
}

/// A client that leaves while the rest of an answer has not come for so long has given it up.
const STALLED_MIN: Duration = Duration::from_secs(1);
/// An upload that nobody wants is read for so long, and up to so many bytes, as by nginx's lingering close.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const DRAINED_BYTES_MAX: usize = 256 << 20;
/// Bytes of a body that are copied, at most.
const COPIED_MAX: usize = 64 * 1024;

/// How far an upload has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) bytes: Cell<u64>,
    /// All of it is there.
    pub(crate) complete: Cell<bool>,
    /// The client broke off, or framed it wrongly.
    pub(crate) broken: Cell<bool>,
    /// The client waits for `100 Continue`: it has sent nothing of the body unless some of it was read.
    is_awaited: bool,
    /// When the client sent the last piece.
    came_at: Cell<Option<Instant>>,
    /// The last time more was wanted, the client had not sent it yet.
    starved: Cell<bool>,
    /// A copy of what came so far, where one is wanted and it isn't too large.
    copy: RefCell<Option<BytesMut>>,
}

impl Progress {
    /// A copy of the body is wanted; nothing of it has come yet.
    pub(crate) fn copy_from_here(&self) {
        *self.copy.borrow_mut() = Some(BytesMut::new());
    }

    /// When the client sent the last piece that was taken.
    pub(crate) fn came_at(&self) -> Option<Instant> {
        self.came_at.get()
    }

    /// Whether the request waits for its client rather than for the instance.
    pub(crate) fn awaits_client(&self) -> bool {
        self.broken.get() || (self.starved.get() && !self.complete.get())
    }

    /// The copy, when all of the body is in it.
    pub(crate) fn copied(&self) -> Option<Bytes> {
        let copy = self.copy.borrow_mut().take()?;
        self.complete.get().then(|| copy.freeze())
    }

    fn keep(&self, data: &[u8]) {
        let mut copy = self.copy.borrow_mut();
        copy.take_if(|copy| copy.len() + data.len() > COPIED_MAX);
        if let Some(copy) = copy.as_mut() {
            copy.extend_from_slice(data);
        }
    }
}

impl Upload {
    /// `is_awaited` says whether the client waits for `100 Continue` before it sends anything.
    pub(crate) fn new(body: Incoming, is_awaited: bool) -> (Self, Option<Rc<Progress>>) {
        if body.is_end_stream() {
            return (Self::None, None);
        }
        let progress = Rc::new(Progress {
            is_awaited,
            ..Progress::default()
        });
        let client = ClientBody {
            body: Some(body),
            progress: progress.clone(),
        };
        (Self::Client(client), Some(progress))
    }
}

/// What a client uploads.
///
/// When nobody wants the rest of it, because the request was answered before, the rest is read and thrown away within bounds:
/// closing the connection with something unread would reset it, and the client could lose the answer.
#[derive(Debug)]
pub(crate) struct ClientBody {
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    progress: Rc<Progress>,
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let progress = &self.progress;
        let is_sent = !progress.is_awaited || progress.bytes.get() > 0;
        if let Some(body) = self
            .body
            .take()
            .filter(|_| is_sent && !progress.broken.get())
        {
            drain(body);
        }
    }
}

/// Reads the rest of a body that nobody wants. The client's connection stays open meanwhile.
pub(crate) fn drain(mut body: Incoming) {
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

impl Body for Upload {
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
            progress.came_at.set(Some(Instant::now()));
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                progress.bytes.set(progress.bytes.get() + length);
                if let Some(data) = frame.data_ref() {
                    progress.keep(data);
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

/// An answer that is counted when it is over.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) open: OpenRequest,
    pub(crate) status: u16,
    pub(crate) bytes_out: u64,
    /// Its client has left a body that the instance did not finish.
    pub(crate) is_abandoned: bool,
}

impl Record {
    pub(crate) fn new(open: OpenRequest, status: u16) -> Self {
        Self {
            open,
            status,
            bytes_out: 0,
            is_abandoned: false,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.is_abandoned {
            self.open.abandoned(self.bytes_out);
        } else {
            self.open.answered(self.status, self.bytes_out);
        }
    }
}

/// An instance's answer on its way to the client. It brings its connection along and drives it: no other task has to be woken for
/// each piece.
#[derive(Debug)]
pub(crate) struct Download {
    body: Incoming,
    link: Option<Link>,
    pool: Pool,
    record: Record,
    /// Since when the instance has sent nothing more.
    stalled_since: Option<Instant>,
    /// The client's connection waits for no next request meanwhile.
    _busy: Busy,
}

impl Download {
    pub(crate) fn new(body: Incoming, link: Link, pool: Pool, record: Record, busy: Busy) -> Self {
        Self {
            body,
            link: Some(link),
            pool,
            record,
            stalled_since: None,
            _busy: busy,
        }
    }

    /// The connection is free for the next request.
    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.pool.put(self.record.open.instance().address, link);
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = match &mut this.link {
            Some(link) => link.poll_frame(&mut this.body, cx),
            None => Pin::new(&mut this.body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.record.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.stalled_since = None;
            }
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Err(_))) => {
                // The client sees that the answer isn't whole: for it this is an error.
                this.record.status = 502;
                this.link = None;
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

impl Drop for Download {
    fn drop(&mut self) {
        // What a client didn't want to the end leaves its connection in the middle of an answer: it is closed.
        if self.body.is_end_stream() {
            self.give_back();
            return;
        }
        // A body of a declared length that has stopped is half an answer; one without may be a stream that its client is done with.
        let is_sized = self.body.size_hint().exact().is_some();
        let stalled = self.stalled_since.map(|since| since.elapsed());
        self.record.is_abandoned = is_sized && stalled.is_some_and(|it| it >= STALLED_MIN);
    }
}
