//! Totals that only grow, from counters that restart at zero with each new proxy. Pure.
//!
//! The total of a release is the sum over the proxies that have exited, plus the counters of the current one. Two readings can
//! be subtracted, whatever was restarted in between. Lost is only what a proxy counted between the last reading and a crash.
//! [`SavedTotals`] carries the sums of exited proxies over a restart of the server.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::ReleaseNumber,
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_proxy::protocol::{ProxyCounters, ReleaseTotals};

use crate::traffic_reading::{TrafficReading, TrafficTotals};

/// Releases that are kept per environment once no proxy counts them: far more than can be in a rollout at once.
const GONE_RELEASES_MAX: usize = 32;

/// The part that is stored across restarts of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTotals {
    /// The `boot` id of the proxy that was counting.
    boot: Option<String>,
    /// The sums of the proxies before it.
    gone: Vec<(ReplicaSetKey, TrafficTotals)>,
}

/// Accumulates the counters of successive proxies.
#[derive(Clone, Debug, Default)]
pub struct TotalsAccumulator {
    boot: Option<String>,
    /// The sums of exited proxies, and of releases that the current one has dropped.
    gone: BTreeMap<ReplicaSetKey, TrafficTotals>,
    /// The last counters of the current proxy.
    present: BTreeMap<ReplicaSetKey, TrafficTotals>,
}

impl From<SavedTotals> for TotalsAccumulator {
    fn from(saved: SavedTotals) -> Self {
        Self {
            boot: saved.boot,
            gone: saved.gone.into_iter().collect(),
            present: BTreeMap::new(),
        }
    }
}

impl TotalsAccumulator {
    /// The part to store; changes only when [`TotalsAccumulator::add_reading`] says so.
    #[must_use]
    pub fn to_saved(&self) -> SavedTotals {
        SavedTotals {
            boot: self.boot.clone(),
            gone: self
                .gone
                .iter()
                .map(|(key, totals)| (key.clone(), totals.clone()))
                .collect(),
        }
    }

    /// Adds counters of the current proxy, not older than the last ones, and returns the totals and whether
    /// [`TotalsAccumulator::to_saved`] changed.
    pub fn add_reading(&mut self, counters: &ProxyCounters) -> (TrafficReading, SavedState) {
        let mut changed = SavedState::No;
        if self.boot.as_deref() != Some(&counters.boot) {
            changed = SavedState::Yes;
            self.boot = Some(counters.boot.clone());
            for (key, last) in std::mem::take(&mut self.present) {
                self.retire(key, &last);
            }
        }
        let now: BTreeMap<ReplicaSetKey, TrafficTotals> = counters
            .entries
            .iter()
            .filter_map(|entry| Some((parse_set_key(entry)?, entry.totals.clone())))
            .collect();
        for (key, last) in std::mem::take(&mut self.present) {
            // The proxy dropped this release, or dropped it and restarted at zero.
            if now.get(&key).is_none_or(|now| now.requests < last.requests) {
                changed = SavedState::Yes;
                self.retire(key, &last);
            }
        }
        self.present = now;
        if changed == SavedState::Yes {
            self.drop_oldest();
        }
        (self.current_reading(counters.at), changed)
    }

    fn retire(&mut self, key: ReplicaSetKey, last: &TrafficTotals) {
        let sum = self.gone.entry(key).or_default();
        *sum = sum.plus(last);
        sum.end_open();
    }

    /// Drops the oldest releases that no proxy counts.
    fn drop_oldest(&mut self) {
        let mut kept: BTreeMap<ServiceEnvironment, usize> = BTreeMap::new();
        let mut dropped = Vec::new();
        for key in self
            .gone
            .keys()
            .rev()
            .filter(|key| !self.present.contains_key(key))
        {
            let count = kept.entry(key.place.clone()).or_default();
            *count += 1;
            if *count > GONE_RELEASES_MAX {
                dropped.push(key.clone());
            }
        }
        for key in dropped {
            self.gone.remove(&key);
        }
    }

    fn current_reading(&self, taken_at: Timestamp) -> TrafficReading {
        let mut totals = self.gone.clone();
        for (key, present) in &self.present {
            let sum = totals.entry(key.clone()).or_default();
            *sum = sum.plus(present);
        }
        TrafficReading::new(taken_at, totals)
    }
}

/// Whether the stored part changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedState {
    /// It changed.
    Yes,
    /// It is unchanged.
    No,
}

