//! How many answers took how long, on one scale for both sides: log-linear buckets, eight to a doubling.
//!
//! Coarser than what the proxy counts, since it goes into the log with each observation: a bucket is 12.5% wide at most,
//! and there are [`Histogram::BUCKETS`]. Empty buckets are left out.
//!
//! ```
//! use shipway_analysis::Histogram;
//! let histogram: Histogram = [(40, 3), (41, 0), (60, 1)].into_iter().collect();
//! assert_eq!(histogram.total(), 4);
//! assert_eq!(Histogram::upper_micros(0), 4);
//! ```

use serde::{Deserialize, Serialize};

use crate::evidence::cdf::BucketCounts;

/// Counts by bucket, in rising order of buckets, none of them zero. They only ever grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(Vec<(u16, u64)>);

/// Buckets to a doubling, and below the first: 4 µs each.
const PER_DOUBLING: u64 = 8;

impl Histogram {
    /// From 4 µs to 67 s; the last holds what takes longer.
    pub const BUCKETS: usize = 176;

    /// The upper end of a bucket, in microseconds.
    #[must_use]
    pub const fn upper_micros(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < PER_DOUBLING {
            return (bucket + 1) * 4;
        }
        let shift = bucket / PER_DOUBLING - 1;
        ((bucket % PER_DOUBLING + PER_DOUBLING + 1) * 4) << shift
    }

    /// The bucket of a duration in microseconds.
    #[must_use]
    pub fn bucket_of(micros: u64) -> usize {
        let fours = micros / 4;
        let bucket = if fours < PER_DOUBLING {
            fours
        } else {
            let shift = u64::from(fours.ilog2()) - 3;
            shift * PER_DOUBLING + (fours >> shift)
        };
        usize::try_from(bucket).map_or(Self::BUCKETS - 1, |bucket| bucket.min(Self::BUCKETS - 1))
    }

    /// How many answers there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The time, in microseconds, within which this share of the answers came; `None` without any.
    #[must_use]
    pub fn quantile_micros(&self, share: f64) -> Option<u64> {
        let bucket = self.buckets().first_with(share)?;
        Some(Self::upper_micros(bucket))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `part` of `whole` in each bucket, rounded down: with a larger part no bucket has less.
    #[must_use]
    pub fn portion(&self, part: u64, whole: u64) -> Self {
        let of = |count: u64| {
            let count = u128::from(count) * u128::from(part) / u128::from(whole.max(1));
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        let counts = self.0.iter().map(|(bucket, count)| (*bucket, of(*count)));
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// The increase since `earlier`. If a count is smaller than before, the counter was restarted and everything is new.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.0.iter().peekable();
        let mut new = Vec::with_capacity(self.0.len());
        for &(bucket, count) in &self.0 {
            if before.peek().is_some_and(|(known, _)| *known < bucket) {
                // A bucket that has become empty: begun anew.
                return self.clone();
            }
            let known = before
                .next_if(|(known, _)| *known == bucket)
                .map_or(0, |(_, count)| *count);
            let Some(more) = count.checked_sub(known) else {
                return self.clone();
            };
            if more > 0 {
                new.push((bucket, more));
            }
        }
        if before.next().is_some() {
            return self.clone();
        }
        Self(new)
    }

    /// Both together.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let (mut mine, mut theirs) = (self.0.as_slice(), other.0.as_slice());
        let mut sums = Vec::with_capacity(mine.len().max(theirs.len()));
        while let ([(left, of_left), rest @ ..], [(right, of_right), others @ ..]) = (mine, theirs)
        {
            let (is_left, is_right) = (left <= right, right <= left);
            let left_count = if is_left { *of_left } else { 0 };
            let right_count = if is_right { *of_right } else { 0 };
            sums.push((*left.min(right), left_count.saturating_add(right_count)));
            mine = if is_left { rest } else { mine };
            theirs = if is_right { others } else { theirs };
        }
        sums.extend(mine.iter().chain(theirs));
        Self(sums)
    }

    /// As a distribution over the whole scale.
    #[must_use]
    pub fn buckets(&self) -> BucketCounts {
        let mut counts = vec![0; Self::BUCKETS];
        for (bucket, count) in &self.0 {
            if let Some(place) = counts.get_mut(usize::from(*bucket)) {
                *place += count;
            }
        }
        BucketCounts::new(counts)
    }
}

impl FromIterator<(u16, u64)> for Histogram {
    /// In any order, a bucket more than once; what lies beyond the scale is counted in its last bucket.
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(counts: I) -> Self {
        let mut sums: std::collections::BTreeMap<u16, u64> = std::collections::BTreeMap::new();
        for (bucket, count) in counts {
            let sum = sums
                .entry(bucket.min(Self::BUCKETS as u16 - 1))
                .or_default();
            *sum = sum.saturating_add(count);
        }
        Self(sums.into_iter().filter(|(_, count)| *count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for bucket in 0..Histogram::BUCKETS - 1 {
            let upper = Histogram::upper_micros(bucket);
            assert_eq!(Histogram::bucket_of(upper), bucket + 1);
            assert_eq!(Histogram::bucket_of(upper - 1), bucket);
        }
        assert!(Histogram::upper_micros(Histogram::BUCKETS - 1) > 60_000_000);
        assert_eq!(Histogram::bucket_of(u64::MAX), Histogram::BUCKETS - 1);
    }

    #[test]
    fn what_is_added_can_be_taken_away_and_a_restart_counts_anew() {
        let early: Histogram = [(3, 5), (9, 1)].into_iter().collect();
        let late: Histogram = [(3, 1), (20, 7)].into_iter().collect();
        let both = early.merged(&late);
        assert_eq!(both.since(&early), late);
        assert_eq!(both.total(), 14);
        let summed: Histogram = [(3, 6), (9, 1), (20, 7)].into_iter().collect();
        assert_eq!((both, late.merged(&early)), (summed.clone(), summed));
        let both = early.merged(&late);
        assert_eq!(late.since(&early), late, "bucket 9 is gone: begun anew");
        assert_eq!(late.since(&both), late);
        assert_eq!(late.since(&late), Histogram::default());
        assert_eq!(late.buckets().total(), 8);
    }
}
