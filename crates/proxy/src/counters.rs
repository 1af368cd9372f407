//! Counts of each release. Every worker counts in cells of its own, which only its thread writes: nothing waits, and no cache line
//! travels between cores. Readers add the cells up.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
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
    latency: Box<[AtomicU64]>,
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
            latency: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
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

    fn sum(&self, of: impl Fn(&Cells) -> &AtomicU64) -> u64 {
        self.cells.iter().map(|cells| of(cells).load(Relaxed)).sum()
    }

    fn entry(&self, key: &ReleaseKey) -> Entry {
        let class = |class: usize| {
            (
                format!("{class}xx"),
                self.sum(|cells| &cells.statuses[class]),
            )
        };
        let responses: BTreeMap<String, u64> =
            (1..6).map(class).filter(|(_, count)| *count > 0).collect();
        let bucket = |bucket: u16| {
            (
                bucket,
                self.sum(|cells| &cells.latency[usize::from(bucket)]),
            )
        };
        let latency = (0..BUCKETS as u16)
            .map(bucket)
            .filter(|(_, count)| *count > 0)
            .collect();
        Entry {
            service: key.service.clone(),
            environment: key.environment.clone(),
            release: key.release,
            mirror: key.mirror,
            requests: responses.values().sum(),
            responses,
            latency: Latency(latency),
            bytes_in: self.sum(|cells| &cells.bytes_in),
            bytes_out: self.sum(|cells| &cells.bytes_out),
            open: self.open.get(),
            proxy_errors: self.sum(|cells| &cells.proxy_errors),
            retries: self.sum(|cells| &cells.retries),
            users: self.users(),
            not_copied: self.sum(|cells| &cells.passed_over),
        }
    }
}

/// What is known of an answer when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) took: Duration,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Answered {
    /// As everybody counts them: 5xx.
    pub(crate) const fn is_error(&self) -> bool {
        self.status >= 500
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
    pub(crate) fn totals(&self, without: &[u32]) -> (u64, Vec<Entry>) {
        let own: Vec<Entry> = lock(&self.releases)
            .iter()
            .map(|(key, counters)| counters.entry(key))
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

    /// Nothing is open any more in an earlier process: it ended.
    pub(crate) fn bury(&self, pid: u32) {
        if let Some((_, entries)) = lock(&self.inherited).0.get_mut(&pid) {
            entries.iter_mut().for_each(|entry| entry.open = 0);
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
        let (_, mine) = registry.totals(&[]);
        registry.inherit(7, 5, mine);
        let (no_route, entries) = registry.totals(&[]);
        assert_eq!(no_route, 5);
        assert_eq!(
            (entries[0].requests, entries[0].bytes_out, entries[0].open),
            (4, 40, 2)
        );
        assert_eq!(
            entries[0].responses,
            BTreeMap::from([("2xx".into(), 2), ("5xx".into(), 2)])
        );
        assert_eq!(registry.totals(&[7]).1[0].requests, 2);
        registry.bury(7);
        assert_eq!(registry.totals(&[]).1[0].open, 1);
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
