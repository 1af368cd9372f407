//! The traffic of all releases at one moment, as totals that only grow.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shipway_core::{
    ids::ReleaseNumber,
    target::{ReplicaSetKey, ServiceEnvironment},
};
pub use shipway_proxy::protocol::TrafficTotals;

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

    /// The totals of two routers. A release that was counted by both has the sum.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        for (set, totals) in other.totals {
            let sum = match self.totals.get(&set) {
                Some(counted) => counted.plus(&totals),
                None => totals,
            };
            self.totals.insert(set, sum);
        }
        Self {
            taken_at: self.taken_at.max(other.taken_at),
            totals: self.totals,
        }
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
