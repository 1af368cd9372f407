//! Confidence bands for whole distributions, valid at every point in time (time-uniform).
//!
//! With probability `1 - alpha`, for all `t ≥ from` at once, `sup |F_t − F| ≤ g(t) = 0.85·√((ln(1 + ln(t/from)) + C)/t)`.
//! Source: Howard & Ramdas (2022), theorem 2; `C` is found so that the error of the union bound there is `alpha`.
//!
//! ```
//! use shipway_analysis::evidence::{Alpha, cdf::CdfBand};
//! let band = CdfBand::new(Alpha::new(0.05)?, 100);
//! assert!((band.radius(1000) - 0.0820477).abs() < 1e-7);
//! # Ok::<(), shipway_analysis::evidence::InvalidAlpha>(())
//! ```

use serde::{Deserialize, Serialize};

use super::{
    Alpha, ConfidenceInterval,
    numeric::{bisect, smallest},
};

/// How steep the bound is; the published choice.
const A: f64 = 0.85;

/// The bound for one distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CdfBand {
    from: u64,
    constant: f64,
}

impl CdfBand {
    /// The bound that holds with probability `1 - alpha` from `from` values on. Finding its constant takes some
    /// thousand logarithms: it is made once.
    #[must_use]
    pub fn new(alpha: Alpha, from: u64) -> Self {
        // At the lower end the error is over 1, at the upper end below any alpha that a double can hold above 1e-300.
        let constant = bisect(2.0, 2_000.0, |constant| {
            libm::log(alpha.get()) - log_error(constant)
        });
        Self {
            from: from.max(1),
            constant,
        }
    }

    /// How far the empirical function of `count` values may be from the true one; infinite before enough have come.
    #[must_use]
    pub fn radius(&self, count: u64) -> f64 {
        if count < self.from {
            return f64::INFINITY;
        }
        let count_ = count as f64;
        let age = libm::log1p(libm::log(count_ / self.from as f64));
        A * libm::sqrt((age + self.constant) / count_)
    }
}

/// The logarithm of the probability that the bound with this constant is ever left, as the union bound has it.
fn log_error(constant: f64) -> f64 {
    let gamma_squared = |eta: f64| {
        let root = A - libm::sqrt(2.0 * (eta - 1.0) / constant);
        2.0 / eta * root * root
    };
    // The union bound is vacuous from γ² = 1 on.
    let last = bisect(1.0, 2.0 * A * A, |eta| {
        libm::sqrt(eta / 2.0) + libm::sqrt(2.0 * (eta - 1.0) / constant) - A
    });
    smallest(1.0, last, |eta| {
        let gamma_squared = gamma_squared(eta);
        if gamma_squared <= 1.0 || eta <= 1.0 {
            return f64::INFINITY;
        }
        let rounds = 1.0 / ((gamma_squared - 1.0) * libm::log(eta));
        libm::log(4.0) - gamma_squared * constant + libm::log1p(rounds)
    })
}

/// Values counted in buckets: how many lie at or below each edge of a common scale, and above the last edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketCounts {
    /// For each bucket, how many values lie in it or below.
    below: Vec<u64>,
}

impl BucketCounts {
    /// Counts per bucket, in ascending order of the buckets; both sides of a comparison use the same scale.
    #[must_use]
    pub fn new(counts: Vec<u64>) -> Self {
        let mut below = counts;
        let mut sum = 0_u64;
        for count in &mut below {
            sum = sum.saturating_add(*count);
            *count = sum;
        }
        Self { below }
    }

    /// How many values there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.below.last().copied().unwrap_or(0)
    }

    /// The first bucket at whose end at least this share of the values lies; `None` when there is none.
    #[must_use]
    pub fn first_with(&self, share: f64) -> Option<usize> {
        let total = self.total().max(1) as f64;
        let is_less = |below: &u64| (*below as f64 / total) < share;
        let first = self.below.partition_point(is_less);
        (first < self.below.len()).then_some(first)
    }

    /// For each bucket the share of the values that lie in it or below.
    fn shares(&self, buckets: usize) -> impl Iterator<Item = f64> {
        let (all, total) = (self.total(), self.total().max(1) as f64);
        (0..buckets).map(move |bucket| {
            let below = self.below.get(bucket).copied().unwrap_or(all);
            below as f64 / total
        })
    }
}

/// The largest gap by which the canary's distribution lies beyond stable's, and whether that is more than both bounds allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CdfGap {
    /// `sup (F_stable − F_canary)`: the largest share of answers by which the canary is behind at some time.
    pub gap: f64,
    /// The bucket where it is.
    pub bucket: usize,
    /// What the two bounds allow together; infinite while there is too little.
    pub allowed: f64,
}

impl CdfGap {
    /// Whether the canary is slower, beyond doubt.
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        self.gap > self.allowed
    }
}

/// Compares two distributions on the same scale; `band` is that of each side, made with half of what may be wrong.
#[must_use]
pub fn slower(canary: &BucketCounts, stable: &BucketCounts, band: &CdfBand) -> CdfGap {
    let buckets = canary.below.len().max(stable.below.len());
    let gaps = stable
        .shares(buckets)
        .zip(canary.shares(buckets))
        .map(|(stable, canary)| stable - canary);
    let (bucket, gap) = gaps.enumerate().fold(
        (0, 0.0),
        |most, here| if here.1 > most.1 { here } else { most },
    );
    CdfGap {
        gap,
        bucket,
        allowed: band.radius(canary.total()) + band.radius(stable.total()),
    }
}