/// Names in routes of another controller may not be valid here.
fn parse_set_key(entry: &ReleaseTotals) -> Option<ReplicaSetKey> {
    let place = ServiceEnvironment {
        service: entry.service.parse().ok()?,
        environment: entry.environment.parse().ok()?,
    };
    let release = ReleaseNumber(entry.release);
    Some(ReplicaSetKey {
        place,
        release: if entry.mirror {
            release.mirrored()
        } else {
            release
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn place() -> ServiceEnvironment {
        ServiceEnvironment {
            service: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
        }
    }

    /// A proxy that counts.
    struct Proxy {
        boot: u32,
        entries: BTreeMap<u32, ReleaseTotals>,
    }

    impl Proxy {
        fn new(boot: u32) -> Self {
            Self {
                boot,
                entries: BTreeMap::new(),
            }
        }

        fn answer(&mut self, release: u32, class: &str, took: Duration) {
            let entry = self
                .entries
                .entry(release)
                .or_insert_with(|| ReleaseTotals {
                    service: "shop".to_owned(),
                    environment: "production".to_owned(),
                    release,
                    ..ReleaseTotals::default()
                });
            let entry = &mut entry.totals;
            entry.requests += 1;
            *entry.responses.entry(class.to_owned()).or_default() += 1;
            entry.latency.record(took);
            entry.bytes_out += 10;
        }

        fn counters(&self) -> ProxyCounters {
            ProxyCounters {
                boot: format!("boot {}", self.boot),
                at: Timestamp::UNIX_EPOCH,
                no_route: 0,
                held: 0,
                entries: self.entries.values().cloned().collect(),
            }
        }
    }

    #[test]
    fn a_new_proxy_continues_the_count() {
        let mut ledger = TotalsAccumulator::default();
        let mut proxy = Proxy::new(1);
        proxy.answer(3, "2xx", Duration::from_millis(10));
        proxy.answer(3, "5xx", Duration::from_millis(20));
        let (first, changed) = ledger.add_reading(&proxy.counters());
        assert_eq!(
            changed,
            SavedState::Yes,
            "the name of the proxy is to be saved"
        );
        assert_eq!(ledger.add_reading(&proxy.counters()).1, SavedState::No);
        let mut proxy = Proxy::new(2);
        proxy.answer(3, "2xx", Duration::from_millis(40));
        let (second, changed) = ledger.add_reading(&proxy.counters());
        assert_eq!(changed, SavedState::Yes);
        let totals = second.totals_for(&place(), ReleaseNumber(3));
        assert_eq!(
            (
                totals.requests,
                totals.errors(),
                totals.latency.count(),
                totals.bytes_out
            ),
            (3, 1, 3, 30)
        );
        let delta = second.since(&first).totals_for(&place(), ReleaseNumber(3));
        assert_eq!(
            (
                delta.requests,
                delta.errors(),
                delta.responses.len(),
                delta.latency.count()
            ),
            (1, 0, 1, 1)
        );
        assert_eq!(
            second.totals_for(&place(), ReleaseNumber(9)),
            TrafficTotals::default()
        );
    }

    #[test]
    fn counts_that_the_proxy_forgot_are_kept() {
        let mut ledger = TotalsAccumulator::default();
        let mut proxy = Proxy::new(1);
        proxy.answer(1, "2xx", Duration::ZERO);
        proxy.answer(1, "2xx", Duration::ZERO);
        ledger.add_reading(&proxy.counters());
        proxy.entries.clear();
        assert_eq!(
            ledger
                .add_reading(&proxy.counters())
                .0
                .totals_for(&place(), ReleaseNumber(1))
                .requests,
            2
        );
        proxy.answer(1, "2xx", Duration::ZERO);
        assert_eq!(
            ledger
                .add_reading(&proxy.counters())
                .0
                .totals_for(&place(), ReleaseNumber(1))
                .requests,
            3
        );
    }

    #[test]
    fn old_releases_are_forgotten_and_those_that_count_are_not() {
        let mut ledger = TotalsAccumulator::default();
        let mut proxy = Proxy::new(0);
        for release in 1..=100 {
            proxy.answer(release, "2xx", Duration::ZERO);
        }
        ledger.add_reading(&proxy.counters());
        let mut proxy = Proxy::new(1);
        proxy.answer(1, "2xx", Duration::ZERO);
        let (reading, _) = ledger.add_reading(&proxy.counters());
        let releases: Vec<(u32, u64)> = reading
            .releases_at(&place())
            .map(|(release, totals)| (release.0, totals.requests))
            .collect();
        assert_eq!(releases.len(), GONE_RELEASES_MAX + 1);
        assert_eq!((releases[0], releases[1]), ((1, 2), (69, 1)));
    }

    proptest! {
        /// Any requests, with a reading before each restart of the proxy: the totals are all requests, whenever the server is
        /// started again; and the deltas of successive readings add up to them.
        #[test]
        fn nothing_is_lost_or_counted_twice(steps in prop::collection::vec((0u8..10, 1u32..4, any::<bool>()), 0..200)) {
            let mut ledger = TotalsAccumulator::default();
            let mut saved = SavedTotals::default();
            let mut proxy = Proxy::new(0);
            let mut truth: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            let mut summed: BTreeMap<u32, u64> = BTreeMap::new();
            let mut before: Option<TrafficReading> = None;
            for (what, release, failed) in steps {
                if what < 7 {
                    proxy.answer(release, if failed { "5xx" } else { "2xx" }, Duration::from_millis(u64::from(what)));
                    let count = truth.entry(release).or_default();
                    *count = (count.0 + 1, count.1 + u64::from(failed));
                    continue;
                }
                let (reading, changed) = ledger.add_reading(&proxy.counters());
                if changed == SavedState::Yes {
                    saved = ledger.to_saved();
                }
                for (release, (requests, errors)) in &truth {
                    let totals = reading.totals_for(&place(), ReleaseNumber(*release));
                    prop_assert_eq!((totals.requests, totals.errors(), totals.latency.count()), (*requests, *errors, *requests));
                    let delta = before.as_ref().map_or_else(|| totals.clone(), |before| reading.since(before).totals_for(&place(), ReleaseNumber(*release)));
                    let sum = summed.entry(*release).or_default();
                    *sum += delta.requests;
                    prop_assert_eq!(*sum, *requests);
                }
                before = Some(reading);
                match what {
                    8 => proxy = Proxy::new(proxy.boot + 1),
                    9 => ledger = TotalsAccumulator::from(serde_json::from_value::<SavedTotals>(serde_json::to_value(&saved).unwrap()).unwrap()),
                    _ => {}
                }
            }
        }
    }
}
