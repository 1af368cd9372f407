//! Requests that are open at this worker's instances.
//!
//! # Why
//!
//! A request that never gets an answer ends when its client gives up, or not at all. What is counted only when an answer ends says
//! nothing about it, so a release whose every request hangs would look like one without traffic. Each worker therefore keeps a
//! slab of its open requests, and reports their ages whenever the counters are read.
//!
//! # Invariants
//!
//! - A request that was sent ends in exactly one of two counts: answered ([`OpenRequest::answered`]) or abandoned (its client
//!   went away before it was answered). An attempt that is repeated elsewhere ends in neither ([`OpenRequest::is_repeated`]).
//! - Only the worker's own thread reads or writes the slab. A report carries a copy of what that worker has counted for the same
//!   releases: open and ended requests belong to one moment, so a sum of both never falls.
//!
//! # Failure modes
//!
//! When a proxy dies, its open requests die with it. Whoever read its last report decides what that means (`drivers`, `ledger`).

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access::Line,
    body::Progress,
    counters::{Answered, CellCounts, InstanceState, ReleaseCounters, Worker},
    protocol::Latency,
    table::{Lane, Place, Side},
};

/// The status of a request that its client gave up, in the access log. It is nginx's.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The open requests of one worker.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests(RefCell<Slab>);

#[derive(Debug, Default)]
struct Slab {
    entries: Vec<Option<Rc<Sent>>>,
    free: Vec<usize>,
}

impl OpenRequests {
    fn insert(&self, sent: Rc<Sent>) -> usize {
        let mut slab = self.0.borrow_mut();
        if let Some(slot) = slab.free.pop() {
            slab.entries[slot] = Some(sent);
            return slot;
        }
        slab.entries.push(Some(sent));
        slab.entries.len() - 1
    }

    fn remove(&self, slot: usize) {
        let mut slab = self.0.borrow_mut();
        slab.entries[slot] = None;
        slab.free.push(slot);
    }

    /// The ages of all open requests by release. Users who have waited too long are counted now, not when their request ends.
    pub(crate) fn report(&self, worker: Worker, now: Instant) -> Vec<OpenReport> {
        let slab = self.0.borrow();
        let mut reports: BTreeMap<usize, OpenReport> = BTreeMap::new();
        for sent in slab.entries.iter().flatten() {
            let side = sent.side();
            let age = now.duration_since(sent.begun);
            let is_overdue = sent.is_overdue(now);
            side.waiting(age, is_overdue, sent.user);
            let report = reports
                .entry(Arc::as_ptr(&side.counters).addr())
                .or_insert_with(|| OpenReport {
                    counters: side.counters.clone(),
                    ages: Latency::default(),
                    overdue: 0,
                    ended: side.counters.counted_by(worker),
                });
            report.ages.record(age);
            report.overdue += u64::from(is_overdue);
        }
        reports.into_values().collect()
    }
}

/// What a worker has open for one release, and what it has counted for it at the same moment.
#[derive(Debug)]
pub(crate) struct OpenReport {
    pub(crate) counters: Arc<ReleaseCounters>,
    /// How long each open request has been open.
    pub(crate) ages: Latency,
    /// Those that have waited for the head of their answer for longer than the route allows.
    pub(crate) overdue: u64,
    pub(crate) ended: CellCounts,
}

/// One request at one instance.
#[derive(Debug)]
struct Sent {
    lane: Arc<Lane>,
    place: Place,
    worker: Worker,
    /// Who asks, by a hash; `None` where it doesn't matter.
    user: Option<u32>,
    begun: Instant,
    upload: Option<Rc<Progress>>,
    phase: Cell<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the head of the answer.
    Waiting,
    /// The head came after this time.
    Answering(Duration),
    /// The request is counted, or another attempt is.
    Counted,
}

impl Sent {
    fn side(&self) -> &Side {
        &self.lane.backends[self.place.side]
    }

    /// How long the instance has kept the request waiting at `now`; the time that the client takes to upload is the client's.
    fn waited(&self, now: Instant) -> Duration {
        let since = match &self.upload {
            Some(upload) if upload.awaits_client() => return Duration::ZERO,
            Some(upload) => upload.came_at().unwrap_or(self.begun),
            None => self.begun,
        };
        now.saturating_duration_since(since)
    }

    /// Whether the head of the answer came later than the route allows, or has not come within that time.
    fn is_overdue(&self, now: Instant) -> bool {
        let waited = match self.phase.get() {
            Phase::Waiting => self.waited(now),
            Phase::Answering(waited) => waited,
            Phase::Counted => return false,
        };
        self.lane.answer_within.is_some_and(|limit| waited > limit)
    }
}

