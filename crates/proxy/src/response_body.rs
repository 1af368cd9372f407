//! Bodies of responses: streamed to the client without buffering, and counted when they end.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::{
    client_connection::BusyGuard,
    connection_pool::{ConnectionPool, InstanceConnection},
    open_requests::OpenRequest,
};

/// A client that disconnects after the response stalled for this long has abandoned it.
const STALLED_MIN: Duration = Duration::from_secs(1);

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
