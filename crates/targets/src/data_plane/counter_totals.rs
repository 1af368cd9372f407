//! Totals that only grow, from counters that restart at zero with each new proxy. Pure.
//!
//! The total of a release is the sum over the proxies that have exited, plus the counters of the current one. Two readings can
//! be subtracted, whatever was restarted in between. Lost is only what a proxy counted between the last reading and a crash.
//! [`SavedTotals`] carries the sums of exited proxies over a restart of the server.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::ReleaseNumber,
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_proxy::protocol::{FailedUserCounts, LatencyHistogram, ProxyCounters, ReleaseTotals};

/// Releases that are kept per environment once no proxy counts them: far more than can be in a rollout at once.
const GONE_RELEASES_MAX: usize = 32;

/// The traffic totals of one release in one environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTotals {
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with 5xx, by the release or on its behalf by the proxy.
    pub errors: u64,
    /// Requests that failed in the proxy: no connection or no response in time.
    pub proxy_errors: u64,
    /// Requests sent again because nothing had been sent the first time.
    pub retries: u64,
    /// Responses by status class, such as `2xx`.
    pub responses: BTreeMap<String, u64>,
    /// Durations to the last byte of the response.
    pub latency: LatencyHistogram,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
    /// Requests that are open now; not a total.
    #[serde(default)]
    pub open: u64,
    /// Users who failed, each counted once in a rollout; absent unless counting was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<FailedUserCounts>,
    /// Requests abandoned by their client without a response; not in `requests`.
    #[serde(default)]
    pub abandoned: u64,
    /// Ages of requests that ended without a response: abandoned, or cut when a proxy died.
    #[serde(default)]
    pub unfinished: LatencyHistogram,
    /// Responses below 5xx that were later than `answer_within`.
    #[serde(default)]
    pub late: u64,
    /// Ages of the requests that are open now; not a total.
    #[serde(default)]
    pub open_ages: LatencyHistogram,
    /// Open requests that have waited longer than `answer_within`; not a total.
    #[serde(default)]
    pub overdue: u64,
}

impl TrafficTotals {
    /// The requests known to be faster or slower than `limit`, and the slower ones. An open request counts once it is older than
    /// the limit, so both only grow.
    #[must_use]
    pub fn slower_than(&self, limit: Duration) -> (u64, u64) {
        let unanswered = self.unfinished.count_above(limit) + self.open_ages.count_above(limit);
        (
            self.latency.count() + unanswered,
            self.latency.count_above(limit) + unanswered,
        )
    }

    /// The duration that this share of the requests since `earlier` did not exceed; unanswered requests take at least as long as
    /// their age. `None` if nothing is known.
    #[must_use]
    pub fn quantile_since(&self, earlier: &Self, share: f64) -> Option<Duration> {
        let censored = |totals: &Self| {
            let mut ages = totals.unfinished.clone();
            ages.merge(&totals.open_ages);
            ages
        };
        let answered = self.latency.subtract(&earlier.latency);
        let (now, before) = (censored(self), censored(earlier));
        answered.quantile_with_open(&now, &before, share)
    }

    /// Counts the open requests as unfinished, because the proxy has exited.
    fn end_open(&mut self) {
        self.open = 0;
        let ages = std::mem::take(&mut self.open_ages);
        self.unfinished.merge(&ages);
        self.late += std::mem::take(&mut self.overdue);
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.requests += other.requests;
        sum.errors += other.errors;
        sum.proxy_errors += other.proxy_errors;
        sum.retries += other.retries;
        sum.bytes_in += other.bytes_in;
        sum.bytes_out += other.bytes_out;
        sum.open += other.open;
        sum.abandoned += other.abandoned;
        sum.unfinished.merge(&other.unfinished);
        sum.late += other.late;
        sum.open_ages.merge(&other.open_ages);
        sum.overdue += other.overdue;
        for (class, count) in &other.responses {
            *sum.responses.entry(class.clone()).or_default() += count;
        }
        sum.latency.merge(&other.latency);
        if let Some(users) = &other.users {
            sum.users.get_or_insert_default().merge(users);
        }
        sum
    }

