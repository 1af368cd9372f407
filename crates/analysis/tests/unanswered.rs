//! Requests that have no answer: how judges count them, while they are open and once their clients have given up.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use shipway_analysis::{
    Analysis, AnalysisRule, Histogram, Judgement, LatencyQuantiles, Metric, Observation,
    ReleaseSample, Sample, SequentialComparison, SlowCount, ThresholdLimit, Verdict,
    evidence::Alpha, threshold::MetricBound,
};

/// A release that answers nothing: so many requests are open for so long, and so many were given up.
#[derive(Clone, Copy, Default)]
struct Hanging {
    overdue: u64,
    slow: u64,
    abandoned: u64,
}

const LIMIT: u64 = 500_000;

fn hanging(seen: Hanging) -> Sample {
    Sample {
        abandoned: seen.abandoned,
        overdue: seen.overdue,
        slow: vec![slow(seen.slow)],
        slow_unanswered: vec![slow(seen.slow)],
        latency: Some(LatencyQuantiles {
            p99_ms: Some(2_000.0),
            ..LatencyQuantiles::default()
        }),
        ..Sample::default()
    }
}

const fn slow(count: u64) -> SlowCount {
    SlowCount {
        over_micros: LIMIT,
        count,
    }
}

/// Stable answers so many, all well.
fn healthy(requests: u64) -> Sample {
    Sample {
        slow: vec![slow(0)],
        requests,
        ..Sample::default()
    }
}

fn observed(second: i64, canary: Sample, stable: Sample) -> Observation {
    let side = |release: &str, sample| ReleaseSample {
        release: release.to_owned(),
        sample: Some(sample),
    };
    Observation {
        at: jiff::Timestamp::from_second(second).unwrap(),
        canary: side("#3", canary),
        stable: Some(side("#2", stable)),
    }
}

fn compared(metric: Metric) -> AnalysisRule {
    let share = |value| Alpha::new(value).unwrap();
    let rule = SequentialComparison::new(metric, share(0.01), share(0.05), 1.0, 2.0);
    rule.unwrap().into()
}

fn limited(metric: Metric, max: f64) -> AnalysisRule {
    ThresholdLimit::new(metric, MetricBound::Max(max))
        .unwrap()
        .into()
}

/// What a rule says of a beginning, and of five seconds later.
fn judged(rule: AnalysisRule, canary: Sample, stable: Sample) -> Judgement {
    let analysis = Analysis::new(vec![rule]);
    let mut state = analysis.initial_state();
    let begun = observed(0, hanging(Hanging::default()), healthy(0));
    analysis.observe(&mut state, &begun);
    analysis.observe(&mut state, &observed(5, canary, stable))
}

fn assert_fails(judgement: &Judgement, says: &str) {
    let why = judgement.verdict.why();
    assert!(judgement.verdict.is_fail(), "{judgement:?}");
    assert!(why.contains(says), "{why}");
}

#[test]
fn a_release_that_answers_nothing_fails_by_each_rule_before_a_request_has_ended() {
    let open = hanging(Hanging {
        overdue: 6,
        slow: 8,
        abandoned: 0,
    });
    let slow_rate = Metric::SlowRate { over_micros: LIMIT };
    for (rule, says) in [
        (
            compared(Metric::ErrorRate),
            "(6 of 6 requests, 6 unanswered)",
        ),
        (
            limited(Metric::ErrorRate, 0.05),
            "(6 of 6 requests, 6 unanswered)",
        ),
        (compared(slow_rate), "#3 is worse than #2: 100%"),
        (limited(slow_rate, 0.05), "(8 of 8 requests)"),
        (
            limited(Metric::LatencyP99, 500.0),
            "latency p99 of #3 is over the limit: 2,000 ms",
        ),
    ] {
        assert_fails(&judged(rule, open.clone(), healthy(60)), says);
    }
}

#[test]
fn what_clients_give_up_is_an_error_of_its_own_class_unless_a_rule_says_otherwise() {
    let given_up = Sample {
        requests: 50,
        ..hanging(Hanging {
            abandoned: 20,
            slow: 20,
            overdue: 0,
        })
    };
    for (rule, says) in [
        (
            compared(Metric::ErrorRate),
            "28.6% vs 0% (20 of 70 requests, 20 abandoned)",
        ),
        (
            limited(Metric::ErrorRate, 0.02),
            "(20 of 70 requests, 20 abandoned)",
        ),
    ] {
        assert_fails(&judged(rule, given_up.clone(), healthy(700)), says);
    }
    for rule in [
        compared(Metric::AnsweredErrorRate),
        limited(Metric::AnsweredErrorRate, 0.02),
    ] {
        let judgement = judged(rule, given_up.clone(), healthy(700));
        assert!(
            matches!(judgement.verdict, Verdict::NoData { seen: 50, .. }),
            "50 answers are too few, and none is an error: {judgement:?}"
        );
    }
}

#[test]
fn where_answers_usually_take_long_a_limit_leaves_them_out() {
    let polling = |requests: u64, overdue: u64| Sample {
        requests,
        overdue,
        ..hanging(Hanging::default())
    };
    let limit = || limited(Metric::ErrorRate, 0.02);
    let usual = judged(limit(), polling(200, 60), polling(2_000, 500));
    assert!(usual.verdict.is_pass(), "{usual:?}");
    let unusual = judged(limit(), polling(200, 60), polling(2_000, 20));
    assert_fails(&unusual, "60 unanswered");
}

#[test]
fn an_open_request_that_is_answered_after_all_counts_once() {
    let slow_rate = Metric::SlowRate { over_micros: LIMIT };
    let analysis = Analysis::new(vec![
        limited(slow_rate, 0.5),
        limited(Metric::ErrorRate, 0.5),
    ]);
    let mut state = analysis.initial_state();
    let of = |requests: u64, open: u64, late: u64| Sample {
        requests,
        late,
        overdue: open,
        slow: vec![slow(open + late)],
        slow_unanswered: vec![slow(open)],
        ..Sample::default()
    };
    let seen = [of(0, 0, 0), of(150, 50, 0), of(200, 0, 50), of(400, 0, 50)];
    let mut last = None;
    for (second, sample) in (0..).step_by(5).zip(seen) {
        let observation = observed(second, sample, healthy(1_000));
        last = Some(analysis.observe_each(&mut state, &observation));
    }
    let whys: Vec<String> = last
        .unwrap()
        .iter()
        .map(|it| it.judgement.verdict.why().to_owned())
        .collect();
    assert!(whys[0].contains("12.5% (50 of 400 requests)"), "{whys:?}");
    assert!(
        whys[1].contains("12.5% (50 of 400 requests, 50 unanswered)"),
        "{whys:?}"
    );
}

#[test]
fn a_quantile_is_compared_with_open_requests_among_it() {
    let ages = |count: u64, micros: u64| -> Histogram {
        [(Histogram::bucket_of(micros) as u16, count)]
            .into_iter()
            .collect()
    };
    let side = |answered: Histogram, open: Histogram| Sample {
        requests: answered.total(),
        histogram: Some(answered),
        open_ages: open,
        ..Sample::default()
    };
    let analysis = Analysis::new(vec![compared(Metric::LatencyP50)]);
    let mut state = analysis.initial_state();
    let none = || side(Histogram::default(), Histogram::default());
    analysis.observe(&mut state, &observed(0, none(), none()));
    let canary = side(Histogram::default(), ages(2_000, 3_000_000));
    let stable = side(ages(20_000, 10_000), ages(4, 3_000));
    let judgement = analysis.observe(&mut state, &observed(5, canary, stable));
    assert_fails(&judgement, "latency p50");
}