/// The buckets that a quantile lies in, by the bound: from the first that may hold it to the last that may.
///
/// As positions on the scale of buckets; the last bucket holds whatever lies beyond the scale.
#[must_use]
pub fn quantile(of: &BucketCounts, quantile: f64, band: &CdfBand) -> ConfidenceInterval {
    let radius = band.radius(of.total());
    let buckets = of.below.len();
    let first_with = |share: f64| of.first_with(share).unwrap_or(buckets.saturating_sub(1));
    ConfidenceInterval {
        low: first_with(quantile - radius) as f64,
        high: first_with(quantile + radius) as f64,
    }
}

/// A time-uniform bound on the distance between the count of values below the true quantile and `quantile · count`.
///
/// Source: Howard & Ramdas (2022), theorem 3 (double stitching), with the published `s = 1.4`, `η = 2`, `δ = 0.5`;
/// tightest at about `tightest_at` values. Tighter than [`CdfBand`] for one quantile near the ends.
#[must_use]
pub fn double_stitching(quantile: f64, count: f64, alpha: Alpha, tightest_at: f64) -> f64 {
    const S: f64 = 1.4;
    const ETA: f64 = 2.0;
    const DELTA: f64 = 0.5;
    /// `ζ(1.4)`
    const ZETA: f64 = 3.105_547_277_977_582;
    let logit = |p: f64| libm::log(p / (1.0 - p));
    let count = count.max(tightest_at);
    let age = count / tightest_at;
    let nearest = if quantile >= 0.5 {
        quantile
    } else {
        let moved = logit(quantile) + 2.0 * DELTA * libm::sqrt(ETA / age);
        (1.0 / (1.0 + libm::exp(-moved))).min(0.5)
    };
    let variance = nearest * (1.0 - nearest);
    let distance = libm::sqrt(age) * libm::fabs(logit(quantile)) / (2.0 * DELTA) + 1.0;
    let level = S * libm::log(libm::log(ETA * age))
        + S * libm::log(distance)
        + libm::log(2.0 * ZETA * (2.0 * ZETA + 1.0) / (alpha.get() * libm::pow(libm::log(ETA), S)));
    let skew = (1.0 - 2.0 * quantile) / 3.0;
    let (root, quarter) = (libm::sqrt(ETA), libm::pow(ETA, 0.25));
    let k1_squared = (quarter + 1.0 / quarter) * (quarter + 1.0 / quarter) / 2.0;
    let term = (root + 1.0) / 2.0 * skew * level;
    DELTA * libm::sqrt(ETA * age * variance)
        + libm::sqrt(k1_squared * variance * count * level + term * term)
        + term
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alpha(value: f64) -> Alpha {
        Alpha::new(value).unwrap()
    }

    #[test]
    fn the_numbers_that_any_correct_implementation_gives() {
        let band = CdfBand::new(alpha(0.05), 100);
        assert!((band.constant - 8.1227).abs() < 5e-5, "{}", band.constant);
        // The published .08204769 is of a minimiser that stops early; this is the minimum.
        assert!(
            (band.radius(1000) - 0.082_047_69).abs() < 2e-7,
            "{}",
            band.radius(1000)
        );
        let stitched = |quantile| double_stitching(quantile, 1000.0, alpha(0.05), 100.0);
        assert!(
            (stitched(0.5) - 68.628_03).abs() < 5e-6,
            "{}",
            stitched(0.5)
        );
        assert!(
            (stitched(0.9) - 43.721_19).abs() < 5e-6,
            "{}",
            stitched(0.9)
        );
    }

    #[test]
    fn before_enough_values_nothing_is_known() {
        let band = CdfBand::new(alpha(0.01), 100);
        assert_eq!(band.radius(99), f64::INFINITY);
        let (few, many) = (
            BucketCounts::new(vec![0, 0, 50]),
            BucketCounts::new(vec![5000, 0, 0]),
        );
        assert!(
            !slower(&few, &many, &band).is_beyond(),
            "50 answers prove nothing"
        );
        let all = quantile(&few, 0.99, &band);
        assert_eq!(
            all,
            ConfidenceInterval {
                low: 0.0,
                high: 2.0
            }
        );
    }

    #[test]
    fn a_shifted_distribution_is_found_and_an_equal_one_is_not() {
        let band = CdfBand::new(alpha(0.005), 100);
        let fast = BucketCounts::new(vec![700, 200, 90, 10]);
        let slow = BucketCounts::new(vec![300, 500, 150, 50]);
        let gap = slower(&slow, &fast, &band);
        assert!(gap.is_beyond(), "{gap:?}");
        assert_eq!(gap.bucket, 0);
        assert!((gap.gap - 0.4).abs() < 1e-12);
        assert!(
            !slower(&fast, &slow, &band).is_beyond(),
            "faster isn't slower"
        );
        assert!(!slower(&fast, &fast, &band).is_beyond());
    }

    #[test]
    fn constants_are_found_for_any_alpha() {
        let mut last = 0.0;
        for value in [0.5, 0.1, 0.01, 1e-6, 1e-20] {
            let band = CdfBand::new(alpha(value), 10);
            assert!(
                band.constant > last && band.constant < 200.0,
                "{value}: {band:?}"
            );
            last = band.constant;
        }
    }
}
