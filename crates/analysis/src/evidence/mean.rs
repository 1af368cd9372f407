//! Confidence sequences for means of values: CPU, memory, the value of an order.
//!
//! An *asymptotic* confidence sequence: it needs no knowledge of how the values are distributed, only a finite variance,
//! and is exact once there are enough of them, as a t-test is. Source: Waudby-Smith et al. (2021), theorem 2.2, on the
//! time scale of the information that both sides have given: `1/(s²_canary/n_canary + s²_stable/n_stable)`.

use serde::{Deserialize, Serialize};

use super::{Alpha, ConfidenceInterval, EstimatorVersion};

/// Values seen on one side: how many, their mean, and how far they scatter. Kept by Welford's method, which loses no
/// digits however large the values are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueMoments {
    count: u64,
    mean: f64,
    /// The sum of the squared distances from the mean.
    scatter: f64,
}

impl ValueMoments {
    /// Takes a value in. One that isn't finite is refused: no evidence comes of it.
    pub fn add(&mut self, value: f64) -> bool {
        if value.is_finite() {
            self.count += 1;
            let before = value - self.mean;
            self.mean += before / self.count as f64;
            self.scatter += before * (value - self.mean);
        }
        value.is_finite()
    }

    /// How many values there were.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 without values.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance of their mean.
    fn uncertainty(&self) -> f64 {
        let count = self.count as f64;
        self.scatter / (count - 1.0) / count
    }
}

/// Values that come one after the other, and how much they resemble those before: what a service uses now it used a moment ago
/// too, and a hundred such values say less than a hundred independent ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueSeries {
    #[serde(flatten)]
    values: LaggedMoments,
    /// The sum of the cubed distances from the mean.
    cubed: f64,
    /// How many values differ from the one before.
    moves: u64,
    /// The same series in stretches of 1, 2, 4, … values.
    stretches: Vec<BatchMeans>,
}

/// Values, and how much each resembles the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LaggedMoments {
    moments: ValueMoments,
    last: f64,
    /// The first value; products are taken of distances from it, which loses no digits.
    first: f64,
    /// The sum of the products of neighbours.
    products: f64,
}

/// A series of means of so many values each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct BatchMeans {
    means: LaggedMoments,
    /// The sum of the last one, until there is another to make one of twice the length with.
    waiting: Option<f64>,
}

impl LaggedMoments {
    fn add(&mut self, value: f64) {
        self.moments.add(value);
        if self.moments.count == 1 {
            self.first = value;
        } else {
            self.products += (value - self.first) * (self.last - self.first);
        }
        self.last = value;
    }

    /// How much of a value its predecessor tells: 0 is nothing. What would help the release, values that swing, isn't counted.
    fn likeness(&self) -> f64 {
        let pairs = self.moments.count as f64 - 1.0;
        let mean = self.moments.mean - self.first;
        let variance = self.moments.scatter / pairs;
        if variance > 0.0 {
            let seen = (self.products / pairs - mean * mean) / variance;
            // Of a short series it looks less than it is (Kendall 1954).
            (seen + (1.0 + 3.0 * seen) / pairs).clamp(0.0, LIKENESS_MAX)
        } else {
            0.0
        }
    }

    /// How many independent values say as much: of values of which each tells a part of the next (an autoregression) the mean
    /// scatters as if there were `(1 − ρ)/(1 + ρ)` times as many.
    fn independent(&self) -> f64 {
        let likeness = self.likeness();
        self.moments.count as f64 * (1.0 - likeness) / (1.0 + likeness)
    }

    /// The variance of the mean.
    fn uncertainty(&self) -> f64 {
        self.moments.uncertainty() * self.moments.count as f64 / self.independent()
    }
}

impl ValueSeries {
    /// Takes the next value in. One that isn't finite is refused.
    pub fn add(&mut self, value: f64) -> bool {
        if !value.is_finite() {
            return false;
        }
        let before = self.values.moments;
        self.moves += u64::from(before.count > 0 && value != self.values.last);
        self.values.add(value);
        // Third central moment by Terriberry's update, as Welford's for the second.
        let count = self.values.moments.count as f64;
        let step = (value - before.mean) / count;
        let squared = (value - before.mean) * step * (count - 1.0);
        self.cubed += squared * step * (count - 2.0) - 3.0 * step * before.scatter;
        self.add_to_stretches(value);
        true
    }

