//! Comparison of values by the mean of paired differences: values of the same instant are subtracted, so effects on both sides, such
//! as changes of the traffic, cancel out.
//!
//! A stable that has lost its traffic has no values of the same instants, but those it had before: then each mean has a range of
//! its own, half of what may be wrong for each, and the canary is worse where the ranges are apart.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ComparisonResult, ObservedPair, SequentialComparison, confidence, describe_comparison, doubt,
    values_needed,
};
use crate::{
    Metric, Sample,
    evidence::{
        Alpha,
        mean::{VALUES_MIN, ValueMoments, ValueSeries, sequence},
    },
    measurement_policy::is_over,
    metric::{grouped, pluralized},
};

/// The number of values at which the sequence is tightest: a few minutes of them.
const TIGHTEST_AT: f64 = 60.0;

/// The values since the hold began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ValueState {
    canary: ValueMoments,
    stable: ValueMoments,
    /// `more − margin · less` of each pair; a positive mean is worse.
    beyond_margin: ValueSeries,
    /// `more − tolerance · less` of each pair; a negative mean is no worse.
    beyond_tolerance: ValueSeries,
    /// How often the values of each side changed.
    moves: ChangeCounts,
    /// The requests that each side had answered when the hold began.
    requests: Option<(u64, u64)>,
    /// The canary's, where stable's are of another time.
    #[serde(default, skip_serializing_if = "is_new")]
    alone: ValueSeries,
    /// The moment of the last values.
    at: Option<Timestamp>,
}

/// How often the values of each side changed, and how often those of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ChangeCounts {
    last: Option<(f64, f64)>,
    canary: u64,
    stable: u64,
    either: u64,
}

impl ChangeCounts {
    fn add(&mut self, canary: f64, stable: f64) {
        if let Some((canary_last, stable_last)) = self.last.replace((canary, stable)) {
            let moved = (canary != canary_last, stable != stable_last);
            self.canary += u64::from(moved.0);
            self.stable += u64::from(moved.1);
            self.either += u64::from(moved.0 || moved.1);
        }
    }
}

/// The share of the changes that a side didn't follow.
fn stillness(moves: u64, of: u64) -> f64 {
    if moves < of {
        1.0 - moves as f64 / of as f64
    } else {
        0.0
    }
}

fn is_new(series: &ValueSeries) -> bool {
    series.moments().count() == 0
}

impl ValueState {
    pub(super) fn is_new(&self) -> bool {
        self.at.is_none()
    }

    pub(super) fn skip_to(&mut self, judge: &SequentialComparison, seen: &ObservedPair<'_>) {
        self.at = Some(moment(judge, seen).unwrap_or(seen.at));
    }

    /// Whether values of this moment are new: what a provider says is when it says it, others have a pace.
    fn is_due(&self, judge: &SequentialComparison, at: Timestamp) -> bool {
        self.at.is_none_or(|last| match judge.metric {
            Metric::Value(_) => at > last,
            _ => is_over(judge.interval, last, at),
        })
    }

    fn take_in(&mut self, judge: &SequentialComparison, canary: f64, stable: f64) {
        let (more, less) = judge.direction.order(canary, stable);
        let beyond = |times: f64| more - times * less;
        let (margin, tolerance) = (beyond(judge.test.margin()), beyond(judge.test.tolerance()));
        if margin.is_finite() && tolerance.is_finite() {
            self.moves.add(canary, stable);
            self.canary.add(canary);
            self.stable.add(stable);
            self.beyond_margin.add(margin);
            self.beyond_tolerance.add(tolerance);
        }
    }

    /// How many times the variance that is seen is there unseen. What a provider says is often a quotient of counts, and of few
    /// requests it stays constant, mostly at zero, until a rare event happens: the variance seen is then the other side's, and its
    /// own is as many times larger as it has fewer requests.
    fn unseen(&self, judge: &SequentialComparison, seen: &ObservedPair<'_>) -> f64 {
        let (Metric::Value(_), Some(began)) = (judge.metric, self.requests) else {
            return 0.0;
        };
        let since = |sample: &Sample, began| {
            let new = sample.requests.checked_sub(began);
            new.unwrap_or(sample.requests).max(1) as f64
        };
        let (canary, stable) = (since(seen.canary, began.0), since(seen.stable, began.1));
        let moves = &self.moves;
        stillness(moves.canary, moves.either) * stable / canary
            + stillness(moves.stable, moves.either) * canary / stable
    }
}

