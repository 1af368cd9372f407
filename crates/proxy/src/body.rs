//! Bodies on their way through: nothing is kept, everything is counted.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::{
    access::Line,
    connection::Busy,
    counters::{Answered, InstanceState, Worker},
    table::{Lane, Place, Side},
    upstream::{Link, Pool},
};

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Upload {
    /// There is none, so the request can be sent again.
    None,
    /// As the client sends it.
    Client(Incoming, Rc<Progress>),
    /// That of a copy; `None` once it was sent.
    Copy(Option<Bytes>),
}

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
    /// A copy of what came so far, where one is wanted and it isn't too large.
    copy: RefCell<Option<BytesMut>>,
}

impl Progress {
    /// A copy of the body is wanted; nothing of it has come yet.
    pub(crate) fn copy_from_here(&self) {
        *self.copy.borrow_mut() = Some(BytesMut::new());
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
    pub(crate) fn new(body: Incoming) -> (Self, Option<Rc<Progress>>) {
        if body.is_end_stream() {
            return (Self::None, None);
        }
        let progress = Rc::new(Progress::default());
        (Self::Client(body, progress.clone()), Some(progress))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (body, progress) = match self.get_mut() {
            Self::Client(body, progress) => (body, progress),
            Self::Copy(body) => return Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::None => return Poll::Ready(None),
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
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
            Self::Client(body, _) => body.is_end_stream(),
            Self::Copy(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Client(body, _) => body.size_hint(),
            Self::Copy(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// A request that is open at an instance: from before it is sent until its last byte has gone, or nobody wants it any more.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    lane: Arc<Lane>,
    place: Place,
    worker: Worker,
    /// Who asks, by a hash; `None` where it doesn't matter.
    user: Option<u32>,
}

impl OpenRequest {
    pub(crate) fn begin(lane: Arc<Lane>, place: Place, worker: Worker, user: Option<u32>) -> Self {
        let side = &lane.backends[place.side];
        side.counters.open.begin(worker);
        side.instances[place.instance].open.begin(worker);
        Self {
            lane,
            place,
            worker,
            user,
        }
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    pub(crate) fn side(&self) -> &Side {
        &self.lane.backends[self.place.side]
    }

    pub(crate) fn instance(&self) -> &Arc<InstanceState> {
        &self.side().instances[self.place.instance]
    }

    pub(crate) fn worker(&self) -> Worker {
        self.worker
    }

    /// The answer is over.
    pub(crate) fn answered(&self, answer: &Answered) {
        self.side().answered(self.worker, answer, self.user);
    }

    /// The same once more, for what goes on when the request is answered.
    pub(crate) fn another(&self) -> Self {
        Self::begin(self.lane.clone(), self.place, self.worker, self.user)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.instance().open.end(self.worker);
        self.side().counters.open.end(self.worker);
    }
}

/// What is counted when an answer is over.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) open: OpenRequest,
    pub(crate) status: u16,
    pub(crate) begun: Instant,
    pub(crate) bytes_out: u64,
    pub(crate) upload: Option<Rc<Progress>>,
    pub(crate) line: Option<Box<Line>>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let answered = Answered {
            status: self.status,
            took: self.begun.elapsed(),
            bytes_in: self.upload.as_ref().map_or(0, |upload| upload.bytes.get()),
            bytes_out: self.bytes_out,
        };
        self.open.answered(&answered);
        if let Some(line) = self.line.take() {
            let open = &self.open;
            line.write(
                &open.lane.route,
                open.side().release,
                &open.instance().id,
                &answered,
            );
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
            }
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Err(_))) => {
                // The client sees that the answer isn't whole: for it this is an error.
                this.record.status = 502;
                this.link = None;
            }
            Poll::Pending => {}
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
        }
    }
}
