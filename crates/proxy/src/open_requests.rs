//! Requests that are open at this worker's instances.
//!
//! # Why
//!
//! A request that hangs ends when its client disconnects, or never. Counting only at the end of a response would not show it: a
//! release whose every request hangs would look like one without traffic. Each worker therefore keeps a slab of its open
//! requests and reports their ages whenever the counters are read.
//!
//! # Invariants
//!
//! - A request that was sent ends in exactly one of two counts: answered ([`OpenRequest::finish_answered`]) or abandoned (its
//!   client disconnected first). An attempt that is repeated on another instance ends in neither ([`OpenRequest::mark_repeated`]).
//! - Only the worker's thread accesses the slab. A report carries a copy of that worker's counters for the same releases, taken
//!   at the same moment, so a sum of open and ended requests never falls.
//!
//! # Failure modes
//!
//! When a proxy dies, its open requests die with it. The reader of its last report counts them as unfinished (`drivers`,
//! `counter_totals`).

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    access_log::AccessLogLine,
    counter_registry::InstanceState,
    protocol::LatencyHistogram,
    release_counters::{CompletedResponse, OpenRequestReport, WorkerIndex},
    request_body::UploadProgress,
    route_table::{CompiledBackend, CompiledRoute, InstanceIndex},
};

/// Status of an abandoned request in the access log, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

#[derive(Debug, Default)]
pub(crate) struct OpenRequests(RefCell<OpenRequestSlab>);

#[derive(Debug, Default)]
struct OpenRequestSlab {
    entries: Vec<Option<Rc<SentRequest>>>,
    free: Vec<usize>,
}

impl OpenRequests {
    fn insert(&self, sent: Rc<SentRequest>) -> usize {
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
    pub(crate) fn report_open_requests(
        &self,
        worker: WorkerIndex,
        now: Instant,
    ) -> Vec<OpenRequestReport> {
        let slab = self.0.borrow();
        let mut reports: BTreeMap<usize, OpenRequestReport> = BTreeMap::new();
        for sent in slab.entries.iter().flatten() {
            let backend = sent.backend();
            let age = now.duration_since(sent.started_at);
            let is_overdue = sent.is_overdue(now);
            if is_overdue {
                backend.record_overdue(sent.user);
            }
            backend.record_waiting(age, sent.user);
            let report = reports
                .entry(Arc::as_ptr(&backend.counters).addr())
                .or_insert_with(|| OpenRequestReport {
                    counters: backend.counters.clone(),
                    ages: LatencyHistogram::default(),
                    overdue: 0,
                    ended: backend.counters.worker_counts(worker),
                });
            report.ages.record(age);
            report.overdue += u64::from(is_overdue);
        }
        reports.into_values().collect()
    }
}

/// A request sent to an instance.
#[derive(Debug)]
struct SentRequest {
    route: Arc<CompiledRoute>,
    place: InstanceIndex,
    worker: WorkerIndex,
    /// Hash of the user; `None` where users aren't distinguished.
    user: Option<u32>,
    started_at: Instant,
    upload: Option<Rc<UploadProgress>>,
    phase: Cell<RequestPhase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestPhase {
    /// Waiting for the head of the response.
    AwaitingHead,
    /// The head came after this time.
    HeadReceived(Duration),
    /// The request was counted, or another attempt will be.
    Counted,
}

impl SentRequest {
    fn backend(&self) -> &CompiledBackend {
        &self.route.backends[self.place.backend]
    }

    /// How long the request has waited for the instance at `now`, excluding the time that the client takes to upload.
    fn waited_at(&self, now: Instant) -> Duration {
        let since = match &self.upload {
            Some(upload) if upload.awaits_client() => return Duration::ZERO,
            Some(upload) => upload.last_piece_at().unwrap_or(self.started_at),
            None => self.started_at,
        };
        now.saturating_duration_since(since)
    }

    /// Whether the head came later than the route's limit, or is later by now.
    fn is_overdue(&self, now: Instant) -> bool {
        let waited = match self.phase.get() {
            RequestPhase::AwaitingHead => self.waited_at(now),
            RequestPhase::HeadReceived(waited) => waited,
            RequestPhase::Counted => return false,
        };
        self.route.answer_within.is_some_and(|limit| waited > limit)
    }
}

/// A request that is open at an instance: from before it is sent until its last byte was forwarded or its client disconnected.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    sent: Rc<SentRequest>,
    /// Its slot in the slab; `None` for upgraded connections.
    listed: Option<(Rc<OpenRequests>, usize)>,
    line: RefCell<Option<Box<AccessLogLine>>>,
}

impl OpenRequest {
    pub(crate) fn start(
        all: &Rc<OpenRequests>,
        route: Arc<CompiledRoute>,
        place: InstanceIndex,
        worker: WorkerIndex,
        user: Option<u32>,
        started_at: Instant,
        upload: Option<Rc<UploadProgress>>,
    ) -> Self {
        let sent = Rc::new(SentRequest {
            route,
            place,
            worker,
            user,
            started_at,
            upload,
            phase: Cell::new(RequestPhase::AwaitingHead),
        });
        let slot = all.insert(sent.clone());
        Self::new(sent, Some((all.clone(), slot)))
    }