/// The moment that both values are of; `None` where the two sides were not asked about the same.
fn moment(judge: &SequentialComparison, seen: &ObservedPair<'_>) -> Option<Timestamp> {
    let Metric::Value(name) = judge.metric else {
        return Some(seen.at);
    };
    let (canary, stable) = (seen.canary.answer(name)?, seen.stable.answer(name)?);
    (canary.at == stable.at).then_some(canary.at)
}

/// Why an observation has no values to compare.
#[derive(Debug, thiserror::Error)]
enum UnknownValues {
    #[error("the source reported a value that is not a number")]
    NotFinite,
    #[error("the values of the two releases are from different times")]
    DifferentTimes,
    #[error("{0}")]
    Canary(String),
    #[error("{release}: {why}")]
    Stable { release: String, why: String },
}

/// The values of canary and stable, and the moment that both are of.
fn paired_values(
    judge: &SequentialComparison,
    seen: &ObservedPair<'_>,
) -> Result<((f64, f64), Timestamp), UnknownValues> {
    let canary = seen.canary.value(judge.metric);
    let canary = canary.map_err(|why| UnknownValues::Canary(why.to_owned()))?;
    let stable = seen.stable.value(judge.metric);
    let stable = stable.map_err(|why| UnknownValues::Stable {
        release: seen.names.1.to_owned(),
        why: why.to_owned(),
    })?;
    if !canary.is_finite() || !stable.is_finite() {
        return Err(UnknownValues::NotFinite);
    }
    let at = moment(judge, seen).ok_or(UnknownValues::DifferentTimes)?;
    Ok(((canary, stable), at))
}

/// The canary's value and its moment, where stable has no value of the same moment.
fn canary_value(
    judge: &SequentialComparison,
    seen: &ObservedPair<'_>,
) -> Result<(f64, Timestamp), UnknownValues> {
    let canary = seen.canary.value(judge.metric);
    let canary = canary.map_err(|why| UnknownValues::Canary(why.to_owned()))?;
    if !canary.is_finite() {
        return Err(UnknownValues::NotFinite);
    }
    let at = match judge.metric {
        Metric::Value(name) => seen.canary.answer(name).map_or(seen.at, |answer| answer.at),
        _ => seen.at,
    };
    Ok((canary, at))
}

/// Records an observation and compares the means.
pub(super) fn judge(
    judge: &SequentialComparison,
    state: &mut super::SequentialState,
    seen: &ObservedPair<'_>,
) -> ComparisonResult {
    if let Some(before) = seen.stable.before(judge.metric) {
        return against_before(judge, state, seen, before);
    }
    let ((canary, stable), at) = match paired_values(judge, seen) {
        Ok(values) => values,
        Err(unknown) => return ComparisonResult::Unknown(unknown.to_string()),
    };
    let of = &mut state.value;
    of.requests
        .get_or_insert((seen.canary.requests, seen.stable.requests));
    if of.is_due(judge, at) {
        of.take_in(judge, canary, stable);
        of.at = Some(at);
    }
    let count = of.canary.count();
    if count < VALUES_MIN {
        return ComparisonResult::Unknown(values_needed(count, VALUES_MIN));
    }
    let means = (of.canary.mean(), of.stable.mean());
    let explain = |relation: &str| explain_means(judge, seen, relation, means, count);
    let alpha = judge.hold_alpha(state.holds);
    let unseen = of.unseen(judge, seen);
    let range = |series: &ValueSeries, alpha| {
        let unseen = unseen * series.uncertainty();
        sequence(series, unseen, alpha, TIGHTEST_AT, judge.estimator)
    };
    let worse = range(&of.beyond_margin, alpha);
    if let Some(worse) = worse.filter(|range| range.low > 0.0) {
        let (more, less) = judge.direction.order(seen.names.0, seen.names.1);
        let times = match judge.test.margin() {
            1.0 => String::new(),
            margin => format!("{margin} times "),
        };
        return ComparisonResult::Worse(format!(
            "{}; {more} exceeds {times}{less} by at least {}, certainty {}",
            explain("is worse than"),
            judge.metric.show(worse.low),
            confidence(alpha)
        ));
    }
    let doubted = range(&of.beyond_margin, doubt());
    if doubted.is_some_and(|range| range.low > 0.0) {
        let (certainty, threshold) = (confidence(doubt()), confidence(alpha));
        return ComparisonResult::Against(format!(
            "{}; certainty {certainty}, threshold {threshold}",
            explain("may be worse than")
        ));
    }
    let tolerated = range(&of.beyond_tolerance, judge.beta);
    if tolerated.is_some_and(|range| range.high < 0.0) {
        let tolerance = judge.test.tolerance();
        return ComparisonResult::NoWorse(format!(
            "{}, within {tolerance} times {}",
            explain("is no worse than"),
            seen.names.1
        ));
    }
    ComparisonResult::Open(explain("is not shown to be worse than"))
}

