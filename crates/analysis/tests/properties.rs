//! What holds for every sequence of observations.

mod common;

use std::time::Duration;

use common::{counts, judge, seen};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use shipway_analysis::{
    Judge, LatencyQuantiles, MeasurementPolicy, Metric, Observation, Sample, ThresholdLimit,
    threshold::{MeasurementState, MetricBound},
};

/// Values as sources give them: mostly sane, sometimes none, NaN or infinite.
fn value() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        6 => (0.0..2.0f64).prop_map(Some),
        1 => Just(None),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)].prop_map(Some),
    ]
}

fn sample() -> impl Strategy<Value = Option<Sample>> {
    let latency = (value(), value(), value());
    let sample = (
        0..60u64,
        0..3u64,
        proptest::option::of(latency),
        value(),
        value(),
        proptest::option::of(0..2u64),
    );
    proptest::option::weighted(
        0.9,
        sample.prop_map(
            |(requests, errors, latency, cpu, memory_bytes, restarts)| Sample {
                requests,
                errors: errors.min(requests),
                latency: latency.map(|(p50_ms, p90_ms, p99_ms)| LatencyQuantiles {
                    p50_ms,
                    p90_ms,
                    p99_ms,
                }),
                cpu,
                memory_bytes,
                restarts,
                ..Sample::default()
            },
        ),
    )
}

/// Observations 0 to 3 s apart whose counts grow.
fn observations() -> impl Strategy<Value = Vec<Observation>> {
    prop::collection::vec((0..3000i64, sample()), 1..40).prop_map(|steps| {
        let (mut at, mut requests, mut errors, mut restarts) = (0, 0, 0, 0);
        let grow = |(millis, sample): (i64, Option<Sample>)| {
            at += millis;
            let sample = sample.map(|sample| {
                requests += sample.requests;
                errors += sample.errors;
                restarts += sample.restarts.unwrap_or_default();
                Sample {
                    requests,
                    errors,
                    restarts: sample.restarts.map(|_| restarts),
                    ..sample
                }
            });
            seen(at, sample)
        };
        steps.into_iter().map(grow).collect()
    })
}

fn threshold() -> impl Strategy<Value = ThresholdLimit> {
    let bound = prop_oneof![
        (0.0..1.0f64).prop_map(MetricBound::Max),
        (0.0..1.0f64).prop_map(MetricBound::Min),
        (0.0..0.5f64, 0.5..1.0f64).prop_map(|(min, max)| MetricBound::Between { min, max }),
    ];
    let limits = (
        0..3u32,
        0..3u32,
        proptest::option::of(0..3u32),
        proptest::option::of(1..8u32),
    );
    (
        prop::sample::select(Metric::ALL.to_vec()),
        bound,
        limits,
        0..4000u64,
        0..150u64,
    )
        .prop_map(
            |(
                metric,
                bound,
                (failure_limit, consecutive_error_limit, inconclusive_limit, count),
                millis,
                min_requests,
            )| {
                ThresholdLimit {
                    counting: MeasurementPolicy {
                        interval: Duration::from_millis(millis),
                        count,
                        failure_limit,
                        consecutive_error_limit,
                        inconclusive_limit,
                        min_requests,
                        ..MeasurementPolicy::default()
                    },
                    ..ThresholdLimit::new(metric, bound).unwrap()
                }
            },
        )
}

