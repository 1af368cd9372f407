//! Counters of each release. Every worker counts in its own cells, written only by its thread: no locks, and no cache line moves
//! between cores. Readers sum the cells.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    latency_histogram::{BUCKETS, LatencyHistogram, bucket_index},
    protocol::{FailedUserCounts, ReleaseTotals},
};

/// Index of a worker and of its cells.
pub(crate) type WorkerIndex = usize;

/// The counters of one worker for one release. The alignment keeps workers off each other's cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct WorkerCells {
    statuses: [AtomicU64; 6],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    proxy_errors: AtomicU64,
    retries: AtomicU64,
    passed_over: AtomicU64,
    late: AtomicU64,
    abandoned: AtomicU64,
    latency: Box<[AtomicU64]>,
    /// Allocated at the first request that ends without a response.
    unfinished: OnceLock<Box<[AtomicU64]>>,
}

impl Default for WorkerCells {
    fn default() -> Self {
        Self {
            statuses: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            proxy_errors: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            passed_over: AtomicU64::new(0),
            late: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            latency: empty_buckets(),
            unfinished: OnceLock::new(),
        }
    }
}

impl WorkerCells {
    fn load_counts(&self) -> WorkerCounts {
        let load = |cell: &AtomicU64| cell.load(Relaxed);
        WorkerCounts {
            statuses: self.statuses.each_ref().map(load),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            proxy_errors: load(&self.proxy_errors),
            retries: load(&self.retries),
            passed_over: load(&self.passed_over),
            late: load(&self.late),
            abandoned: load(&self.abandoned),
            latency: load_histogram(&self.latency),
            unfinished: self
                .unfinished
                .get()
                .map_or_else(LatencyHistogram::default, |it| load_histogram(it)),
        }
    }
}

fn empty_buckets() -> Box<[AtomicU64]> {
    (0..BUCKETS).map(|_| AtomicU64::new(0)).collect()
}

fn load_histogram(buckets: &[AtomicU64]) -> LatencyHistogram {
    let counts = buckets.iter().map(|count| count.load(Relaxed));
    let numbered = (0..).zip(counts);
    LatencyHistogram(numbered.filter(|(_, count)| *count > 0).collect())
}

/// A copy of one worker's counters for one release.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerCounts {
    statuses: [u64; 6],
    bytes_in: u64,
    bytes_out: u64,
    proxy_errors: u64,
    retries: u64,
    passed_over: u64,
    late: u64,
    abandoned: u64,
    latency: LatencyHistogram,
    unfinished: LatencyHistogram,
}

/// Adds to a cell that only this thread writes: no locked instruction is needed.
fn add_count(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
}

/// The counters of one release.
#[derive(Debug)]
pub(crate) struct ReleaseCounters {
    cells: Box<[WorkerCells]>,
    pub(crate) open: OpenCount,
    /// `None` until counting is requested; written only at a user's first failure.
    users: Mutex<Option<FailedUserCounts>>,
}

impl ReleaseCounters {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            cells: (0..workers).map(|_| WorkerCells::default()).collect(),
            open: OpenCount::new(workers),
            users: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_user_counts(slow_over_micros: &[u64]) -> Self {
        let counters = Self::new(1);
        counters.enable_user_counts(slow_over_micros);
        counters
    }

    /// Starts counting users; zeros tell readers that counting is enabled.
    pub(crate) fn enable_user_counts(&self, slow_over_micros: &[u64]) {
        let mut users = lock(&self.users);
        let users = users.get_or_insert_default();
        for limit in slow_over_micros {
            users.slow.entry(*limit).or_default();
        }
    }

    pub(crate) fn record_first_error(&self) {
        lock(&self.users).get_or_insert_default().errors += 1;
    }

    pub(crate) fn record_first_slow(&self, limit: Duration) {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let mut users = lock(&self.users);
        *users
            .get_or_insert_default()
            .slow
            .entry(micros)
            .or_default() += 1;
    }

    pub(crate) fn user_counts(&self) -> Option<FailedUserCounts> {
        lock(&self.users).clone()
    }

    /// Counts a response that has ended.
    pub(crate) fn record_response(&self, worker: WorkerIndex, answer: &CompletedResponse) {
        let cells = &self.cells[worker];
        add_count(&cells.statuses[usize::from(answer.status / 100).min(5)], 1);
        add_count(&cells.latency[bucket_index(answer.took)], 1);
        add_count(&cells.bytes_in, answer.bytes_in);
        add_count(&cells.bytes_out, answer.bytes_out);
        if answer.is_late && !answer.is_error() {
            add_count(&cells.late, 1);
        }
    }

    /// Counts a request that was abandoned at this age, without a response.
    pub(crate) fn record_abandoned(&self, worker: WorkerIndex, age: Duration) {
        let cells = &self.cells[worker];
        add_count(&cells.abandoned, 1);
        let unfinished = cells.unfinished.get_or_init(empty_buckets);
        add_count(&unfinished[bucket_index(age)], 1);
    }

    /// Counts the bytes of an upgraded connection.
    pub(crate) fn record_tunnel_bytes(&self, worker: WorkerIndex, bytes_in: u64, bytes_out: u64) {
        add_count(&self.cells[worker].bytes_in, bytes_in);
        add_count(&self.cells[worker].bytes_out, bytes_out);
    }

