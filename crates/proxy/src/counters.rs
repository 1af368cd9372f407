//! Counts of each release, shared by all workers: atomics only, nothing waits.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    latency::{BUCKETS, Latency, bucket_of},
    protocol::{Backend, Entry, Instance, Route},
};

/// Releases that are counted, at most; beyond it the oldest that is in no route is forgotten.
const KEPT_MAX: usize = 4_096;

/// The counts of one release.
#[derive(Debug)]
pub(crate) struct ReleaseCounters {
    statuses: [AtomicU64; 6],
    latency: Box<[AtomicU64]>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub(crate) proxy_errors: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) open: Open,
}

/// Open requests, and who waits for them to end.
#[derive(Debug, Default)]
pub(crate) struct Open {
    count: AtomicU64,
    changed: Notify,
}

impl Open {
    pub(crate) fn begin(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        if self.count.fetch_sub(1, Relaxed) == 1 {
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Resolves when nothing is open.
    pub(crate) async fn none(&self) {
        loop {
            let changed = self.changed.notified();
            if self.get() == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Default for ReleaseCounters {
    fn default() -> Self {
        Self {
            statuses: Default::default(),
            latency: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            proxy_errors: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            open: Open::default(),
        }
    }
}

impl ReleaseCounters {
    pub(crate) fn answered(&self, status: u16, took: Duration, bytes_in: u64, bytes_out: u64) {
        self.statuses[usize::from(status / 100).min(5)].fetch_add(1, Relaxed);
        self.latency[bucket_of(took)].fetch_add(1, Relaxed);
        self.bytes_in.fetch_add(bytes_in, Relaxed);
        self.bytes_out.fetch_add(bytes_out, Relaxed);
    }

    fn entry(&self, key: &ReleaseKey) -> Entry {
        let responses: BTreeMap<String, u64> = (1..6)
            .map(|class| (format!("{class}xx"), self.statuses[class].load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let latency = self
            .latency
            .iter()
            .enumerate()
            .map(|(bucket, count)| (bucket as u16, count.load(Relaxed)))
            .filter(|(_, count)| *count > 0);
        Entry {
            service: key.0.clone(),
            environment: key.1.clone(),
            release: key.2,
            requests: responses.values().sum(),
            responses,
            latency: Latency(latency.collect()),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            open: self.open.get(),
            proxy_errors: self.proxy_errors.load(Relaxed),
            retries: self.retries.load(Relaxed),
        }
    }
}

type ReleaseKey = (String, String, u32);

/// What is known of an instance beyond its address; it outlives the snapshot that named it.
#[derive(Debug)]
pub(crate) struct InstanceState {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) open: Open,
    /// Not asked before this moment, in milliseconds since the start of the process.
    pub(crate) shunned_until_ms: AtomicU64,
    pub(crate) failures: AtomicU64,
}

/// All that is counted, by release and by instance.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    releases: Mutex<BTreeMap<ReleaseKey, Arc<ReleaseCounters>>>,
    instances: Mutex<BTreeMap<(String, String), Arc<InstanceState>>>,
    pub(crate) no_route: AtomicU64,
    pub(crate) held: AtomicU64,
}

impl Registry {
    pub(crate) fn release(&self, route: &Route, backend: &Backend) -> Arc<ReleaseCounters> {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        if releases.len() >= KEPT_MAX {
            // Whoever still counts holds a second reference.
            let idle = releases
                .iter()
                .find(|(_, counters)| Arc::strong_count(counters) == 1)
                .map(|(key, _)| key.clone());
            idle.and_then(|key| releases.remove(&key));
        }
        releases
            .entry((
                route.service.clone(),
                route.environment.clone(),
                backend.release,
            ))
            .or_default()
            .clone()
    }

    pub(crate) fn instance(&self, instance: &Instance) -> Arc<InstanceState> {
        let mut instances = self
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        instances.retain(|_, state| Arc::strong_count(state) > 1 || state.open.get() > 0);
        let new = || {
            Arc::new(InstanceState {
                id: instance.id.clone(),
                address: instance.address.clone(),
                open: Open::default(),
                shunned_until_ms: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            })
        };
        instances
            .entry((instance.id.clone(), instance.address.clone()))
            .or_insert_with(new)
            .clone()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.releases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(key, counters)| counters.entry(key))
            .collect()
    }

    pub(crate) fn release_named(
        &self,
        service: &str,
        environment: &str,
        release: u32,
    ) -> Option<Arc<ReleaseCounters>> {
        self.releases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(service.to_owned(), environment.to_owned(), release))
            .cloned()
    }

    pub(crate) fn instances_named(&self, ids: &[String]) -> Vec<Arc<InstanceState>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter(|state| ids.contains(&state.id))
            .cloned()
            .collect()
    }
}