/// A request that is open at an instance: from before it is sent until its last byte has gone, or its client has given up.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    sent: Rc<Sent>,
    /// Its place in the slab; `None` for what isn't a request any more, such as a WebSocket.
    listed: Option<(Rc<OpenRequests>, usize)>,
    line: RefCell<Option<Box<Line>>>,
}

impl OpenRequest {
    pub(crate) fn begin(
        all: &Rc<OpenRequests>,
        lane: Arc<Lane>,
        place: Place,
        worker: Worker,
        user: Option<u32>,
        begun: Instant,
        upload: Option<Rc<Progress>>,
    ) -> Self {
        let sent = Rc::new(Sent {
            lane,
            place,
            worker,
            user,
            begun,
            upload,
            phase: Cell::new(Phase::Waiting),
        });
        let slot = all.insert(sent.clone());
        Self::new(sent, Some((all.clone(), slot)))
    }

    fn new(sent: Rc<Sent>, listed: Option<(Rc<OpenRequests>, usize)>) -> Self {
        let open = Self {
            sent,
            listed,
            line: RefCell::default(),
        };
        open.side().counters.open.begin(open.worker());
        open.instance().open.begin(open.worker());
        open
    }

    /// Another one for the connection that goes on when this request is answered. It is no request: it ends uncounted.
    pub(crate) fn for_tunnel(&self) -> Self {
        let sent = Rc::new(Sent {
            lane: self.sent.lane.clone(),
            upload: None,
            phase: Cell::new(Phase::Counted),
            ..*self.sent
        });
        Self::new(sent, None)
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.sent.lane
    }

    pub(crate) fn side(&self) -> &Side {
        self.sent.side()
    }

    pub(crate) fn instance(&self) -> &Arc<InstanceState> {
        &self.side().instances[self.sent.place.instance]
    }

    pub(crate) fn worker(&self) -> Worker {
        self.sent.worker
    }

    /// Logs the request with this line when it ends.
    pub(crate) fn log(&self, line: Option<Box<Line>>) {
        *self.line.borrow_mut() = line;
    }

    /// Counts an answer in the instance's place as the proxy's own failure.
    pub(crate) fn is_proxy_error(&self) {
        self.side().counters.proxy_error(self.worker());
        if let Some(line) = &mut *self.line.borrow_mut() {
            line.proxy_error = true;
        }
    }

    /// The head of the answer is there.
    pub(crate) fn head_came(&self) {
        let waited = self.sent.waited(Instant::now());
        self.sent.phase.set(Phase::Answering(waited));
    }

    /// This attempt does not count: the request is sent again.
    pub(crate) fn is_repeated(&self) {
        self.sent.phase.set(Phase::Counted);
    }

    /// The answer is over.
    pub(crate) fn answered(&self, status: u16, bytes_out: u64) {
        let now = Instant::now();
        let answered = Answered {
            status,
            took: now.saturating_duration_since(self.sent.begun),
            is_late: self.sent.is_overdue(now),
            bytes_in: self.bytes_in(),
            bytes_out,
        };
        self.sent.phase.set(Phase::Counted);
        self.side()
            .answered(self.worker(), &answered, self.sent.user);
        self.write_line(&answered);
    }

    /// The client went away before it had what it asked for.
    pub(crate) fn abandoned(&self, bytes_out: u64) {
        let age = self.sent.begun.elapsed();
        let bytes_in = self.bytes_in();
        self.sent.phase.set(Phase::Counted);
        self.side().abandoned(self.worker(), age, self.sent.user);
        self.side()
            .counters
            .carried(self.worker(), bytes_in, bytes_out);
        self.write_line(&Answered {
            status: CLIENT_CLOSED_REQUEST,
            took: age,
            is_late: false,
            bytes_in,
            bytes_out,
        });
    }

    fn bytes_in(&self) -> u64 {
        self.sent
            .upload
            .as_ref()
            .map_or(0, |upload| upload.bytes.get())
    }

    fn write_line(&self, answered: &Answered) {
        if let Some(line) = self.line.borrow_mut().take() {
            let (route, release) = (&self.lane().route, self.side().release);
            line.write(route, release, &self.instance().id, answered);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.sent.phase.get() != Phase::Counted {
            // The connection's future was dropped: the client closed it, or its stream.
            if self
                .sent
                .upload
                .as_ref()
                .is_some_and(|it| it.awaits_client())
            {
                self.answered(http::StatusCode::BAD_REQUEST.as_u16(), 0);
            } else {
                self.abandoned(0);
            }
        }
        if let Some((all, slot)) = self.listed.take() {
            all.remove(slot);
        }
        self.instance().open.end(self.worker());
        self.side().counters.open.end(self.worker());
    }
}
