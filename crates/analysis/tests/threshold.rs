//! The threshold judge, one rule at a time.

mod common;

use std::time::Duration;

use common::{counts, judge, seen};
use shipway_analysis::{
    Analysis, Finality, Judgement, LatencyQuantiles, MeasurementPolicy, Metric, Observation,
    Sample, ThresholdLimit, Verdict,
    threshold::{InvalidThreshold, MetricBound},
};

fn each_second() -> MeasurementPolicy {
    MeasurementPolicy {
        interval: Duration::from_secs(1),
        ..MeasurementPolicy::default()
    }
}

fn limit(metric: Metric, bound: MetricBound) -> ThresholdLimit {
    ThresholdLimit {
        counting: each_second(),
        ..ThresholdLimit::new(metric, bound).unwrap()
    }
}

fn error_rate() -> ThresholdLimit {
    limit(Metric::ErrorRate, MetricBound::Max(0.02))
}

fn cpu() -> ThresholdLimit {
    limit(Metric::Cpu, MetricBound::Max(0.8))
}

/// Seconds since the hold began with requests and errors since then.
fn ticks(counted: &[(i64, u64, u64)]) -> Vec<Observation> {
    counted
        .iter()
        .map(|&(second, requests, errors)| seen(second * 1000, Some(counts(requests, errors))))
        .collect()
}

fn gauges(values: &[Option<f64>]) -> Vec<Observation> {
    let sample = |cpu| Sample {
        cpu,
        ..Sample::default()
    };
    (0..)
        .zip(values)
        .map(|(second, &cpu)| seen(second * 1000, Some(sample(cpu))))
        .collect()
}

fn last(threshold: &ThresholdLimit, observations: &[Observation]) -> Judgement {
    judge(threshold, observations).1.pop().unwrap()
}

#[test]
fn an_error_rate_over_its_limit_fails_with_a_sentence() {
    let judgement = last(&error_rate(), &ticks(&[(0, 0, 0), (4, 1240, 64)]));
    assert_eq!(judgement.finality, Finality::Settled);
    assert_eq!(
        judgement.verdict.to_string(),
        "fail: error rate of #3 is over the limit: 5.2% (64 of 1,240 requests), limit 2%; stable #2: 0%"
    );
}

#[test]
fn a_rate_on_the_limit_is_within_it() {
    let judgement = last(&error_rate(), &ticks(&[(0, 0, 0), (1, 100, 2)]));
    assert_eq!(
        judgement.verdict.to_string(),
        "pass: error rate of #3 is within the limit: 2% (2 of 100 requests), limit 2%; stable #2: 0%"
    );
    assert_eq!(
        judgement.finality,
        Finality::Open,
        "the hold goes on, and so does measuring"
    );
}

#[test]
fn too_few_requests_are_no_data_and_say_how_many_are_missing() {
    let judgement = last(&error_rate(), &ticks(&[(0, 5000, 80), (30, 5012, 81)]));
    assert_eq!(
        judgement.verdict.to_string(),
        "no data: too little traffic to judge the error rate of #3: 12 of the 100 requests needed"
    );
    assert_eq!(judgement.finality, Finality::Open);
}

#[test]
fn what_happened_before_the_hold_counts_for_nothing() {
    assert!(
        last(&error_rate(), &ticks(&[(0, 5000, 4000), (1, 5100, 4001)]))
            .verdict
            .is_pass()
    );
}

#[test]
fn it_fails_as_soon_as_the_missing_requests_could_not_save_it() {
    let (_, said) = judge(&error_rate(), &ticks(&[(0, 0, 0), (1, 2, 2), (2, 3, 3)]));
    assert!(
        !said[1].verdict.is_fail(),
        "98 good requests would bring it to 2%"
    );
    assert!(said[2].verdict.is_fail(), "97 good requests could not");
}

#[test]
fn a_late_regression_is_not_drowned_by_the_good_minutes_before_it() {
    let judgement = last(
        &error_rate(),
        &ticks(&[(0, 0, 0), (240, 100_000, 0), (241, 100_400, 20)]),
    );
    assert_eq!(
        judgement.verdict.to_string(),
        "fail: error rate of #3 is over the limit: 5% (20 of 400 requests in the last 1 s), limit 2%; stable #2: 0%"
    );
}

