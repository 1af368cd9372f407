//! Counts of each release. Every worker counts in cells of its own, which only its thread writes: nothing waits, and no cache line
//! travels between cores. Readers add the cells up.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    latency::{BUCKETS, Latency, bucket_of},
    open::OpenReport,
    protocol::{Entry, Route, Users as UserCounts},
    users::Users,
};

/// Releases that are counted, at most; beyond it the first that is in no route is forgotten.
const KEPT_MAX: usize = 4_096;

/// A worker's number: the index of its cells.
pub(crate) type Worker = usize;

/// What one worker counted for one release. The alignment keeps two workers off the same cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Cells {
    statuses: [AtomicU64; 6],
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    proxy_errors: AtomicU64,
    retries: AtomicU64,
    passed_over: AtomicU64,
    late: AtomicU64,
    abandoned: AtomicU64,
    latency: Box<[AtomicU64]>,
    /// Made at the first request that ends without an answer.
    unfinished: OnceLock<Box<[AtomicU64]>>,
}

impl Default for Cells {
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

impl Cells {
    fn counts(&self) -> CellCounts {
        let load = |cell: &AtomicU64| cell.load(Relaxed);
        CellCounts {
            statuses: self.statuses.each_ref().map(load),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            proxy_errors: load(&self.proxy_errors),
            retries: load(&self.retries),
            passed_over: load(&self.passed_over),
            late: load(&self.late),
            abandoned: load(&self.abandoned),
            latency: histogram(&self.latency),
            unfinished: self
                .unfinished
                .get()
                .map_or_else(Latency::default, |it| histogram(it)),
        }
    }
}

fn empty_buckets() -> Box<[AtomicU64]> {
    (0..BUCKETS).map(|_| AtomicU64::new(0)).collect()
}

fn histogram(buckets: &[AtomicU64]) -> Latency {
    let counts = buckets.iter().map(|count| count.load(Relaxed));
    let numbered = (0..).zip(counts);
    Latency(numbered.filter(|(_, count)| *count > 0).collect())
}

/// What one worker had counted for one release at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellCounts {
    statuses: [u64; 6],
    bytes_in: u64,
    bytes_out: u64,
    proxy_errors: u64,
    retries: u64,
    passed_over: u64,
    late: u64,
    abandoned: u64,
    latency: Latency,
    unfinished: Latency,
}

/// Adds to a cell that only this thread writes, so that no locked instruction is needed.
fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
}

/// The counts of one release.
#[derive(Debug)]
pub(crate) struct ReleaseCounters {
    cells: Box<[Cells]>,
    pub(crate) open: Open,
    /// `None` until somebody asks; written only at a user's first failure.
    users: Mutex<Option<UserCounts>>,
}

impl ReleaseCounters {
    fn new(workers: usize) -> Self {
        Self {
            cells: (0..workers).map(|_| Cells::default()).collect(),
            open: Open::new(workers),
            users: Mutex::default(),
        }
    }

    /// One that counts users from the beginning.
    #[cfg(test)]
    pub(crate) fn counting(slow_over_micros: &[u64]) -> Self {
        let counters = Self::new(1);
        counters.count_users(slow_over_micros);
        counters
    }

    /// Counts users too, from now on; zeros say so.
    pub(crate) fn count_users(&self, slow_over_micros: &[u64]) {
        let mut users = lock(&self.users);
        let users = users.get_or_insert_default();
        for limit in slow_over_micros {
            users.slow.entry(*limit).or_default();
        }
    }

    /// A user was answered with an error for the first time.
    pub(crate) fn first_error(&self) {
        lock(&self.users).get_or_insert_default().errors += 1;
    }

    /// A user waited longer than `limit` for the first time.
    pub(crate) fn first_slow(&self, limit: Duration) {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let mut users = lock(&self.users);
        *users
            .get_or_insert_default()
            .slow
            .entry(micros)
            .or_default() += 1;
    }

    pub(crate) fn users(&self) -> Option<UserCounts> {
        lock(&self.users).clone()
    }

