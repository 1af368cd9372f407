//! Values rather than events: CPU, memory, the worth of an order. The difference of two means, at all times at once.
//!
//! An *asymptotic* confidence sequence: it needs no knowledge of how the values are distributed, only a finite variance,
//! and is exact once there are enough of them, as a t-test is. Source: Waudby-Smith et al. (2021), theorem 2.2, on the
//! time scale of the information that both sides have given: `1/(s²_canary/n_canary + s²_stable/n_stable)`.

use serde::{Deserialize, Serialize};

use super::{Alpha, Interval};

/// Values seen on one side: how many, their mean, and how far they scatter. Kept by Welford's method, which loses no
/// digits however large the values are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// The sum of the squared distances from the mean.
    scatter: f64,
}

impl Moments {
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

/// Values that come one after the other, and how much each resembles the one before: what a service uses now it used a
/// moment ago too, and a hundred such values say less than a hundred independent ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    moments: Moments,
    last: f64,
    /// The first value; products are taken of distances from it, which loses no digits.
    first: f64,
    /// The sum of the products of neighbours.
    products: f64,
}

impl Series {
    /// Takes the next value in. One that isn't finite is refused.
    pub fn add(&mut self, value: f64) -> bool {
        if !self.moments.add(value) {
            return false;
        }
        if self.moments.count == 1 {
            self.first = value;
        } else {
            self.products += (value - self.first) * (self.last - self.first);
        }
        self.last = value;
        true
    }

    /// How many values there were, and their mean.
    #[must_use]
    pub const fn moments(&self) -> &Moments {
        &self.moments
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

/// Beyond this a series stands still, and no number of values is enough.
const LIKENESS_MAX: f64 = 0.98;

/// As many independent values at least must be among them.
const INDEPENDENT_MIN: f64 = 20.0;

/// The confidence sequence of the mean of a series; `None` before it has [`VALUES_MIN`] values, and enough that are new.
#[must_use]
pub fn sequence(series: &Series, alpha: Alpha, tightest_at: f64) -> Option<Interval> {
    if series.moments.count < VALUES_MIN || series.independent() < INDEPENDENT_MIN {
        return None;
    }
    let uncertainty = series.uncertainty();
    let radius = if uncertainty > 0.0 {
        let count = series.moments.count as f64;
        radius(
            1.0 / uncertainty,
            tightest_at / (uncertainty * count),
            alpha,
        )
    } else {
        0.0
    };
    Some(Interval {
        low: series.moments.mean - radius,
        high: series.moments.mean + radius,
    })
}

/// From so many values on each side the central limit theorem is relied on.
pub const VALUES_MIN: u64 = 30;

/// The confidence sequence of `mean(canary) − mean(stable)`; `None` before each side has [`VALUES_MIN`] values.
///
/// `tightest_at` is the number of values on each side at which it is tightest.
#[must_use]
pub fn difference(
    canary: &Moments,
    stable: &Moments,
    alpha: Alpha,
    tightest_at: f64,
) -> Option<Interval> {
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
        // Values that never differ: the means are what they are.
        0.0
    };
    Some(Interval {
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

    fn moments(values: impl IntoIterator<Item = f64>) -> Moments {
        let mut moments = Moments::default();
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
            Interval {
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
            let (mut series, mut value, mut left) = (Series::default(), 0.0, false);
            for _ in 0..600 {
                // Each is nine tenths the one before; their mean is 0.
                value = 0.9 * value + random.f64() - 0.5;
                series.add(value);
                let interval = sequence(&series, alpha, 100.0);
                left |= interval.is_some_and(|interval| !interval.holds(0.0));
            }
            wrong += u32::from(left);
        }
        // An asymptotic sequence holds only roughly with so few independent values: about 30 of the first 30 values.
        assert!(
            f64::from(wrong) <= 0.10 * f64::from(rollouts),
            "{wrong} of {rollouts}"
        );
    }

    #[test]
    fn a_difference_is_found_with_time_and_never_where_there_is_none() {
        let alpha = Alpha::new(0.01).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut wrong = 0;
        for _ in 0..500 {
            let (mut canary, mut stable) = (Moments::default(), Moments::default());
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