    fn new(sent: Rc<SentRequest>, listed: Option<(Rc<OpenRequests>, usize)>) -> Self {
        let open = Self {
            sent,
            listed,
            line: RefCell::default(),
        };
        open.backend().counters.open.increment(open.worker());
        open.instance().open.increment(open.worker());
        open
    }

    /// An entry for the upgraded connection that continues after this request was answered. It ends uncounted.
    pub(crate) fn for_tunnel(&self) -> Self {
        let sent = Rc::new(SentRequest {
            route: self.sent.route.clone(),
            upload: None,
            phase: Cell::new(RequestPhase::Counted),
            ..*self.sent
        });
        Self::new(sent, None)
    }

    pub(crate) fn route(&self) -> &Arc<CompiledRoute> {
        &self.sent.route
    }

    pub(crate) fn backend(&self) -> &CompiledBackend {
        self.sent.backend()
    }

    pub(crate) fn instance(&self) -> &Arc<InstanceState> {
        &self.backend().instances[self.sent.place.instance]
    }

    pub(crate) fn worker(&self) -> WorkerIndex {
        self.sent.worker
    }

    /// Sets the access log line that is written when the request ends.
    pub(crate) fn set_log_line(&self, line: Option<Box<AccessLogLine>>) {
        *self.line.borrow_mut() = line;
    }

    /// Counts the response as generated by the proxy.
    pub(crate) fn mark_proxy_error(&self) {
        self.backend().counters.record_proxy_error(self.worker());
        if let Some(line) = &mut *self.line.borrow_mut() {
            line.proxy_error = true;
        }
    }

    /// Records that the head of the response was received.
    pub(crate) fn record_head(&self) {
        let waited = self.sent.waited_at(Instant::now());
        self.sent.phase.set(RequestPhase::HeadReceived(waited));
    }

    /// The attempt is not counted: the request is sent again.
    pub(crate) fn mark_repeated(&self) {
        self.sent.phase.set(RequestPhase::Counted);
    }

    /// Counts the response that has ended.
    pub(crate) fn finish_answered(&self, status: u16, bytes_out: u64) {
        let now = Instant::now();
        let answered = CompletedResponse {
            status,
            took: now.saturating_duration_since(self.sent.started_at),
            is_late: self.sent.is_overdue(now),
            bytes_in: self.bytes_in(),
            bytes_out,
        };
        self.sent.phase.set(RequestPhase::Counted);
        self.backend()
            .record_response(self.worker(), &answered, self.sent.user);
        self.write_line(&answered);
    }

    /// Counts the request as abandoned by its client.
    pub(crate) fn finish_abandoned(&self, bytes_out: u64) {
        let age = self.sent.started_at.elapsed();
        let bytes_in = self.bytes_in();
        self.sent.phase.set(RequestPhase::Counted);
        self.backend()
            .record_abandoned(self.worker(), age, self.sent.user);
        self.backend()
            .counters
            .record_tunnel_bytes(self.worker(), bytes_in, bytes_out);
        self.write_line(&CompletedResponse {
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

    fn write_line(&self, answered: &CompletedResponse) {
        if let Some(line) = self.line.borrow_mut().take() {
            let (route, release) = (&self.route().config, self.backend().release);
            line.write_response(route, release, &self.instance().id, answered);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.sent.phase.get() != RequestPhase::Counted {
            // The connection's future was dropped: the client closed its connection or stream.
            if self
                .sent
                .upload
                .as_ref()
                .is_some_and(|it| it.awaits_client())
            {
                self.finish_answered(http::StatusCode::BAD_REQUEST.as_u16(), 0);
            } else {
                self.finish_abandoned(0);
            }
        }
        if let Some((all, slot)) = self.listed.take() {
            all.remove(slot);
        }
        self.instance().open.decrement(self.worker());
        self.backend().counters.open.decrement(self.worker());
    }
}