    /// An answer is over.
    pub(crate) fn answered(&self, worker: Worker, answer: &Answered) {
        let cells = &self.cells[worker];
        add(&cells.statuses[usize::from(answer.status / 100).min(5)], 1);
        add(&cells.latency[bucket_of(answer.took)], 1);
        add(&cells.bytes_in, answer.bytes_in);
        add(&cells.bytes_out, answer.bytes_out);
        if answer.is_late && !answer.is_error() {
            add(&cells.late, 1);
        }
    }

    /// A request's client went away after this time, without an answer.
    pub(crate) fn abandoned(&self, worker: Worker, age: Duration) {
        let cells = &self.cells[worker];
        add(&cells.abandoned, 1);
        let unfinished = cells.unfinished.get_or_init(empty_buckets);
        add(&unfinished[bucket_of(age)], 1);
    }

    /// Bytes of a connection that changed its protocol.
    pub(crate) fn carried(&self, worker: Worker, bytes_in: u64, bytes_out: u64) {
        add(&self.cells[worker].bytes_in, bytes_in);
        add(&self.cells[worker].bytes_out, bytes_out);
    }

    pub(crate) fn proxy_error(&self, worker: Worker) {
        add(&self.cells[worker].proxy_errors, 1);
    }

    pub(crate) fn retry(&self, worker: Worker) {
        add(&self.cells[worker].retries, 1);
    }

    /// A request was to be copied, and was not.
    pub(crate) fn passed_over(&self, worker: Worker) {
        add(&self.cells[worker].passed_over, 1);
    }

    /// What one worker has counted; of one moment when it is called by that worker.
    pub(crate) fn counted_by(&self, worker: Worker) -> CellCounts {
        self.cells[worker].counts()
    }

    /// All workers together, with the reports of those that have requests of this release open.
    fn entry(self: &Arc<Self>, key: &ReleaseKey, reports: &[Vec<OpenReport>]) -> Entry {
        let mut entry = Entry {
            open: self.open.get(),
            users: self.users(),
            ..key.entry()
        };
        for (worker, cells) in self.cells.iter().enumerate() {
            let mut of_worker = reports.get(worker).into_iter().flatten();
            match of_worker.find(|it| Arc::ptr_eq(&it.counters, self)) {
                Some(report) => {
                    report.ended.add_to(&mut entry);
                    entry.open_ages.merge(&report.ages);
                    entry.overdue += report.overdue;
                }
                None => cells.counts().add_to(&mut entry),
            }
        }
        entry
    }
}

impl CellCounts {
    fn add_to(&self, entry: &mut Entry) {
        for (class, count) in (1..6).zip(&self.statuses[1..]) {
            if *count > 0 {
                *entry.responses.entry(format!("{class}xx")).or_default() += count;
                entry.requests += count;
            }
        }
        entry.bytes_in += self.bytes_in;
        entry.bytes_out += self.bytes_out;
        entry.proxy_errors += self.proxy_errors;
        entry.retries += self.retries;
        entry.not_copied += self.passed_over;
        entry.late += self.late;
        entry.abandoned += self.abandoned;
        entry.latency.merge(&self.latency);
        entry.unfinished.merge(&self.unfinished);
    }
}

/// What is known of an answer when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) took: Duration,
    /// Its head came later than the route allows.
    pub(crate) is_late: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Answered {
    /// As everybody counts them: 5xx.
    pub(crate) const fn is_error(&self) -> bool {
        self.status >= 500
    }

    /// Whether the user had no good answer, or none in time.
    pub(crate) const fn is_failure(&self) -> bool {
        self.is_error() || self.is_late
    }
}