fn through_the_log<T: Serialize + DeserializeOwned>(thing: &T) -> T {
    serde_json::from_str(&serde_json::to_string(thing).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resuming_at_every_tick_equals_no_interruption(threshold in threshold(), observations in observations()) {
        let (straight, said) = judge(&threshold, &observations);
        let mut state = MeasurementState::default();
        for (seen, judgement) in observations.iter().zip(&said) {
            state = through_the_log(&state);
            prop_assert_eq!(&threshold.observe(&mut state, &through_the_log(seen)), judgement);
        }
        prop_assert_eq!(state, straight);
    }

    #[test]
    fn ticks_that_come_twice_or_after_a_later_measurement_change_nothing(
        threshold in threshold(),
        observations in observations(),
        earlier in any::<prop::sample::Index>(),
    ) {
        // Without any interval two measurements may be taken at one moment, and a repeat is one.
        let mut threshold = threshold;
        threshold.counting.interval = threshold.counting.interval.max(Duration::from_millis(1));
        let mut state = MeasurementState::default();
        for (index, seen) in observations.iter().enumerate() {
            threshold.observe(&mut state, seen);
            let before = state.clone();
            threshold.observe(&mut state, seen);
            prop_assert_eq!(&before, &state, "a repeat");
            let late = &observations[earlier.index(index + 1)];
            if state.measured_at() == Some(seen.at) {
                threshold.observe(&mut state, late);
                prop_assert_eq!(&before, &state, "a late one");
            }
        }
    }

    #[test]
    fn without_one_finite_value_it_never_passes_and_never_fails(
        threshold in threshold(),
        millis in prop::collection::vec(0..3000i64, 1..40),
        nothing in prop::sample::select(vec![None, Some(f64::NAN), Some(f64::INFINITY)]),
    ) {
        prop_assume!(matches!(
            threshold.metric,
            Metric::Cpu | Metric::Memory | Metric::LatencyP50 | Metric::LatencyP90 | Metric::LatencyP99
        ));
        let latency = LatencyQuantiles { p50_ms: nothing, p90_ms: nothing, p99_ms: nothing };
        let mut at = 0;
        let observations: Vec<_> = (0..).zip(millis).map(|(index, millis)| {
            at += millis;
            let sample = Sample { latency: Some(latency), cpu: nothing, memory_bytes: nothing, ..counts(index * 50, 0) };
            seen(at, Some(sample))
        }).collect();
        for judgement in judge(&threshold, &observations).1 {
            prop_assert!(!judgement.verdict.is_pass() && !judgement.verdict.is_fail(), "{judgement:?}");
        }
    }

    #[test]
    fn a_service_without_errors_never_fails_by_its_error_rate(
        threshold in threshold(),
        max in 0.0..1.0f64,
        steps in prop::collection::vec((0..3000i64, 0..500u64), 1..40),
    ) {
        let threshold = ThresholdLimit { metric: Metric::ErrorRate, bound: MetricBound::Max(max), ..threshold };
        let (mut at, mut requests) = (0, 0);
        let observations: Vec<_> = steps.into_iter().map(|(millis, more)| {
            (at, requests) = (at + millis, requests + more);
            seen(at, Some(counts(requests, 0)))
        }).collect();
        for (judgement, seen) in judge(&threshold, &observations).1.iter().zip(&observations) {
            prop_assert!(!judgement.verdict.is_fail());
            let requests = seen.canary.sample.as_ref().unwrap().requests;
            let first = observations[0].canary.sample.as_ref().unwrap().requests;
            prop_assert!(!judgement.verdict.is_pass() || requests - first >= threshold.counting.min_requests.max(1));
        }
    }

    #[test]
    fn a_hold_over_its_limit_never_passes_and_fails_when_nothing_is_forgiven(
        max in 0.0..0.5f64,
        steps in prop::collection::vec((1..3000i64, 100..500u64, 0..100u64), 1..30),
    ) {
        let mut threshold = ThresholdLimit::new(Metric::ErrorRate, MetricBound::Max(max)).unwrap();
        threshold.counting.interval = Duration::ZERO;
        let (mut at, mut requests, mut errors) = (0, 0, 0);
        let mut observations = vec![seen(0, Some(counts(0, 0)))];
        for (millis, more, bad) in steps {
            (at, requests, errors) = (at + millis, requests + more, errors + bad);
            observations.push(seen(at, Some(counts(requests, errors))));
        }
        let judgement = judge(&threshold, &observations).1.pop().unwrap();
        if errors as f64 / requests as f64 > max {
            prop_assert!(judgement.verdict.is_fail(), "{judgement:?}");
        }
    }

    #[test]
    fn what_is_settled_stays(threshold in threshold(), observations in observations()) {
        let said = judge(&threshold, &observations).1;
        if let Some(settled) = said.iter().position(|judgement| judgement.is_final()) {
            prop_assert!(said[settled..].iter().all(|judgement| judgement == &said[settled]));
        }
        prop_assert!(said.iter().all(|judgement| judgement.is_final() || !judgement.verdict.is_fail()));
    }

    #[test]
    fn values_read_in_any_unit_are_shown_without_panicking(metric in prop::sample::select(Metric::ALL.to_vec()), text in ".{0,12}") {
        if let Ok(value) = metric.parse_value(&text) {
            prop_assert!(value.is_finite() && value >= 0.0);
            prop_assert!(!metric.show(value).is_empty());
        }
    }
}