/// `CPU use of #3 is worse than #2: 50% vs 30% (60 values)`
fn explain_means(
    judge: &SequentialComparison,
    seen: &ObservedPair<'_>,
    relation: &str,
    (canary, stable): (f64, f64),
    values: u64,
) -> String {
    let shown = (judge.metric.show(canary), judge.metric.show(stable));
    describe_comparison(judge, seen, relation, &shown, &pluralized(values, "value"))
}

/// The same against the values that stable had while it had traffic.
fn against_before(
    judge: &SequentialComparison,
    state: &mut super::SequentialState,
    seen: &ObservedPair<'_>,
    before: &ValueSeries,
) -> ComparisonResult {
    let (canary, at) = match canary_value(judge, seen) {
        Ok(value) => value,
        Err(unknown) => return ComparisonResult::Unknown(unknown.to_string()),
    };
    let of = &mut state.value;
    if of.is_due(judge, at) {
        of.alone.add(canary);
        of.at = Some(at);
    }
    let (now, then) = (of.alone.moments(), before.moments());
    if then.count() < VALUES_MIN {
        let values = values_needed(then.count(), VALUES_MIN);
        return ComparisonResult::Unknown(format!("{} had only {values}", seen.names.1));
    }
    // Stable gets no more values, so a comparison that is impossible now stays impossible.
    let Some(_) = sequence(before, 0.0, judge.beta, TIGHTEST_AT, judge.estimator) else {
        return ComparisonResult::Unknown(format!(
            "the {} values of {} are too strongly correlated to estimate their variance",
            grouped(&then.count().to_string()),
            seen.names.1
        ));
    };
    if now.count() < VALUES_MIN {
        return ComparisonResult::Unknown(values_needed(now.count(), VALUES_MIN));
    }
    let means = (now.mean(), then.mean());
    let explain = |relation: &str| explain_means(judge, seen, relation, means, now.count());
    // Where it stands still it may scatter as stable did, which had the same traffic.
    let then_moved = before.moves() as f64 / then.count() as f64;
    let still = stillness(of.alone.moves(), (then_moved * now.count() as f64) as u64);
    let unseen = still * before.uncertainty() * then.count() as f64 / now.count() as f64;
    let ranges = |alpha: Alpha| {
        let alpha = alpha.split(2);
        let canary = sequence(&of.alone, unseen, alpha, TIGHTEST_AT, judge.estimator)?;
        let stable = sequence(before, 0.0, alpha, TIGHTEST_AT, judge.estimator)?;
        Some(judge.direction.order(canary, stable))
    };
    let alpha = judge.hold_alpha(state.holds);
    let margin = judge.test.margin();
    if ranges(alpha).is_some_and(|(more, less)| more.low > margin * less.high) {
        return ComparisonResult::Worse(format!(
            "{}; certainty {}",
            explain("is worse than"),
            confidence(alpha)
        ));
    }
    if ranges(doubt()).is_some_and(|(more, less)| more.low > margin * less.high) {
        let (certainty, threshold) = (confidence(doubt()), confidence(alpha));
        return ComparisonResult::Against(format!(
            "{}; certainty {certainty}, threshold {threshold}",
            explain("may be worse than")
        ));
    }
    let tolerance = judge.test.tolerance();
    if ranges(judge.beta).is_some_and(|(more, less)| more.high < tolerance * less.low) {
        return ComparisonResult::NoWorse(format!(
            "{}, within {tolerance} times {}",
            explain("is no worse than"),
            seen.names.1
        ));
    }
    ComparisonResult::Open(explain("is not shown to be worse than"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Judge, Observation, ProviderAnswer, ReleaseSample, Verdict};

    fn orders() -> SequentialComparison {
        let alpha = Alpha::new(0.01).unwrap();
        let metric = Metric::Value("conversion".parse().unwrap());
        SequentialComparison {
            direction: super::super::WorseDirection::Decrease,
            ..SequentialComparison::new(metric, alpha, alpha, 1.0, 1.5).unwrap()
        }
    }

    fn hits(random: &mut fastrand::Rng, of: u64, rate: f64) -> f64 {
        (0..of).filter(|_| random.f64() < rate).count() as f64 / of as f64
    }

    /// What a hold of 300 seconds comes to in which each second the canary has so many requests, stable 200.
    fn held(seed: u64, requests: u64, rates: (f64, f64)) -> Verdict {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut state = super::super::SequentialState::default();
        let mut verdict = None;
        for second in 0..300 {
            let at = Timestamp::from_second(second).unwrap();
            let mut side = |release: &str, of: u64, rate| {
                let value = hits(&mut random, of, rate);
                let sample = Sample {
                    requests: of * second.unsigned_abs(),
                    answers: vec![ProviderAnswer::value(
                        "conversion".parse().unwrap(),
                        at,
                        value,
                    )],
                    ..Sample::default()
                };
                ReleaseSample {
                    release: release.to_owned(),
                    sample: Some(sample),
                }
            };
            let seen = Observation {
                at,
                canary: side("#2", requests, rates.0),
                stable: Some(side("#1", 200, rates.1)),
            };
            verdict = Some(orders().observe(&mut state, &seen).verdict);
        }
        verdict.unwrap()
    }

    #[test]
    fn of_few_requests_none_that_ordered_is_no_sign_and_of_many_it_is() {
        // 600 requests of the canary at most, 6 orders expected.
        let wrong = (0..200).filter(|seed| held(*seed, 2, (0.01, 0.01)).is_fail());
        assert!(wrong.count() <= 2);
        for seed in 0..20 {
            let none = held(seed, 50, (0.0, 0.01));
            assert!(none.is_fail(), "{none:?}");
        }
    }

    #[test]
    fn a_value_that_comes_some_milliseconds_early_is_taken_in() {
        let alpha = Alpha::new(0.01).unwrap();
        let judge = SequentialComparison {
            interval: std::time::Duration::from_secs(1),
            ..SequentialComparison::new(Metric::Cpu, alpha, alpha, 1.1, 1.5).unwrap()
        };
        let mut state = super::super::SequentialState::default();
        for second in 0..40 {
            let early = if second % 2 == 0 { 40 } else { 0 };
            let side = |release: &str| ReleaseSample {
                release: release.to_owned(),
                sample: Some(Sample {
                    cpu: Some(0.5),
                    ..Sample::default()
                }),
            };
            let seen = Observation {
                at: Timestamp::from_millisecond(second * 1_000 + early).unwrap(),
                canary: side("#2"),
                stable: Some(side("#1")),
            };
            judge.observe(&mut state, &seen);
        }
        assert_eq!(state.value.canary.count(), 40, "one in each second");
    }

    #[test]
    fn after_the_switch_a_value_that_stands_at_zero_is_not_certain() {
        use crate::BaselineSample;
        let name = "conversion".parse().unwrap();
        let mut wrong = 0;
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut before = ValueSeries::default();
            (0..900).for_each(|_| {
                before.add(hits(&mut random, 2, 0.01));
            });
            let mut state = super::super::SequentialState::default();
            let mut is_back = false;
            for second in 0..120 {
                let at = Timestamp::from_second(second).unwrap();
                let value = hits(&mut random, 2, 0.01);
                let stable = BaselineSample {
                    values: vec![(Metric::Value(name), before.clone())],
                    ..BaselineSample::default()
                };
                let seen = Observation {
                    at,
                    canary: ReleaseSample {
                        release: "#2".to_owned(),
                        sample: Some(Sample {
                            answers: vec![ProviderAnswer::value(name, at, value)],
                            ..Sample::default()
                        }),
                    },
                    stable: Some(ReleaseSample {
                        release: "#1".to_owned(),
                        sample: Some(Sample {
                            before: Some(stable),
                            ..Sample::default()
                        }),
                    }),
                };
                is_back |= orders().observe(&mut state, &seen).verdict.is_fail();
            }
            wrong += u32::from(is_back);
        }
        assert!(wrong <= 2, "{wrong} of 200");
    }
}