    fn add_to_stretches(&mut self, value: f64) {
        let (mut sum, mut length) = (value, 1.0);
        for place in 0..STRETCHES {
            if place == self.stretches.len() {
                self.stretches.push(BatchMeans::default());
            }
            let stretch = &mut self.stretches[place];
            stretch.means.add(sum / length);
            let Some(waiting) = stretch.waiting.take() else {
                stretch.waiting = Some(sum);
                return;
            };
            (sum, length) = (sum + waiting, length * 2.0);
        }
    }

    /// How many values there were, and their mean.
    #[must_use]
    pub const fn moments(&self) -> &ValueMoments {
        &self.values.moments
    }

    /// The variance of the mean.
    #[must_use]
    pub fn uncertainty(&self) -> f64 {
        self.long_run().0
    }

    /// How many values differ from the one before.
    #[must_use]
    pub const fn moves(&self) -> u64 {
        self.moves
    }

    /// The variance of the mean, and from how many independent values it is known: what single values say, or the longest stretches of
    /// which there are enough, whichever is more. Noise that fades fast hides noise that stays from a look at neighbours alone, and
    /// not from one at longer stretches.
    fn long_run(&self) -> (f64, f64) {
        let said = |values: &LaggedMoments| (values.uncertainty(), values.moments.count);
        let long = self
            .stretches
            .iter()
            .map(|stretch| &stretch.means)
            .rfind(|means| means.moments.count >= STRETCHES_MIN);
        let (single, long) = (said(&self.values), long.map(said));
        let (uncertainty, count) = match long {
            Some(long) if long.0 > single.0 => long,
            _ => single,
        };
        (uncertainty, (count as f64 - 1.0) * FREEDOM)
    }

    /// How far to one side the values lean; 0 is to none.
    fn skewness(&self) -> f64 {
        let count = self.values.moments.count as f64;
        let variance = self.values.moments.scatter / (count - 1.0);
        self.cubed / count / (variance * libm::sqrt(variance))
    }
}

/// Of how many lengths there are stretches: up to 128 values.
const STRETCHES: usize = 8;

/// So many stretches of a length at least say how much their means scatter.
const STRETCHES_MIN: u64 = 15;

/// How many independent values a stretch counts for where variance and likeness are both taken from the same.
const FREEDOM: f64 = 0.4;

/// Skewness shows in few values less than it is: the rare large ones haven't come yet.
const SKEWNESS_UNSEEN: f64 = 1.5;

/// Beyond this a series stands still, and no number of values is enough.
const LIKENESS_MAX: f64 = 0.98;

/// Independent values that a series must be worth before it has a confidence sequence.
const INDEPENDENT_MIN: f64 = 25.0;

/// The confidence sequence of the mean of a series; `None` before it has [`VALUES_MIN`] values, and enough that are new.
///
/// The published sequence takes the variance as known and the sum of the values as normal, and is anywhere near its promise only
/// after hundreds of independent values; a hold has some dozens that aren't. Three things are added, as a t-test would, and each
/// of them can only ever widen it (`bench/analysis`, false rollbacks; without them one good release in seven was rolled back where
/// one in twenty was allowed):
///
/// - the variance is also taken from longer stretches (`ValueSeries::long_run`);
/// - that it is estimated: the quantile of Student's distribution instead of the normal one, to its first order (Fisher 1925);
/// - skewness: with many small and few large values the mean is mostly below its expectation and has a small variance while it is
///   (`leant`).
///
/// `unseen` is variance of the mean that is there and can't be seen in the values: of a conversion rate of which one request in fifty
/// is a hit, the side with a few requests shows zeros for minutes, which look as if they were certain.
#[must_use]
pub fn sequence(
    series: &ValueSeries,
    unseen: f64,
    alpha: Alpha,
    tightest_at: f64,
    estimator: EstimatorVersion,
) -> Option<ConfidenceInterval> {
    match estimator {
        EstimatorVersion::V1 => sequence_v1(series, unseen, alpha, tightest_at),
    }
}

