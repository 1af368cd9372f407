//! A histogram of durations with fixed log-linear buckets: one for each microsecond below 32 µs, then 32 to each doubling, up to
//! 67 s. A bucket is at most 3.2% wide, so quantiles are right within that. Fixed buckets can be added and subtracted, which
//! quantiles can't.
//!
//! ```
//! use std::time::Duration;
//! use shipway_proxy::protocol::LatencyHistogram;
//!
//! let mut latency = LatencyHistogram::default();
//! latency.record(Duration::from_millis(20));
//! assert!(latency.quantile(0.5).is_some_and(|half| half.as_micros().abs_diff(20_000) < 700));
//! ```

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Buckets per doubling, as a power of two.
const PER_DOUBLING_BITS: u32 = 5;
const PER_DOUBLING: u64 = 1 << PER_DOUBLING_BITS;
/// Exact microseconds, then doublings from 32 µs to 67 s; longer durations go into the last bucket.
pub(crate) const BUCKETS: usize = (PER_DOUBLING * 22) as usize;

/// Counts by bucket; empty buckets are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LatencyHistogram(pub BTreeMap<u16, u64>);

#[must_use]
pub(crate) fn bucket_index(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < PER_DOUBLING {
        return usize::try_from(micros).unwrap_or(0);
    }
    let shift = micros.ilog2() - PER_DOUBLING_BITS;
    let bucket = u64::from(shift) * PER_DOUBLING + (micros >> shift);
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[must_use]
fn bucket_upper_bound(bucket: u16) -> Duration {
    Duration::from_micros(LatencyHistogram::upper_micros(usize::from(bucket)))
}

impl LatencyHistogram {
    /// The number of buckets.
    pub const BUCKETS: usize = BUCKETS;

    /// The upper end of a bucket, in microseconds.
    #[must_use]
    pub const fn upper_micros(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < PER_DOUBLING {
            return bucket + 1;
        }
        let shift = bucket / PER_DOUBLING - 1;
        let shift = if shift < 32 { shift } else { 32 };
        (bucket % PER_DOUBLING + PER_DOUBLING + 1) << shift
    }

    /// Counts one duration.
    pub fn record(&mut self, took: Duration) {
        let bucket = u16::try_from(bucket_index(took)).unwrap_or(u16::MAX);
        *self.0.entry(bucket).or_default() += 1;
    }

    /// Number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether no duration was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// The counts since `earlier`.
    #[must_use]
    pub fn subtract(&self, earlier: &Self) -> Self {
        let since = |(bucket, count): (&u16, &u64)| {
            let left = count.saturating_sub(earlier.0.get(bucket).copied().unwrap_or(0));
            (left > 0).then_some((*bucket, left))
        };
        Self(self.0.iter().filter_map(since).collect())
    }

    /// Number of durations in buckets above that of `limit`: all of them are longer.
    #[must_use]
    pub fn count_above(&self, limit: Duration) -> u64 {
        let last = u16::try_from(bucket_index(limit)).unwrap_or(u16::MAX);
        let beyond = self
            .0
            .range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded));
        beyond.map(|(_, count)| count).sum()
    }

    /// The duration that this share of requests did not exceed, if some of them have no response. `now` and `before` are the
    /// ages of the unanswered ones at the end and at the start of the period in which the others were answered.
    ///
    /// For each limit, a request is counted in the period in which it became known whether it exceeds the limit: when it was
    /// answered within it, or when it grew older than it. So each request is counted once per limit, however long it is open,
    /// and one that is still open only counts for limits below its age. If so many requests are unanswered that the quantile
    /// lies beyond all responses, the result is its lower bound.
    #[must_use]
    pub fn quantile_with_open(&self, now: &Self, before: &Self, share: f64) -> Option<Duration> {
        if now.is_empty() && before.is_empty() {
            return self.quantile(share);
        }
        let buckets: std::collections::BTreeSet<u16> = [self, now, before]
            .iter()
            .flat_map(|it| it.0.keys().copied())
            .collect();
        let total = self.count();
        let mut at_least = None;
        let (mut within, mut young, mut were_young) = (0, 0, 0);
        let (all_now, all_before) = (now.count(), before.count());
        for bucket in buckets {
            let count = |counts: &Self| counts.0.get(&bucket).copied().unwrap_or(0);
            within += count(self);
            young += count(now);
            were_young += count(before);
            // Requests that exceeded this bucket, minus those that had before; answered ones that had are in both.
            let older = (total - within + all_now - young).saturating_sub(all_before - were_young);
            let known = within + older;
            if known > 0 && within as f64 >= (known as f64 * share.clamp(0.0, 1.0)).ceil() {
                return Some(bucket_upper_bound(bucket));
            }
            if older > 0 || count(now) > 0 {
                at_least = Some(bucket_upper_bound(bucket));
            }
        }
        at_least
    }

    /// The duration that this share did not exceed, as the upper end of its bucket; `None` if nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total = self.count();
        let rank = ((total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(bucket, _)| bucket_upper_bound(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_right_within_a_bucket() {
        let mut latency = LatencyHistogram::default();
        for millis in 1..=1_000 {
            latency.record(Duration::from_millis(millis));
        }
        for (share, millis) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let got = latency.quantile(share).unwrap().as_secs_f64() * 1e3;
            assert!((got / millis - 1.0).abs() < 0.033, "{share}: {got}");
        }
        assert_eq!(LatencyHistogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_took_longer_is_counted_within_a_bucket() {
        let mut latency = LatencyHistogram::default();
        for millis in [1, 299, 300, 311, 400, 90_000] {
            latency.record(Duration::from_millis(millis));
        }
        assert_eq!(latency.count_above(Duration::from_millis(300)), 3);
        assert_eq!(latency.count_above(Duration::from_secs(200)), 0);
        assert_eq!(latency.count_above(Duration::ZERO), 6);
    }

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for bucket in 0..(BUCKETS - 1) as u16 {
            assert_eq!(
                bucket_index(bucket_upper_bound(bucket)),
                usize::from(bucket) + 1
            );
            assert_eq!(
                bucket_index(bucket_upper_bound(bucket) - Duration::from_micros(1)),
                usize::from(bucket)
            );
        }
        assert!(bucket_upper_bound((BUCKETS - 1) as u16) > Duration::from_secs(60));
        assert_eq!(bucket_index(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_request_without_an_answer_takes_at_least_as_long_as_it_is_old() {
        let ages = |millis: &[u64]| {
            let mut latency = LatencyHistogram::default();
            millis
                .iter()
                .for_each(|ms| latency.record(Duration::from_millis(*ms)));
            latency
        };
        let is_about = |got: Option<Duration>, millis: f64| {
            let got = got.unwrap().as_secs_f64() * 1e3;
            assert!((got / millis - 1.0).abs() < 0.033, "{got}, not {millis}");
        };
        let (none, quick) = (LatencyHistogram::default(), ages(&[10; 70]));
        assert_eq!(none.quantile_with_open(&none, &none, 0.99), None);
        is_about(quick.quantile_with_open(&none, &none, 0.99), 10.0);
        // Nothing was answered at all.
        is_about(
            none.quantile_with_open(&ages(&[3_000; 30]), &none, 0.5),
            3_000.0,
        );
        // Three in ten hang: half of all are quick, nine tenths are not.
        let hanging = ages(&[3_000; 30]);
        is_about(quick.quantile_with_open(&hanging, &none, 0.5), 10.0);
        is_about(quick.quantile_with_open(&hanging, &none, 0.9), 3_000.0);
        // Old ones that were old before count no more; those that are young say nothing yet.
        is_about(
            quick.quantile_with_open(&hanging, &ages(&[2_000; 30]), 0.9),
            10.0,
        );
        is_about(quick.quantile_with_open(&ages(&[1; 30]), &none, 0.9), 10.0);
        // One that was open before, and is answered now, counts once.
        is_about(
            ages(&[5_000]).quantile_with_open(&none, &ages(&[4_000]), 0.5),
            5_000.0,
        );
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_away(
            early in prop::collection::vec(0u64..100_000_000, 0..50),
            late in prop::collection::vec(0u64..100_000_000, 0..50),
        ) {
            let of = |micros: &[u64]| {
                let mut latency = LatencyHistogram::default();
                micros.iter().for_each(|us| latency.record(Duration::from_micros(*us)));
                latency
            };
            let mut both = of(&early);
            both.merge(&of(&late));
            prop_assert_eq!(both.subtract(&of(&early)), of(&late));
        }
    }
}
