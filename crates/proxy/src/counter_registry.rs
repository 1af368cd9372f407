//! All counters and instances that requests refer to, by release and by instance; they outlive the routes that named them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use shipway_flags::hash_key;

use crate::{
    failed_users::FailedUsers,
    protocol::{ReleaseTotals, ServiceRoute},
    release_counters::{OpenCount, OpenRequestReport, ReleaseCounters, ReleaseKey, lock},
};

/// Limit of counted releases; beyond it, the first release without a route is dropped.
const KEPT_MAX: usize = 4_096;

/// Salt of instance tags; constant, so that a cookie outlives rollouts and restarts of the proxy.
const TAG_SALT: &str = "instance";

/// Runtime state of an instance; it outlives the snapshot that named it.
#[derive(Debug)]
pub(crate) struct InstanceState {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    pub(crate) open: OpenCount,
    /// It refused connections; a task readmits it.
    pub(crate) ejected: AtomicBool,
    /// What the cookie of [`crate::protocol::InstanceAffinity`] says of it.
    pub(crate) tag: u32,
}

/// All counters, by release and by instance.
#[derive(Debug)]
pub(crate) struct CounterRegistry {
    workers: usize,
    releases: Mutex<BTreeMap<ReleaseKey, Arc<ReleaseCounters>>>,
    instances: Mutex<BTreeMap<(String, SocketAddr), Arc<InstanceState>>>,
    /// By service and environment; dropped with the last table that counts users there.
    users: Mutex<BTreeMap<(String, String), Weak<FailedUsers>>>,
    /// Counters of predecessors.
    inherited: Mutex<InheritedCounts>,
    pub(crate) no_route: AtomicU64,
    pub(crate) held: AtomicU64,
}

/// The last known counters of each predecessor, by pid.
#[derive(Debug, Default)]
struct InheritedCounts(BTreeMap<u32, (u64, Vec<ReleaseTotals>)>);

impl CounterRegistry {
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

    pub(crate) fn release_counters(&self, key: ReleaseKey) -> Arc<ReleaseCounters> {
        let mut releases = lock(&self.releases);
        if releases.len() >= KEPT_MAX {
            // strong_count > 1: requests are still being counted; don't drop it.
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

    pub(crate) fn instance_state(&self, id: &str, address: SocketAddr) -> Arc<InstanceState> {
        let mut instances = lock(&self.instances);
        let new = || {
            Arc::new(InstanceState {
                id: id.to_owned(),
                address,
                open: OpenCount::new(self.workers),
                ejected: AtomicBool::new(false),
                tag: hash_key(TAG_SALT, id),
            })
        };
        instances
            .entry((id.to_owned(), address))
            .or_insert_with(new)
            .clone()
    }

    /// The failed users of a route; kept while the settings are unchanged, whatever the weights.
    pub(crate) fn failed_users(
        &self,
        route: &ServiceRoute,
        slow_over_micros: &[u64],
    ) -> Arc<FailedUsers> {
        let mut all = lock(&self.users);
        all.retain(|_, users| users.strong_count() > 0);
        let key = (route.service.clone(), route.environment.clone());
        let known = all.get(&key).and_then(Weak::upgrade);
        known
            .filter(|users| users.has_settings(&route.salt, slow_over_micros))
            .unwrap_or_else(|| {
                let users = Arc::new(FailedUsers::new(&route.salt, slow_over_micros));
                all.insert(key, Arc::downgrade(&users));
                users
            })
    }

    /// Drops instances that are in no table and have no open request.
    pub(crate) fn drop_unused_instances(&self) {
        lock(&self.instances).retain(|_, state| Arc::strong_count(state) > 1);
    }

    /// The sums of this process and its predecessors, except those in `without`, which report themselves.
    pub(crate) fn sum_totals(
        &self,
        without: &[u32],
        reports: &[Vec<OpenRequestReport>],
    ) -> (u64, Vec<ReleaseTotals>) {
        let own: Vec<ReleaseTotals> = lock(&self.releases)
            .iter()
            .map(|(key, counters)| counters.sum_totals(key, reports))
            .collect();
        let mut no_route = self.no_route.load(Relaxed);
        let mut sums: BTreeMap<ReleaseKey, ReleaseTotals> = BTreeMap::new();
        let inherited = lock(&self.inherited);
        let told = || {
            let mine = inherited.0.iter().filter(|(pid, _)| !without.contains(pid));
            mine.map(|(_, counts)| counts)
        };
        no_route += told().map(|(theirs, _)| theirs).sum::<u64>();
        let before = told().flat_map(|(_, entries)| entries.iter().cloned());
        for entry in own.into_iter().chain(before) {
            match sums.entry(ReleaseKey::from_totals(&entry)) {
                std::collections::btree_map::Entry::Vacant(vacant) => drop(vacant.insert(entry)),
                std::collections::btree_map::Entry::Occupied(mut sum) => {
                    let sum = sum.get_mut();
                    sum.not_copied += entry.not_copied;
                    sum.totals.add(&entry.totals);
                }
            }
        }
        (no_route, sums.into_values().collect())
    }

    /// Replaces the counters of a predecessor.
    pub(crate) fn replace_inherited(&self, pid: u32, no_route: u64, entries: Vec<ReleaseTotals>) {
        lock(&self.inherited).0.insert(pid, (no_route, entries));
    }

    /// Marks a predecessor as exited: its open requests ended without a response.
    pub(crate) fn end_inherited(&self, pid: u32) {
        if let Some((_, entries)) = lock(&self.inherited).0.get_mut(&pid) {
            entries.iter_mut().for_each(|it| it.totals.end_open());
        }
    }

    pub(crate) fn find_release(&self, key: &ReleaseKey) -> Option<Arc<ReleaseCounters>> {
        lock(&self.releases).get(key).cloned()
    }

    pub(crate) fn find_instances(&self, ids: &[String]) -> Vec<Arc<InstanceState>> {
        lock(&self.instances)
            .values()
            .filter(|state| ids.contains(&state.id))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::release_counters::CompletedResponse;

    fn key() -> ReleaseKey {
        ReleaseKey {
            service: "shop".into(),
            environment: "production".into(),
            release: 3,
            mirror: false,
        }
    }

    fn answer(status: u16) -> CompletedResponse {
        CompletedResponse {
            status,
            took: Duration::from_millis(3),
            is_late: false,
            bytes_in: 1,
            bytes_out: 10,
        }
    }

    #[test]
    fn workers_and_earlier_processes_are_added_up() {
        let registry = CounterRegistry::new(2);
        let counters = registry.release_counters(key());
        counters.record_response(0, &answer(200));
        counters.record_response(1, &answer(503));
        counters.open.increment(1);
        let (_, mine) = registry.sum_totals(&[], &[]);
        registry.replace_inherited(7, 5, mine);
        let (no_route, entries) = registry.sum_totals(&[], &[]);
        assert_eq!(no_route, 5);
        assert_eq!(
            (
                entries[0].totals.requests,
                entries[0].totals.bytes_out,
                entries[0].totals.open
            ),
            (4, 40, 2)
        );
        assert_eq!(
            entries[0].totals.responses,
            BTreeMap::from([("2xx".into(), 2), ("5xx".into(), 2)])
        );
        assert_eq!(registry.sum_totals(&[7], &[]).1[0].totals.requests, 2);
        registry.end_inherited(7);
        assert_eq!(registry.sum_totals(&[], &[]).1[0].totals.open, 1);
    }
}
