//! A histogram of durations with fixed log-linear buckets: one for each microsecond below 32 µs, then 32 to each doubling, up to
//! 67 s. A bucket is at most 3.2 % wide, so quantiles are right within that. Fixed buckets can be added and subtracted, which
//! quantiles can't.
//!
//! ```
//! use std::time::Duration;
//! use shipway_proxy::protocol::Latency;
//!
//! let mut latency = Latency::default();
//! latency.record(Duration::from_millis(20));
//! assert!(latency.quantile(0.5).is_some_and(|half| half.as_micros().abs_diff(20_000) < 700));
//! ```

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Buckets to each doubling, as a power of two.
const PER_DOUBLING_BITS: u32 = 5;
const PER_DOUBLING: u64 = 1 << PER_DOUBLING_BITS;
/// The exact microseconds, then doublings from 32 µs to 67 s; what takes longer is counted in the last bucket.
pub(crate) const BUCKETS: usize = (PER_DOUBLING * 22) as usize;

/// How many answers took how long: bucket to count, empty buckets left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latency(pub BTreeMap<u16, u64>);

/// The bucket of a duration.
#[must_use]
pub(crate) fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < PER_DOUBLING {
        return usize::try_from(micros).unwrap_or(0);
    }
    let shift = micros.ilog2() - PER_DOUBLING_BITS;
    let bucket = u64::from(shift) * PER_DOUBLING + (micros >> shift);
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The upper end of a bucket.
#[must_use]
fn upper(bucket: u16) -> Duration {
    let bucket = u64::from(bucket);
    if bucket < PER_DOUBLING {
        return Duration::from_micros(bucket + 1);
    }
    let shift = (bucket / PER_DOUBLING - 1).min(32);
    Duration::from_micros((bucket % PER_DOUBLING + PER_DOUBLING + 1) << shift)
}

impl Latency {
    /// Counts one duration.
    pub fn record(&mut self, took: Duration) {
        let bucket = u16::try_from(bucket_of(took)).unwrap_or(u16::MAX);
        *self.0.entry(bucket).or_default() += 1;
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

    /// How many are in buckets beyond that of `limit`: all of them took longer.
    #[must_use]
    pub fn beyond(&self, limit: Duration) -> u64 {
        let last = u16::try_from(bucket_of(limit)).unwrap_or(u16::MAX);
        let beyond = self
            .0
            .range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded));
        beyond.map(|(_, count)| count).sum()
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
            assert!((got / millis - 1.0).abs() < 0.033, "{share}: {got}");
        }
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    #[test]
    fn what_took_longer_is_counted_within_a_bucket() {
        let mut latency = Latency::default();
        for millis in [1, 299, 300, 311, 400, 90_000] {
            latency.record(Duration::from_millis(millis));
        }
        assert_eq!(latency.beyond(Duration::from_millis(300)), 3);
        assert_eq!(latency.beyond(Duration::from_secs(200)), 0);
        assert_eq!(latency.beyond(Duration::ZERO), 6);
    }

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for bucket in 0..(BUCKETS - 1) as u16 {
            assert_eq!(bucket_of(upper(bucket)), usize::from(bucket) + 1);
            assert_eq!(
                bucket_of(upper(bucket) - Duration::from_micros(1)),
                usize::from(bucket)
            );
        }
        assert!(upper((BUCKETS - 1) as u16) > Duration::from_secs(60));
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_away(
            early in prop::collection::vec(0u64..100_000_000, 0..50),
            late in prop::collection::vec(0u64..100_000_000, 0..50),
        ) {
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