    /// The difference to `earlier`; zero where `earlier` has more.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let class = |(class, count): (&String, &u64)| {
            let left = count.saturating_sub(earlier.responses.get(class).copied().unwrap_or(0));
            (left > 0).then(|| (class.clone(), left))
        };
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            errors: self.errors.saturating_sub(earlier.errors),
            proxy_errors: self.proxy_errors.saturating_sub(earlier.proxy_errors),
            retries: self.retries.saturating_sub(earlier.retries),
            responses: self.responses.iter().filter_map(class).collect(),
            latency: self.latency.subtract(&earlier.latency),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            open: self.open,
            abandoned: self.abandoned.saturating_sub(earlier.abandoned),
            unfinished: self.unfinished.subtract(&earlier.unfinished),
            late: self.late.saturating_sub(earlier.late),
            open_ages: self.open_ages.clone(),
            overdue: self.overdue,
            users: self.users.as_ref().map(|now| {
                let before = earlier.users.as_ref();
                before.map_or_else(|| now.clone(), |before| now.since(before))
            }),
        }
    }
}

impl From<&ReleaseTotals> for TrafficTotals {
    fn from(entry: &ReleaseTotals) -> Self {
        Self {
            requests: entry.requests,
            errors: entry.responses.get("5xx").copied().unwrap_or(0),
            proxy_errors: entry.proxy_errors,
            retries: entry.retries,
            responses: entry.responses.clone(),
            latency: entry.latency.clone(),
            bytes_in: entry.bytes_in,
            bytes_out: entry.bytes_out,
            open: entry.open,
            users: entry.users.clone(),
            abandoned: entry.abandoned,
            unfinished: entry.unfinished.clone(),
            late: entry.late,
            open_ages: entry.open_ages.clone(),
            overdue: entry.overdue,
        }
    }
}

/// The totals at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficReading {
    /// When the counters were read.
    pub taken_at: Timestamp,
    totals: BTreeMap<ReplicaSetKey, TrafficTotals>,
}

impl TrafficReading {
    /// A reading of these totals.
    #[must_use]
    pub const fn new(taken_at: Timestamp, totals: BTreeMap<ReplicaSetKey, TrafficTotals>) -> Self {
        Self { taken_at, totals }
    }

    /// The totals of a release in an environment; zero if it never had a request.
    #[must_use]
    pub fn totals_for(&self, place: &ServiceEnvironment, release: ReleaseNumber) -> TrafficTotals {
        self.totals
            .get(&ReplicaSetKey {
                place: place.clone(),
                release,
            })
            .cloned()
            .unwrap_or_default()
    }

    /// The totals of a release including mirrored requests.
    #[must_use]
    pub fn totals_with_copies(
        &self,
        place: &ServiceEnvironment,
        release: ReleaseNumber,
    ) -> TrafficTotals {
        let copies = self.totals_for(place, release.mirrored());
        self.totals_for(place, release).plus(&copies)
    }

    /// The previous name of [`TrafficReading::releases_at`].
    pub fn at(
        &self,
        place: &ServiceEnvironment,
    ) -> impl Iterator<Item = (ReleaseNumber, &TrafficTotals)> {
        self.releases_at(place)
    }

    /// All releases of an environment, the oldest first.
    pub fn releases_at(
        &self,
        place: &ServiceEnvironment,
    ) -> impl Iterator<Item = (ReleaseNumber, &TrafficTotals)> {
        let from = ReplicaSetKey {
            place: place.clone(),
            release: ReleaseNumber(0),
        };
        let to = ReplicaSetKey {
            place: place.clone(),
            release: ReleaseNumber(u32::MAX),
        };
        self.totals
            .range(from..=to)
            .map(|(key, totals)| (key.release, totals))
    }

    /// The difference to `earlier` for each release.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let nothing = TrafficTotals::default();
        let delta = |(key, now): (&ReplicaSetKey, &TrafficTotals)| {
            (
                key.clone(),
                now.since(earlier.totals.get(key).unwrap_or(&nothing)),
            )
        };
        Self {
            taken_at: self.taken_at,
            totals: self.totals.iter().map(delta).collect(),
        }
    }
}

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
            .filter_map(|entry| Some((parse_set_key(entry)?, TrafficTotals::from(entry))))
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
        TrafficReading { taken_at, totals }
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
                totals.errors,
                totals.latency.count(),
                totals.bytes_out
            ),
            (3, 1, 3, 30)
        );
        let delta = second.since(&first).totals_for(&place(), ReleaseNumber(3));
        assert_eq!(
            (
                delta.requests,
                delta.errors,
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
                    prop_assert_eq!((totals.requests, totals.errors, totals.latency.count()), (*requests, *errors, *requests));
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
