//! Evidence that may be looked at after every request: e-processes and confidence sequences.
//!
//! An *e-process* starts at 1 and, as long as its null hypothesis is true, is on average never more than 1, whenever one
//! stops to look; so the chance that it *ever* reaches `1/alpha` is at most `alpha` (Ville's inequality). A *confidence
//! sequence* contains the true value at every point in time with probability `1 - alpha`. Both allow continuous monitoring, which
//! p-values of fixed-sample tests don't.
//!
//! - [`ratio`]: how much more often something happens on the canary than on stable (errors, slow requests, orders), while
//!   the weights change and the traffic rises and falls.
//! - [`limit`]: a share on one side against a limit, where there is nothing to compare with.
//! - [`multinomial`]: the closed form of the same for one constant share; the reference that [`ratio`] is tested against.
//! - [`cdf`]: whole distributions (latency) by bounds on their empirical distribution functions.
//! - [`mean`]: values such as CPU, memory or the worth of an order, by an asymptotic confidence sequence.
//!
//! # Invariants
//! - Pure arithmetic: verdicts are made by a [`Judge`](crate::Judge).
//! - Logarithms and exponentials come from `libm`, not from the platform: a state from the log gives bit-identical results on every
//!   machine.
//!
//! Sources: Lindon & Malek, *Anytime-valid inference for multinomial count data* (2020); Lindon, Sanden & Shirikian, *Rapid
//! regression detection in software deployments through sequential testing* (2022); Howard & Ramdas, *Sequential estimation
//! of quantiles with applications to A/B testing and best-arm identification* (2022); Howard, Ramdas, McAuliffe & Sekhon,
//! *Time-uniform, nonparametric, nonasymptotic confidence sequences* (2021); Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas,
//! *Time-uniform central limit theory and asymptotic confidence sequences* (2021).

pub mod cdf;
pub mod limit;
pub mod mean;
pub mod multinomial;
mod numeric;
pub mod proportion;
pub mod ratio;

use serde::{Deserialize, Serialize};

/// A probability of being wrong that is accepted; above 0, below 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Alpha(f64);

/// A number that is no probability of being wrong.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a valid error probability: it must be above 0 and below 1, such as 1% or 0.01")]
pub struct InvalidAlpha(pub f64);

impl Alpha {
    /// `value` as a probability of being wrong.
    ///
    /// # Errors
    /// When it isn't above 0 and below 1.
    pub fn new(value: f64) -> Result<Self, InvalidAlpha> {
        if value > 0.0 && value < 1.0 {
            Ok(Self(value))
        } else {
            Err(InvalidAlpha(value))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Its share when it is split evenly over `parts` questions: being wrong on any of them has this probability at most.
    #[must_use]
    pub fn split(self, parts: usize) -> Self {
        Self(self.0 / parts.max(1) as f64)
    }

    /// The logarithm of the evidence that rejects: `ln(1/alpha)`.
    #[must_use]
    pub fn log_limit(self) -> f64 {
        -libm::log(self.0)
    }
}

impl TryFrom<f64> for Alpha {
    type Error = InvalidAlpha;

    fn try_from(value: f64) -> Result<Self, InvalidAlpha> {
        Self::new(value)
    }
}

impl From<Alpha> for f64 {
    fn from(alpha: Alpha) -> Self {
        alpha.0
    }
}

/// Version of the estimators that a comparison uses. A log is judged again whenever it is read, so a rollout keeps the version that
/// it was opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EstimatorVersion {
    /// Means of correlated, skewed and few values ([`mean::sequence`]).
    V1,
}

impl EstimatorVersion {
    /// The version that new rollouts use.
    pub const LATEST: Self = Self::V1;
}

/// A range that holds the truth, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceInterval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl ConfidenceInterval {
    /// What both hold: a confidence sequence only shrinks. Two that hold nothing in common give the newer one's nearest
    /// point, which happens with probability `alpha` at most.
    #[must_use]
    pub fn within(self, older: Self) -> Self {
        let low = self.low.max(older.low).min(older.high);
        Self {
            low,
            high: self.high.min(older.high).max(low),
        }
    }

    /// Whether it holds `value`.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_of_being_wrong_is_between_its_ends() {
        for bad in [0.0, 1.0, -0.1, 2.0, f64::NAN, f64::INFINITY] {
            assert!(Alpha::new(bad).is_err(), "{bad}");
        }
        let alpha = Alpha::new(0.01).unwrap();
        assert_eq!(alpha.split(5).get(), 0.002);
        assert!((alpha.log_limit() - 100.0_f64.ln()).abs() < 1e-12);
        assert!(serde_json::from_str::<Alpha>("1.5").is_err());
    }

    #[test]
    fn a_sequence_only_shrinks() {
        let (old, new) = (
            ConfidenceInterval {
                low: 1.0,
                high: 3.0,
            },
            ConfidenceInterval {
                low: 0.5,
                high: 2.0,
            },
        );
        assert_eq!(
            new.within(old),
            ConfidenceInterval {
                low: 1.0,
                high: 2.0
            }
        );
        let apart = ConfidenceInterval {
            low: 4.0,
            high: 5.0,
        };
        assert_eq!(
            apart.within(old),
            ConfidenceInterval {
                low: 3.0,
                high: 3.0
            }
        );
    }
}