fn sequence_v1(
    series: &ValueSeries,
    unseen: f64,
    alpha: Alpha,
    tightest_at: f64,
) -> Option<ConfidenceInterval> {
    let moments = series.moments();
    if moments.count < VALUES_MIN {
        return None;
    }
    let (seen, freedom) = series.long_run();
    let uncertainty = seen + unseen;
    if uncertainty <= 0.0 {
        return Some(ConfidenceInterval {
            low: moments.mean,
            high: moments.mean,
        });
    }
    let count = moments.count as f64;
    // Zero variance: every value counts as independent.
    let independent = if seen > 0.0 {
        count * moments.uncertainty() / seen
    } else {
        count
    };
    if independent < INDEPENDENT_MIN {
        return None;
    }
    let error = libm::sqrt(uncertainty);
    let tuned = tightest_at / (uncertainty * count);
    let reach = radius(1.0 / uncertainty, tuned, alpha) / error;
    let reach = reach * (1.0 + (reach * reach + 1.0) / (4.0 * freedom));
    let lean = SKEWNESS_UNSEEN * series.skewness() / libm::sqrt(independent);
    Some(ConfidenceInterval {
        low: moments.mean - error * leant(reach, lean.min(0.0)),
        high: moments.mean - error * leant(-reach, lean.max(0.0)),
    })
}

/// How far the mean of values that lean to a side may be from the truth, in deviations, where that of others may be `reach`; `lean`
/// is their skewness over the root of their number. The inverse of Hall's (1992) monotone cubic, which takes the skewness out.
fn leant(reach: f64, lean: f64) -> f64 {
    // Below this the root would lose more digits than the correction has.
    if libm::fabs(lean) < 1e-6 {
        return reach;
    }
    3.0 / lean * (libm::cbrt(1.0 + lean * (reach - lean / 6.0)) - 1.0)
}

/// From so many values on each side the central limit theorem is relied on.
pub const VALUES_MIN: u64 = 30;

/// The confidence sequence of `mean(canary) − mean(stable)`; `None` before each side has [`VALUES_MIN`] values.
///
/// `tightest_at` is the number of values on each side at which it is tightest.
#[must_use]
pub fn difference(
    canary: &ValueMoments,
    stable: &ValueMoments,
    alpha: Alpha,
    tightest_at: f64,
) -> Option<ConfidenceInterval> {
    if canary.count.min(stable.count) < VALUES_MIN {
        return None;
    }
    let difference = canary.mean - stable.mean;
    let uncertainty = canary.uncertainty() + stable.uncertainty();
    let radius = if uncertainty > 0.0 {
        // `tightest_at` values a side, as they have scattered so far, give this much information.
        let count = canary.count.min(stable.count) as f64;
        radius(
            1.0 / uncertainty,
            tightest_at / (uncertainty * count),
            alpha,
        )
    } else {
        // Zero variance: the difference is exact.
        0.0
    };
    Some(ConfidenceInterval {
        low: difference - radius,
        high: difference + radius,
    })
}