#[test]
fn forgiven_failures_do_not_pass_while_the_hold_as_a_whole_is_over_the_limit() {
    let forgiving = ThresholdLimit {
        counting: MeasurementPolicy {
            failure_limit: 3,
            ..each_second()
        },
        ..error_rate()
    };
    let (_, said) = judge(
        &forgiving,
        &ticks(&[
            (0, 0, 0),
            (1, 100, 10),
            (2, 200, 20),
            (3, 300, 20),
            (4, 1100, 20),
        ]),
    );
    assert!(
        said[1]
            .verdict
            .why()
            .ends_with("no successful measurement yet"),
        "{:?}",
        said[1]
    );
    assert!(
        matches!(said[3].verdict, Verdict::Inconclusive { .. }),
        "{:?}",
        said[3]
    );
    assert!(
        said[3]
            .verdict
            .why()
            .starts_with("error rate of #3 is over the limit: 6.7%"),
        "{:?}",
        said[3]
    );
    assert!(said[4].verdict.is_pass(), "20 of 1,100: {:?}", said[4]);
}

#[test]
fn more_failures_than_the_limit_forgives_fail() {
    let forgiving = ThresholdLimit {
        counting: MeasurementPolicy {
            failure_limit: 2,
            ..each_second()
        },
        ..cpu()
    };
    let (state, said) = judge(
        &forgiving,
        &gauges(&[Some(0.9), Some(0.5), Some(0.9), Some(0.95)]),
    );
    assert!(
        said[2].verdict.is_pass(),
        "two failures are forgiven: {:?}",
        said[2]
    );
    assert_eq!(
        said[3].verdict.to_string(),
        "fail: CPU use of #3 is over the limit: 95%, limit 80% (3 failed measurements, 2 allowed)"
    );
    assert_eq!(
        (
            state.tally().count,
            state.tally().failed,
            state.tally().successful
        ),
        (4, 3, 1)
    );
}

#[test]
fn nan_and_infinity_neither_pass_nor_fail() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (state, said) = judge(&cpu(), &gauges(&[Some(0.5), Some(odd), Some(0.5)]));
        assert!(
            matches!(said[1].verdict, Verdict::Inconclusive { .. }),
            "{odd}: {:?}",
            said[1]
        );
        assert!(
            said[2].verdict.is_pass(),
            "a good measurement later counts again"
        );
        assert_eq!((state.tally().count, state.tally().inconclusive), (3, 1));
    }
}

#[test]
fn more_inconclusive_measurements_than_the_limit_forgives_stay_inconclusive() {
    let as_argo = ThresholdLimit {
        counting: MeasurementPolicy {
            inconclusive_limit: Some(0),
            ..each_second()
        },
        ..cpu()
    };
    let (_, said) = judge(&as_argo, &gauges(&[Some(f64::NAN), Some(0.5)]));
    assert!(matches!(said[1].verdict, Verdict::Inconclusive { .. }));
    assert_eq!(said[1].finality, Finality::Settled);
}

#[test]
fn errors_in_a_row_settle_it_but_a_value_between_them_starts_the_row_anew() {
    let row = [
        None,
        None,
        None,
        None,
        Some(0.5),
        None,
        None,
        None,
        None,
        None,
    ];
    let (state, said) = judge(&cpu(), &gauges(&row));
    assert_eq!(
        said[8].finality,
        Finality::Open,
        "four in a row twice: {:?}",
        said[8]
    );
    assert_eq!(
        said[9].verdict.to_string(),
        "inconclusive: CPU use of #3 can't be judged: the target reports no CPU use (5 measurements without data in a row, 4 allowed)"
    );
    assert_eq!(said[9].finality, Finality::Settled);
    assert_eq!(
        (state.tally().count, state.tally().error),
        (1, 9),
        "errors are not counted towards `count`"
    );
}