    pub(crate) fn record_proxy_error(&self, worker: WorkerIndex) {
        add_count(&self.cells[worker].proxy_errors, 1);
    }

    pub(crate) fn record_retry(&self, worker: WorkerIndex) {
        add_count(&self.cells[worker].retries, 1);
    }

    /// Counts a request that should have been copied and was not.
    pub(crate) fn record_not_copied(&self, worker: WorkerIndex) {
        add_count(&self.cells[worker].passed_over, 1);
    }

    /// The counters of one worker; consistent when called by that worker.
    pub(crate) fn worker_counts(&self, worker: WorkerIndex) -> WorkerCounts {
        self.cells[worker].load_counts()
    }

    /// The sum over all workers, with the open requests that they reported.
    pub(crate) fn sum_totals(
        self: &Arc<Self>,
        key: &ReleaseKey,
        reports: &[Vec<OpenRequestReport>],
    ) -> ReleaseTotals {
        let mut entry = key.empty_totals();
        entry.totals.open = self.open.total();
        entry.totals.users = self.user_counts();
        for (worker, cells) in self.cells.iter().enumerate() {
            let mut of_worker = reports.get(worker).into_iter().flatten();
            match of_worker.find(|it| Arc::ptr_eq(&it.counters, self)) {
                Some(report) => {
                    report.ended.add_to_totals(&mut entry);
                    entry.totals.open_ages.merge(&report.ages);
                    entry.totals.overdue += report.overdue;
                }
                None => cells.load_counts().add_to_totals(&mut entry),
            }
        }
        entry
    }
}

/// The open requests of one worker for one release, and its counters at the same moment.
#[derive(Debug)]
pub(crate) struct OpenRequestReport {
    pub(crate) counters: Arc<ReleaseCounters>,
    /// Age of each open request.
    pub(crate) ages: LatencyHistogram,
    /// Open requests whose head is later than the route's limit.
    pub(crate) overdue: u64,
    pub(crate) ended: WorkerCounts,
}

impl WorkerCounts {
    fn add_to_totals(&self, entry: &mut ReleaseTotals) {
        entry.not_copied += self.passed_over;
        let totals = &mut entry.totals;
        for (class, count) in (1..6).zip(&self.statuses[1..]) {
            if *count > 0 {
                *totals.responses.entry(format!("{class}xx")).or_default() += count;
                totals.requests += count;
            }
        }
        totals.bytes_in += self.bytes_in;
        totals.bytes_out += self.bytes_out;
        totals.proxy_errors += self.proxy_errors;
        totals.retries += self.retries;
        totals.late += self.late;
        totals.abandoned += self.abandoned;
        totals.latency.merge(&self.latency);
        totals.unfinished.merge(&self.unfinished);
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletedResponse {
    pub(crate) status: u16,
    pub(crate) took: Duration,
    /// The head came later than the route's limit.
    pub(crate) is_late: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl CompletedResponse {
    /// 5xx, as usual for error rates.
    pub(crate) const fn is_error(&self) -> bool {
        self.status >= 500
    }

    /// Whether the user got an error or a late response.
    pub(crate) const fn is_failure(&self) -> bool {
        self.is_error() || self.is_late
    }
}

/// Number of open requests, and the tasks that wait until it is zero.
#[derive(Debug)]
pub(crate) struct OpenCount {
    counts: Box<[PaddedCounter]>,
    waiting: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct PaddedCounter(AtomicU64);

impl OpenCount {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            counts: (0..workers).map(|_| PaddedCounter::default()).collect(),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    pub(crate) fn increment(&self, worker: WorkerIndex) {
        self.counts[worker].0.fetch_add(1, SeqCst);
    }

    /// SeqCst: either this sees the waiter, or the waiter sees the new count.
    pub(crate) fn decrement(&self, worker: WorkerIndex) {
        self.counts[worker].0.fetch_sub(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.0.load(SeqCst)).sum()
    }

    /// The count of one worker.
    pub(crate) fn for_worker(&self, worker: WorkerIndex) -> u64 {
        self.counts[worker].0.load(Relaxed)
    }

    /// Resolves when the count is zero.
    pub(crate) async fn wait_until_zero(&self) {
        let _waiting = WaiterGuard::new(&self.waiting);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.total() == 0 {
                return;
            }
            changed.await;
        }
    }
}

struct WaiterGuard<'a>(&'a AtomicUsize);

impl<'a> WaiterGuard<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Key of a release's counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReleaseKey {
    pub(crate) service: String,
    pub(crate) environment: String,
    pub(crate) release: u32,
    /// Whether copies of requests are counted.
    pub(crate) mirror: bool,
}

impl ReleaseKey {
    pub(crate) fn from_totals(entry: &ReleaseTotals) -> Self {
        Self {
            service: entry.service.clone(),
            environment: entry.environment.clone(),
            release: entry.release,
            mirror: entry.mirror,
        }
    }

    fn empty_totals(&self) -> ReleaseTotals {
        ReleaseTotals {
            service: self.service.clone(),
            environment: self.environment.clone(),
            release: self.release,
            mirror: self.mirror,
            ..ReleaseTotals::default()
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_of_the_end() {
        let open = Arc::new(OpenCount::new(2));
        open.increment(0);
        open.increment(1);
        let waiting = tokio::spawn({
            let open = open.clone();
            async move { open.wait_until_zero().await }
        });
        open.decrement(0);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        open.decrement(1);
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap();
    }
}
