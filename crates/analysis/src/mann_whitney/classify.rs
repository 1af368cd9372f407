//! One metric's windows, classified as Kayenta's `MannWhitneyClassifier` does: high, low, or neither.

use serde::{Deserialize, Serialize};

use super::value_shift::shift;

/// The share of the estimated shift by which the range must clear zero.
const TOLERANCE: f64 = 0.25;
/// The normal quantile of Kayenta's 98% confidence.
const Z: f64 = 2.326_347_874_040_841;
/// What lies further outside the quartiles than so many times their distance is an outlier.
const OUTLIER_FACTOR: f64 = 3.0;

/// Which way is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviationDirection {
    /// More.
    Increase,
    /// Less.
    Decrease,
    /// Any change.
    #[default]
    Either,
}

/// What a window without a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingValues {
    /// Left out.
    #[default]
    Remove,
    /// A zero: nothing happened.
    Replace,
}

/// By how many times stable's mean the canary's must differ to count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectSize {
    /// At least so many times as much.
    pub increase: f64,
    /// At most so many times as much.
    pub decrease: f64,
}

impl Default for EffectSize {
    /// Any.
    fn default() -> Self {
        Self {
            increase: 1.0,
            decrease: 1.0,
        }
    }
}

/// Where the canary stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricClass {
    /// No worse.
    Pass,
    /// Worse: too high.
    High,
    /// Worse: too low.
    Low,
    /// Nothing to compare.
    NoData,
}

/// A class, and how many times stable's mean the canary's is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricClassification {
    /// Where the canary stands.
    pub class: MetricClass,
    /// `mean(canary) / mean(stable)`; 1 where stable's is zero.
    pub ratio: f64,
}

/// Classifies the windows of both sides; `None` is a window without a value.
#[must_use]
pub fn classify(
    canary: &[Option<f64>],
    stable: &[Option<f64>],
    way: DeviationDirection,
    missing: MissingValues,
    effect: EffectSize,
) -> MetricClassification {
    let (canary, stable) = (prepared(canary, missing), prepared(stable, missing));
    let as_it_is = |class| MetricClassification { class, ratio: 1.0 };
    if canary.is_empty() || stable.is_empty() {
        return as_it_is(match missing {
            MissingValues::Remove => MetricClass::NoData,
            MissingValues::Replace => MetricClass::Pass,
        });
    }
    if canary == stable {
        return as_it_is(MetricClass::Pass);
    }
    let found = shift(&canary, &stable, Z);
    let critical = TOLERANCE * found.estimate.abs();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let ratio = match mean(&stable) {
        0.0 => 1.0,
        of_stable => mean(&canary) / of_stable,
    };
    let is_high =
        way != DeviationDirection::Decrease && found.low > critical && ratio >= effect.increase;
    let is_low =
        way != DeviationDirection::Increase && found.high < -critical && ratio <= effect.decrease;
    let class = match (is_high, is_low) {
        (true, _) => MetricClass::High,
        (false, true) => MetricClass::Low,
        (false, false) => MetricClass::Pass,
    };
    MetricClassification { class, ratio }
}

/// Without windows that have no value, and without outliers; in rising order.
fn prepared(values: &[Option<f64>], missing: MissingValues) -> Vec<f64> {
    let known = values
        .iter()
        .map(|value| value.filter(|value| value.is_finite()));
    let mut values: Vec<f64> = match missing {
        MissingValues::Remove => known.flatten().collect(),
        MissingValues::Replace => known.map(Option::unwrap_or_default).collect(),
    };
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        return values;
    }
    let (first, third) = (percentile(&values, 0.25), percentile(&values, 0.75));
    let reach = OUTLIER_FACTOR * (third - first);
    // At most the outermost hundredths are outliers.
    let low = (first - reach).min(percentile(&values, 0.01));
    let high = (third + reach).max(percentile(&values, 0.99));
    values.retain(|value| (low..=high).contains(value));
    values
}

/// By linear interpolation (R's type 7); of sorted values, one at least.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = libm::floor(place);
    let at = |place: f64| sorted[(place as usize).min(sorted.len() - 1)];
    at(below) + (place - below) * (at(below + 1.0) - at(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    fn class(canary: &[f64], stable: &[f64], way: DeviationDirection) -> MetricClass {
        let effect = EffectSize::default();
        classify(
            &windows(canary),
            &windows(stable),
            way,
            MissingValues::Remove,
            effect,
        )
        .class
    }

    /// The data of Kayenta's own tests of its judge.
    const STABLE: [f64; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

    #[test]
    fn a_shift_is_high_or_low_as_its_direction_is_asked_for() {
        let (high, low) = (STABLE.map(|it| it + 20.0), STABLE.map(|it| it - 20.0));
        assert_eq!(
            class(&high, &STABLE, DeviationDirection::Either),
            MetricClass::High
        );
        assert_eq!(
            class(&high, &STABLE, DeviationDirection::Increase),
            MetricClass::High
        );
        assert_eq!(
            class(&high, &STABLE, DeviationDirection::Decrease),
            MetricClass::Pass
        );
        assert_eq!(
            class(&low, &STABLE, DeviationDirection::Either),
            MetricClass::Low
        );
        assert_eq!(
            class(&low, &STABLE, DeviationDirection::Increase),
            MetricClass::Pass
        );
        let near = STABLE.map(|it| it + 0.5);
        assert_eq!(
            class(&near, &STABLE, DeviationDirection::Either),
            MetricClass::Pass
        );
        assert_eq!(
            class(&STABLE, &STABLE, DeviationDirection::Either),
            MetricClass::Pass
        );
    }

    #[test]
    fn windows_without_values_are_left_out_or_zeros() {
        let none = [None, Some(f64::NAN), Some(f64::INFINITY)];
        let effect = EffectSize::default();
        let stable = windows(&STABLE.map(|it| it + 10.0));
        let missing =
            |missing| classify(&none, &stable, DeviationDirection::Either, missing, effect).class;
        assert_eq!(missing(MissingValues::Remove), MetricClass::NoData);
        assert_eq!(
            missing(MissingValues::Replace),
            MetricClass::Low,
            "three zeros"
        );
    }

    #[test]
    fn a_small_effect_is_none_when_a_larger_one_is_asked_for() {
        let high = STABLE.map(|it| it + 20.0);
        let asked = |increase| {
            let effect = EffectSize {
                increase,
                decrease: 1.0,
            };
            classify(
                &windows(&high),
                &windows(&STABLE),
                DeviationDirection::Increase,
                MissingValues::Remove,
                effect,
            )
        };
        assert_eq!(asked(5.0).class, MetricClass::High);
        assert_eq!(asked(6.0).class, MetricClass::Pass);
        assert!((asked(6.0).ratio - 24.5 / 4.5).abs() < 1e-12);
    }

    #[test]
    fn one_window_far_out_does_not_decide() {
        let mut out = vec![10.0; 50];
        out.extend([10.1, 9.9, 10.2, 5_000.0]);
        assert!(!prepared(&windows(&out), MissingValues::Remove).contains(&5_000.0));
    }
}