#[test]
fn a_source_that_cannot_be_read_is_an_error_and_loses_no_count() {
    let mut observations = ticks(&[(0, 0, 0), (1, 60, 0), (3, 400, 20)]);
    observations.insert(2, seen(2000, None));
    let (state, said) = judge(&error_rate(), &observations);
    assert!(
        said[2]
            .verdict
            .why()
            .ends_with("the source could not be read"),
        "{:?}",
        said[2]
    );
    assert!(
        said[3].verdict.is_fail() && said[3].verdict.why().contains("400 requests"),
        "{:?}",
        said[3]
    );
    assert_eq!(state.tally().error, 1);
}

#[test]
fn count_ends_it_as_argo_does_unless_nothing_was_successful() {
    let thrice = ThresholdLimit {
        counting: MeasurementPolicy {
            count: Some(3),
            failure_limit: 1,
            ..each_second()
        },
        ..cpu()
    };
    let (_, said) = judge(
        &thrice,
        &gauges(&[Some(0.9), Some(0.5), Some(f64::NAN), Some(0.99)]),
    );
    assert_eq!(said[1].finality, Finality::Open);
    assert!(
        said[2].verdict.is_pass() && said[2].is_final(),
        "{:?}",
        said[2]
    );
    assert_eq!(
        said[3], said[2],
        "nothing after the last measurement changes it"
    );

    let dark = judge(&thrice, &gauges(&[Some(f64::NAN); 3]))
        .1
        .pop()
        .unwrap();
    assert!(
        matches!(dark.verdict, Verdict::Inconclusive { .. }) && dark.is_final(),
        "{dark:?}"
    );
}

#[test]
fn measurements_are_an_interval_apart() {
    let slow = ThresholdLimit {
        counting: MeasurementPolicy {
            interval: Duration::from_secs(10),
            failure_limit: 1,
            ..each_second()
        },
        ..cpu()
    };
    let (state, said) = judge(&slow, &gauges(&[Some(0.9); 11]));
    assert!(!said[9].verdict.is_fail() && said[10].verdict.is_fail());
    assert_eq!(state.tally().count, 2);
}

#[test]
fn a_reading_that_comes_some_milliseconds_early_does_not_make_intervals_longer() {
    let once = ThresholdLimit {
        counting: MeasurementPolicy {
            interval: Duration::from_secs(1),
            failure_limit: u32::MAX,
            ..each_second()
        },
        ..cpu()
    };
    let jittery = gauges(&[Some(0.9); 20]).into_iter().enumerate();
    let jittery: Vec<Observation> = jittery
        .map(|(index, mut seen)| {
            let millis = if index % 2 == 0 { 40 } else { 0 };
            seen.at += jiff::SignedDuration::from_millis(millis);
            seen
        })
        .collect();
    let (state, _) = judge(&once, &jittery);
    assert_eq!(state.tally().count, 20, "one in each second");
    let slow = ThresholdLimit {
        counting: MeasurementPolicy {
            interval: Duration::from_secs(60),
            ..once.counting.clone()
        },
        ..cpu()
    };
    let (state, _) = judge(&slow, &gauges(&[Some(0.9); 60]));
    assert_eq!(state.tally().count, 1, "but never by a whole reading early");
}

#[test]
fn without_a_minimum_no_traffic_is_a_measurement_that_says_nothing() {
    let unguarded = ThresholdLimit {
        counting: MeasurementPolicy {
            min_requests: 0,
            inconclusive_limit: Some(5),
            ..each_second()
        },
        ..error_rate()
    };
    let (state, said) = judge(&unguarded, &ticks(&[(0, 7, 7), (5, 7, 7)]));
    assert_eq!(
        said[1].verdict.to_string(),
        "no data: error rate of #3 can't be judged: no requests in the last 5 s"
    );
    assert_eq!(state.tally().inconclusive, 2);
}

#[test]
fn latencies_are_judged_once_enough_requests_came() {
    let p99 = limit(Metric::LatencyP99, MetricBound::Max(500.0));
    let slow = |requests| {
        let latency = LatencyQuantiles {
            p50_ms: Some(4.0),
            p90_ms: Some(40.0),
            p99_ms: Some(812.4),
        };
        Sample {
            latency: Some(latency),
            ..counts(requests, 0)
        }
    };
    let observations = [
        seen(0, Some(slow(0))),
        seen(1000, Some(slow(99))),
        seen(2000, Some(slow(240))),
    ];
    let (_, said) = judge(&p99, &observations);
    assert_eq!(
        said[1].verdict.why(),
        "too little traffic to judge the latency p99 of #3: 99 of the 100 requests needed"
    );
    assert_eq!(
        said[2].verdict.to_string(),
        "fail: latency p99 of #3 is over the limit: 812 ms (240 requests), limit 500 ms"
    );
    let p50 = ThresholdLimit {
        metric: Metric::LatencyP50,
        ..p99
    };
    assert!(last(&p50, &observations).verdict.is_pass());
}