/// What is open, and who waits for it to end.
#[derive(Debug)]
pub(crate) struct Open {
    counts: Box<[Padded]>,
    waiting: AtomicUsize,
    changed: Notify,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Open {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            counts: (0..workers).map(|_| Padded::default()).collect(),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    pub(crate) fn begin(&self, worker: Worker) {
        self.counts[worker].0.fetch_add(1, SeqCst);
    }

    /// The order matters: this either sees who waits, or whoever waits sees the new count.
    pub(crate) fn end(&self, worker: Worker) {
        self.counts[worker].0.fetch_sub(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.counts.iter().map(|count| count.0.load(SeqCst)).sum()
    }

    /// Those of one worker.
    pub(crate) fn of(&self, worker: Worker) -> u64 {
        self.counts[worker].0.load(Relaxed)
    }

    /// Resolves when nothing is open.
    pub(crate) async fn none(&self) {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.get() == 0 {
                return;
            }
            changed.await;
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Names what is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReleaseKey {
    pub(crate) service: String,
    pub(crate) environment: String,
    pub(crate) release: u32,
    /// The copies of requests that it got.
    pub(crate) mirror: bool,
}

/// What is known of an instance beyond its address; it outlives the snapshot that named it.
#[derive(Debug)]
pub(crate) struct InstanceState {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    pub(crate) open: Open,
    /// It can't be connected to; somebody tries until it can.
    pub(crate) ejected: AtomicBool,
}

/// All that is counted, by release and by instance.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    releases: Mutex<BTreeMap<ReleaseKey, Arc<ReleaseCounters>>>,
    instances: Mutex<BTreeMap<(String, SocketAddr), Arc<InstanceState>>>,
    /// By service and environment; gone with the last table that counts users there.
    users: Mutex<BTreeMap<(String, String), Weak<Users>>>,
    /// What processes before this one counted.
    inherited: Mutex<Inherited>,
    pub(crate) no_route: AtomicU64,
    pub(crate) held: AtomicU64,
}

/// Counts of earlier processes, the last known of each by its pid.
#[derive(Debug, Default)]
struct Inherited(BTreeMap<u32, (u64, Vec<Entry>)>);

impl Registry {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            releases: Mutex::default(),
            instances: Mutex::default(),
            users: Mutex::default(),
            inherited: Mutex::default(),
            no_route: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    pub(crate) fn release(&self, key: ReleaseKey) -> Arc<ReleaseCounters> {
        let mut releases = lock(&self.releases);
        if releases.len() >= KEPT_MAX {
            // Whoever still counts holds a second reference.
            let idle = releases
                .iter()
                .find(|(_, counters)| Arc::strong_count(counters) == 1)
                .map(|(key, _)| key.clone());
            idle.and_then(|key| releases.remove(&key));
        }
        releases
            .entry(key)
            .or_insert_with(|| Arc::new(ReleaseCounters::new(self.workers)))
            .clone()
    }

    pub(crate) fn instance(&self, id: &str, address: SocketAddr) -> Arc<InstanceState> {
        let mut instances = lock(&self.instances);
        let new = || {
            Arc::new(InstanceState {
                id: id.to_owned(),
                address,
                open: Open::new(self.workers),
                ejected: AtomicBool::new(false),
            })
        };
        instances
            .entry((id.to_owned(), address))
            .or_insert_with(new)
            .clone()
    }

    /// The users of a route: those known already while the rollout is the same, whatever its weights are.
    pub(crate) fn users(&self, route: &Route, slow_over_micros: &[u64]) -> Arc<Users> {
        let mut all = lock(&self.users);
        all.retain(|_, users| users.strong_count() > 0);
        let key = (route.service.clone(), route.environment.clone());
        let known = all.get(&key).and_then(Weak::upgrade);
        known
            .filter(|users| users.fits(&route.salt, slow_over_micros))
            .unwrap_or_else(|| {
                let users = Arc::new(Users::new(&route.salt, slow_over_micros));
                all.insert(key, Arc::downgrade(&users));
                users
            })
    }

    /// Forgets instances that are in no table and have nothing open.
    pub(crate) fn forget_instances(&self) {
        lock(&self.instances).retain(|_, state| Arc::strong_count(state) > 1);
    }

    /// The counts of this process and those before it, but not of those that somebody else tells.
    pub(crate) fn totals(&self, without: &[u32], reports: &[Vec<OpenReport>]) -> (u64, Vec<Entry>) {
        let own: Vec<Entry> = lock(&self.releases)
            .iter()
            .map(|(key, counters)| counters.entry(key, reports))
            .collect();
        let mut no_route = self.no_route.load(Relaxed);
        let mut sums: BTreeMap<ReleaseKey, Entry> = BTreeMap::new();
        let inherited = lock(&self.inherited);
        let told = || {
            let mine = inherited.0.iter().filter(|(pid, _)| !without.contains(pid));
            mine.map(|(_, counts)| counts)
        };
        no_route += told().map(|(theirs, _)| theirs).sum::<u64>();
        let before = told().flat_map(|(_, entries)| entries.iter().cloned());
        for entry in own.into_iter().chain(before) {
            match sums.entry(ReleaseKey::of(&entry)) {
                std::collections::btree_map::Entry::Vacant(vacant) => drop(vacant.insert(entry)),
                std::collections::btree_map::Entry::Occupied(mut sum) => {
                    plus(sum.get_mut(), &entry)
                }
            }
        }
        (no_route, sums.into_values().collect())
    }

    /// Takes the counts of an earlier process over; what it said before is replaced.
    pub(crate) fn inherit(&self, pid: u32, no_route: u64, entries: Vec<Entry>) {
        lock(&self.inherited).0.insert(pid, (no_route, entries));
    }

    /// Nothing is open any more in an earlier process: it ended. What was open then ended without an answer.
    pub(crate) fn bury(&self, pid: u32) {
        if let Some((_, entries)) = lock(&self.inherited).0.get_mut(&pid) {
            entries.iter_mut().for_each(Entry::end_open);
        }
    }

    pub(crate) fn release_named(&self, key: &ReleaseKey) -> Option<Arc<ReleaseCounters>> {
        lock(&self.releases).get(key).cloned()
    }

    pub(crate) fn instances_named(&self, ids: &[String]) -> Vec<Arc<InstanceState>> {
        lock(&self.instances)
            .values()
            .filter(|state| ids.contains(&state.id))
            .cloned()
            .collect()
    }
}

impl ReleaseKey {
    fn of(entry: &Entry) -> Self {
        Self {
            service: entry.service.clone(),
            environment: entry.environment.clone(),
            release: entry.release,
            mirror: entry.mirror,
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            service: self.service.clone(),
            environment: self.environment.clone(),
            release: self.release,
            mirror: self.mirror,
            ..Entry::default()
        }
    }
}

fn plus(sum: &mut Entry, other: &Entry) {
    sum.requests += other.requests;
    for (class, count) in &other.responses {
        *sum.responses.entry(class.clone()).or_default() += count;
    }
    sum.latency.merge(&other.latency);
    sum.bytes_in += other.bytes_in;
    sum.bytes_out += other.bytes_out;
    sum.open += other.open;
    sum.proxy_errors += other.proxy_errors;
    sum.retries += other.retries;
    sum.not_copied += other.not_copied;
    sum.late += other.late;
    sum.abandoned += other.abandoned;
    sum.unfinished.merge(&other.unfinished);
    sum.open_ages.merge(&other.open_ages);
    sum.overdue += other.overdue;
    if let Some(users) = &other.users {
        sum.users.get_or_insert_default().merge(users);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ReleaseKey {
        ReleaseKey {
            service: "shop".into(),
            environment: "production".into(),
            release: 3,
            mirror: false,
        }
    }

    fn answer(status: u16) -> Answered {
        Answered {
            status,
            took: Duration::from_millis(3),
            is_late: false,
            bytes_in: 1,
            bytes_out: 10,
        }
    }

    #[test]
    fn workers_and_earlier_processes_are_added_up() {
        let registry = Registry::new(2);
        let counters = registry.release(key());
        counters.answered(0, &answer(200));
        counters.answered(1, &answer(503));
        counters.open.begin(1);
        let (_, mine) = registry.totals(&[], &[]);
        registry.inherit(7, 5, mine);
        let (no_route, entries) = registry.totals(&[], &[]);
        assert_eq!(no_route, 5);
        assert_eq!(
            (entries[0].requests, entries[0].bytes_out, entries[0].open),
            (4, 40, 2)
        );
        assert_eq!(
            entries[0].responses,
            BTreeMap::from([("2xx".into(), 2), ("5xx".into(), 2)])
        );
        assert_eq!(registry.totals(&[7], &[]).1[0].requests, 2);
        registry.bury(7);
        assert_eq!(registry.totals(&[], &[]).1[0].open, 1);
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_the_end() {
        let open = Arc::new(Open::new(2));
        open.begin(0);
        open.begin(1);
        let waiting = tokio::spawn({
            let open = open.clone();
            async move { open.none().await }
        });
        open.end(0);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        open.end(1);
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap();
    }
}
