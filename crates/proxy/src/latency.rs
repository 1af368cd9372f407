//! A histogram of durations with fixed buckets: 16 to each doubling, from 64 µs to over a minute. A bucket is at most 4.4 % wide,
//! so quantiles are right within that. Fixed buckets can be added and subtracted, which quantiles can't.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Buckets to each doubling.
const PER_DOUBLING: u32 = 16;
/// The upper end of the first bucket, in microseconds.
const FIRST_US: f64 = 64.0;
/// Twenty doublings of 64 µs are 67 s; what takes longer is counted in the last.
pub(crate) const BUCKETS: usize = (PER_DOUBLING * 20 + 1) as usize;

/// How many answers took how long: bucket to count, empty buckets left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latency(pub BTreeMap<u16, u64>);

/// The bucket of a duration.
#[must_use]
pub(crate) fn bucket_of(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    if micros <= FIRST_US {
        return 0;
    }
    let doublings = (micros / FIRST_US).log2();
    ((doublings * f64::from(PER_DOUBLING)).ceil() as usize).min(BUCKETS - 1)
}

/// The upper end of a bucket.
#[must_use]
fn upper(bucket: u16) -> Duration {
    Duration::from_secs_f64(FIRST_US * (f64::from(bucket) / f64::from(PER_DOUBLING)).exp2() / 1e6)
}

impl Latency {
    /// Counts one duration.
    pub fn record(&mut self, took: Duration) {
        *self.0.entry(bucket_of(took) as u16).or_default() += 1;
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn subtract(&self, earlier: &Self) -> Self {
        let since = |(bucket, count): (&u16, &u64)| {
            let left = count.saturating_sub(earlier.0.get(bucket).copied().unwrap_or(0));
            (left > 0).then_some((*bucket, left))
        };
        Self(self.0.iter().filter_map(since).collect())
    }

    /// The duration that this share of all did not exceed, as the upper end of its bucket; `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total = self.count();
        let rank = ((total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(bucket, _)| upper(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let mut latency = Latency::default();
        for millis in 1..=1_000 {
            latency.record(Duration::from_millis(millis));
        }
        for (share, millis) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let got = latency.quantile(share).unwrap().as_secs_f64() * 1e3;
            assert!((got / millis - 1.0).abs() < 0.045, "{share}: {got}");
        }
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_away(early in prop::collection::vec(0u64..100_000_000, 0..50), late in prop::collection::vec(0u64..100_000_000, 0..50)) {
            let of = |micros: &[u64]| {
                let mut latency = Latency::default();
                micros.iter().for_each(|us| latency.record(Duration::from_micros(*us)));
                latency
            };
            let mut both = of(&early);
            both.merge(&of(&late));
            prop_assert_eq!(both.subtract(&of(&early)), of(&late));
        }
    }
}