#[test]
fn a_lost_flow_of_requests_is_found_by_a_minimum() {
    let flow = ThresholdLimit {
        counting: MeasurementPolicy {
            interval: Duration::from_secs(10),
            ..MeasurementPolicy::default()
        },
        ..ThresholdLimit::new(Metric::Requests, MetricBound::Min(5.0)).unwrap()
    };
    let (_, said) = judge(
        &flow,
        &ticks(&[(0, 100, 0), (5, 101, 0), (10, 200, 0), (20, 220, 0)]),
    );
    assert!(
        matches!(said[1].verdict, Verdict::Inconclusive { .. }),
        "no interval has passed: {:?}",
        said[1]
    );
    assert_eq!(
        said[2].verdict.to_string(),
        "pass: request rate of #3 is above the minimum: 10/s, minimum 5/s; stable #2: 10,000/s"
    );
    assert!(said[3].verdict.is_fail(), "{:?}", said[3]);
}

#[test]
fn restarts_are_counted_from_the_beginning_of_the_hold() {
    let none = limit(Metric::Restarts, MetricBound::Max(0.0));
    let restarts = |number| {
        Some(Sample {
            restarts: number,
            ..Sample::default()
        })
    };
    let observations = [
        seen(0, restarts(Some(4))),
        seen(1000, restarts(Some(4))),
        seen(2000, restarts(None)),
        seen(3000, restarts(Some(5))),
    ];
    let (_, said) = judge(&none, &observations);
    assert!(said[1].verdict.is_pass());
    assert!(matches!(said[2].verdict, Verdict::Inconclusive { .. }));
    assert_eq!(
        said[3].verdict.to_string(),
        "fail: restart count of #3 is over the limit: 1, limit 0; stable #2: 0"
    );
}

#[test]
fn a_counter_that_was_restarted_starts_again_from_zero() {
    let judgement = last(
        &error_rate(),
        &ticks(&[(0, 900, 0), (1, 1000, 0), (2, 50, 0), (3, 120, 1)]),
    );
    assert_eq!(
        judgement.verdict.to_string(),
        "pass: error rate of #3 is within the limit: 0.45% (1 of 220 requests), limit 2%; stable #2: 0%"
    );
}

#[test]
fn limits_that_cannot_hold_are_refused() {
    for bound in [
        MetricBound::Max(f64::NAN),
        MetricBound::Min(-1.0),
        MetricBound::Max(f64::INFINITY),
    ] {
        assert!(matches!(
            ThresholdLimit::new(Metric::Cpu, bound),
            Err(InvalidThreshold::NoValue { .. })
        ));
    }
    let crossed =
        ThresholdLimit::new(Metric::Cpu, MetricBound::Between { min: 0.8, max: 0.2 }).unwrap_err();
    assert_eq!(
        crossed.to_string(),
        "the limits of cpu leave nothing between them: min 80% is above max 20%"
    );
}

#[test]
fn an_analysis_fails_by_its_worst_metric() {
    let analysis = Analysis::new(vec![error_rate(), cpu()]);
    let mut state = analysis.initial_state();
    let hot = |millis, requests| {
        seen(
            millis,
            Some(Sample {
                cpu: Some(0.95),
                ..counts(requests, 0)
            }),
        )
    };
    let judgement = analysis.observe(&mut state, &hot(0, 0));
    assert_eq!(
        judgement.verdict.to_string(),
        "fail: CPU use of #3 is over the limit: 95%, limit 80%"
    );
    assert!(
        judgement.is_final(),
        "though the error rate is not known yet"
    );
    assert!(
        !Analysis::default()
            .observe(&mut state, &hot(1000, 500))
            .verdict
            .is_pass(),
        "nobody looked"
    );
}