/// Half the width after the information `seen`, for unit variance: a normal mixture tuned to be tightest at `tuned`.
fn radius(seen: f64, tuned: f64, alpha: Alpha) -> f64 {
    let needed = 2.0 * alpha.log_limit();
    let rho_squared = (needed + libm::log1p(needed)) / tuned;
    let grown = seen * rho_squared + 1.0;
    libm::sqrt(
        2.0 * grown / (seen * seen * rho_squared) * (alpha.log_limit() + 0.5 * libm::log(grown)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: impl IntoIterator<Item = f64>) -> ValueMoments {
        let mut moments = ValueMoments::default();
        values
            .into_iter()
            .for_each(|value| assert!(moments.add(value)));
        moments
    }

    #[test]
    fn moments_are_those_of_the_values() {
        let moments = moments([1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
        assert_eq!((moments.count(), moments.mean()), (3, 1e9 + 2.0));
        assert!((moments.scatter - 2.0).abs() < 1e-9);
        let mut odd = moments;
        assert!(!odd.add(f64::NAN) && !odd.add(f64::INFINITY));
        assert_eq!(odd, moments, "what is no number leaves nothing behind");
    }

    #[test]
    fn too_few_values_say_nothing_and_equal_ones_say_all() {
        let alpha = Alpha::new(0.01).unwrap();
        let few = moments((0..29).map(f64::from));
        let many = moments((0..1000).map(f64::from));
        assert_eq!(difference(&few, &many, alpha, 100.0), None);
        let (fives, sevens) = (moments([5.0; 40]), moments([7.0; 40]));
        let apart = difference(&sevens, &fives, alpha, 100.0).unwrap();
        assert_eq!(
            apart,
            ConfidenceInterval {
                low: 2.0,
                high: 2.0
            }
        );
    }

    #[test]
    fn values_that_resemble_their_predecessors_do_not_pass_for_many() {
        let alpha = Alpha::new(0.05).unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        let (rollouts, mut wrong) = (400, 0);
        for _ in 0..rollouts {
            let (mut series, mut value, mut left) = (ValueSeries::default(), 0.0, false);
            for _ in 0..600 {
                // Each is nine tenths the one before; their mean is 0.
                value = 0.9 * value + random.f64() - 0.5;
                series.add(value);
                let interval = sequence(&series, 0.0, alpha, 100.0, EstimatorVersion::V1);
                left |= interval.is_some_and(|interval| !interval.holds(0.0));
            }
            wrong += u32::from(left);
        }
        assert!(
            f64::from(wrong) <= alpha.get() * f64::from(rollouts),
            "{wrong} of {rollouts}"
        );
    }

    #[test]
    fn noise_that_stays_is_not_hidden_by_noise_that_fades_nor_by_values_that_lean() {
        let alpha = Alpha::new(0.05).unwrap();
        let mut random = fastrand::Rng::with_seed(12);
        let mut wrong = 0;
        for _ in 0..500 {
            let (mut series, mut slow) = (ValueSeries::default(), 0.0);
            let mut left = false;
            for _ in 0..300 {
                // Their mean is 0: half of the scatter stays for ten values, half is gone at once and leans to one side.
                slow = 0.9 * slow + random.f64() - 0.5;
                let leaning = 0.6 * (1.0 + random.f64().ln());
                series.add(slow + leaning);
                // As in the first hold: half of alpha, and only whether it is worse.
                let alpha = alpha.split(2);
                let interval = sequence(&series, 0.0, alpha, 100.0, EstimatorVersion::V1);
                left |= interval.is_some_and(|interval| interval.low > 0.0);
            }
            wrong += u32::from(left);
        }
        let most = (alpha.get() * 500.0) as u32;
        assert!(wrong <= most, "{wrong} of {most}");
    }

    #[test]
    fn a_series_comes_back_from_the_log() {
        let mut random = fastrand::Rng::with_seed(13);
        let mut series = ValueSeries::default();
        for _ in 0..200 {
            let back: ValueSeries =
                serde_json::from_str(&serde_json::to_string(&series).unwrap()).unwrap();
            assert_eq!(back, series);
            series.add(random.f64());
        }
        let values: Vec<u64> = series
            .stretches
            .iter()
            .map(|it| it.means.moments.count)
            .collect();
        assert_eq!(values, [200, 100, 50, 25, 12, 6, 3, 1]);
    }

    #[test]
    fn a_difference_is_found_with_time_and_never_where_there_is_none() {
        let alpha = Alpha::new(0.01).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut wrong = 0;
        for _ in 0..500 {
            let (mut canary, mut stable) = (ValueMoments::default(), ValueMoments::default());
            let mut left = false;
            for _ in 0..400 {
                canary.add(random.f64());
                stable.add(random.f64());
                let interval = difference(&canary, &stable, alpha, 100.0);
                left |= interval.is_some_and(|interval| !interval.holds(0.0));
            }
            wrong += u32::from(left);
        }
        // 5 are expected at most; 14 would be beyond chance (one in a thousand).
        assert!(wrong < 14, "{wrong} of 500");
        let higher = moments((0..400).map(|_| random.f64() + 0.3));
        let usual = moments((0..400).map(|_| random.f64()));
        assert!(difference(&higher, &usual, alpha, 100.0).unwrap().low > 0.0);
    }
}
