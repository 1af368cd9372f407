//! What holds for all judges together, and what each says to bad input.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use shipway_analysis::{
    Analysis, AnalysisRule, BusinessEventCount, ConditionRule, Histogram, Judgement,
    LatencyQuantiles, MannWhitney, MeasurementPolicy, Metric, MetricName, Observation,
    ProviderAnswer, ReleaseSample, Sample, SequentialComparison, SlowCount, ThresholdLimit,
    Verdict, WorseDirection, evidence::Alpha, mann_whitney::ScoredMetric, threshold::MetricBound,
};

const SLOW: Metric = Metric::SlowRate {
    over_micros: 300_000,
};

fn name(text: &str) -> MetricName {
    text.parse().unwrap()
}

fn kpi() -> Metric {
    Metric::Value(name("kpi"))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
}

fn sequential(metric: Metric) -> SequentialComparison {
    let share = |value| Alpha::new(value).unwrap();
    let (margin, tolerance) = (
        SequentialComparison::default_margin(metric),
        SequentialComparison::default_tolerance(metric),
    );
    let mut judge =
        SequentialComparison::new(metric, share(0.01), share(0.05), margin, tolerance).unwrap();
    judge.interval = Duration::from_secs(1);
    judge
}

fn fewer(metric: Metric) -> SequentialComparison {
    SequentialComparison {
        direction: WorseDirection::Decrease,
        ..sequential(metric)
    }
}

fn orders() -> Metric {
    Metric::Event(name("orders"))
}

fn seen(millis: i64, canary: Option<Sample>, stable: Option<Sample>) -> Observation {
    let side = |release: &str, sample| ReleaseSample {
        release: release.into(),
        sample,
    };
    Observation {
        at: at(millis),
        canary: side("#4", canary),
        stable: Some(side("#3", stable)),
    }
}

/// All judges and kinds of metrics at once.
fn everything() -> Analysis {
    let mut score = MannWhitney::new(
        [Metric::ErrorRate, Metric::LatencyP90, Metric::Cpu, kpi()]
            .map(ScoredMetric::new)
            .to_vec(),
        Vec::new(),
        95.0,
        75.0,
    )
    .unwrap();
    score.window = Duration::from_secs(1);
    let condition = |text: &str| Some(text.parse().unwrap());
    let mut rules: Vec<AnalysisRule> = vec![
        score.into(),
        ConditionRule::new(kpi(), condition("value >= 0.9 * stable"), None)
            .unwrap()
            .into(),
        ConditionRule::new(
            Metric::ErrorRate,
            condition("value < 2%"),
            condition("value > 50%"),
        )
        .unwrap()
        .into(),
        ThresholdLimit {
            counting: MeasurementPolicy {
                skip: Duration::from_secs(2),
                ..MeasurementPolicy::default()
            },
            ..ThresholdLimit::new(Metric::ErrorRate, MetricBound::Max(0.1)).unwrap()
        }
        .into(),
    ];
    rules.extend(
        [
            Metric::ErrorRate,
            SLOW,
            Metric::LatencyP50,
            Metric::LatencyP99,
            Metric::Cpu,
        ]
        .map(|metric| sequential(metric).into()),
    );
    rules.extend([orders(), kpi()].map(|metric| fewer(metric).into()));
    rules.push(
        SequentialComparison {
            skip: Duration::from_secs(3),
            ..sequential(Metric::ErrorRate)
        }
        .into(),
    );
    Analysis::new(rules)
}

/// What one side did in a second.
type Second = (u64, u64, u64, u64, Vec<u16>, f64, Option<f64>);

fn second() -> impl Strategy<Value = Option<Second>> {
    let value =
        prop_oneof![8 => (0.1..2.0f64).prop_map(Some), 1 => Just(None), 1 => Just(Some(f64::NAN))];
    proptest::option::weighted(
        0.95,
        (
            0..200u64,
            0..9u64,
            0..9u64,
            0..20u64,
            prop::collection::vec(60..90u16, 0..30),
            0.0..2.0f64,
            value,
        ),
    )
}

fn add(sum: &mut Sample, second: &Second, millis: i64) {
    let (requests, errors, slow, orders, times, cpu, kpi) = second;
    let before = sum.slow.first().map_or(0, |slow| slow.count);
    let happened = sum.events.first().map_or(0, |happened| happened.count);
    let answer = kpi.map_or_else(
        || ProviderAnswer::unknown(name("kpi"), at(millis), "it is down".into()),
        |value| ProviderAnswer::value(name("kpi"), at(millis), value),
    );
    *sum = Sample {
        requests: sum.requests + requests,
        errors: sum.errors + errors,
        latency: Some(LatencyQuantiles {
            p90_ms: Some(f64::from(times.len() as u32)),
            ..LatencyQuantiles::default()
        }),
        cpu: Some(*cpu),
        memory_bytes: None,
        restarts: Some(0),
        instance_time: None,
        histogram: Some(
            sum.histogram
                .clone()
                .unwrap_or_default()
                .merged(&times.iter().map(|it| (*it, 1)).collect::<Histogram>()),
        ),
        slow: vec![SlowCount {
            over_micros: 300_000,
            count: before + slow,
        }],
        saturation: None,
        events: vec![BusinessEventCount {
            event: name("orders"),
            count: happened + orders,
        }],
        answers: vec![answer],
        users: None,
        before: None,
        ..Sample::default()
    };
}

/// A rollout of seconds; both sides may be dark.
fn observations(seconds: &[(Option<Second>, Option<Second>)]) -> Vec<Observation> {
    let (mut canary, mut stable) = (Sample::default(), Sample::default());
    let each = seconds
        .iter()
        .enumerate()
        .map(|(index, (of_canary, of_stable))| {
            let millis = 1_000 * index as i64;
            let take = |sum: &mut Sample, second: &Option<Second>| {
                add(sum, second.as_ref()?, millis);
                Some(sum.clone())
            };
            seen(
                millis,
                take(&mut canary, of_canary),
                take(&mut stable, of_stable),
            )
        });
    each.collect()
}

fn through_the_log<T: serde::Serialize + serde::de::DeserializeOwned>(thing: &T) -> T {
    serde_json::from_str(&serde_json::to_string(thing).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resuming_at_every_tick_equals_no_interruption(
        seconds in prop::collection::vec((second(), second()), 1..70),
        new_hold in 0..70usize,
    ) {
        let analysis: Analysis = through_the_log(&everything());
        prop_assert_eq!(&analysis, &everything());
        let (mut straight, mut resumed) = (analysis.initial_state(), analysis.initial_state());
        for (index, seen) in observations(&seconds).iter().enumerate() {
            if index == new_hold {
                straight.start_hold();
                resumed.start_hold();
            }
            let said = analysis.observe_each(&mut straight, seen);
            resumed = through_the_log(&resumed);
            prop_assert_eq!(&analysis.observe_each(&mut resumed, &through_the_log(seen)), &said);
            prop_assert_eq!(&resumed, &straight);
        }
    }

    #[test]
    fn a_tick_that_comes_twice_changes_nothing(seconds in prop::collection::vec((second(), second()), 1..40)) {
        let analysis = everything();
        let mut state = analysis.initial_state();
        for seen in observations(&seconds) {
            analysis.observe(&mut state, &seen);
            let before = state.clone();
            analysis.observe(&mut state, &seen);
            prop_assert_eq!(&before, &state);
        }
    }
}

/// The verdict of one rule after all of `observations`.
fn judge(
    rule: impl Into<AnalysisRule>,
    observations: impl IntoIterator<Item = Observation>,
) -> Judgement {
    let analysis = Analysis::new(vec![rule.into()]);
    let mut state = analysis.initial_state();
    let mut last = None;
    for seen in observations {
        last = Some(analysis.observe(&mut state, &seen));
        if last.as_ref().is_some_and(|last| last.verdict.is_fail()) {
            break;
        }
    }
    last.unwrap()
}

fn no_data(judgement: &Judgement, words: &str) {
    let is_so = matches!(&judgement.verdict, Verdict::NoData { why, .. } if why.contains(words));
    assert!(is_so, "{words}: {judgement:?}");
}

fn inconclusive(judgement: &Judgement, words: &str) {
    let is_so = matches!(&judgement.verdict, Verdict::Inconclusive { why } if why.contains(words));
    assert!(is_so, "{words}: {judgement:?}");
}

/// Both sides with an answer of a provider each second.
fn answers(
    of: impl Fn(i64) -> (Result<f64, &'static str>, Result<f64, &'static str>),
    seconds: i64,
) -> Vec<Observation> {
    let sample = |said: Result<f64, &'static str>, millis: i64| {
        let answer = match said {
            Ok(value) => ProviderAnswer::value(name("kpi"), at(millis), value),
            Err(why) => ProviderAnswer::unknown(name("kpi"), at(millis), why.into()),
        };
        Some(Sample {
            answers: vec![answer],
            ..Sample::default()
        })
    };
    (0..seconds)
        .map(|second| {
            let (canary, stable) = of(second);
            seen(
                1_000 * second,
                sample(canary, 1_000 * second),
                sample(stable, 1_000 * second),
            )
        })
        .collect()
}

/// A little up and down, the same each time.
fn noise(second: i64) -> f64 {
    ((second * 7_919) % 13) as f64 / 100.0
}

#[test]
fn a_kpi_that_halves_fails_with_its_sentence_and_one_that_stays_passes_and_ends_early() {
    let halved = answers(
        |second| {
            (
                Ok(0.21 + noise(second) / 10.0),
                Ok(0.42 + noise(second + 3) / 10.0),
            )
        },
        120,
    );
    let judged = judge(fewer(kpi()), halved);
    assert!(judged.verdict.is_fail() && judged.is_final(), "{judged:?}");
    let why = judged.verdict.why();
    assert!(
        why.starts_with("kpi of #4 is worse than #3: 0.2")
            && why.contains(" vs 0.4")
            && why.contains("certainty"),
        "{why}"
    );
    let same = answers(
        |second| (Ok(0.4 + noise(second)), Ok(0.4 + noise(second + 3))),
        120,
    );
    let judged = judge(fewer(kpi()), same);
    assert!(judged.verdict.is_pass() && judged.is_final(), "{judged:?}");
    // More of it is not worse.
    let doubled = answers(
        |second| (Ok(0.8 + noise(second)), Ok(0.4 + noise(second + 3))),
        120,
    );
    assert!(judge(fewer(kpi()), doubled).verdict.is_pass());
}

#[test]
fn a_provider_that_is_down_says_nothing_or_lies_never_passes_and_never_fails() {
    let dies = |second: i64| {
        if second < 60 {
            Ok(0.4 + noise(second))
        } else {
            Err("Prometheus could not be reached")
        }
    };
    let judged = judge(
        fewer(kpi()),
        answers(|second| (dies(second), dies(second)), 80),
    );
    inconclusive(&judged, "Prometheus could not be reached");
    let of_stable = judge(
        fewer(kpi()),
        answers(|second| (Ok(0.4 + noise(second)), dies(second)), 80),
    );
    inconclusive(&of_stable, "#3: Prometheus could not be reached");
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        inconclusive(
            &judge(fewer(kpi()), answers(|_| (Ok(value), Ok(0.4)), 80)),
            "the provider returned",
        );
        inconclusive(
            &judge(
                ThresholdLimit::new(kpi(), MetricBound::Min(0.1)).unwrap(),
                answers(|_| (Ok(value), Ok(0.4)), 80),
            ),
            "the provider returned",
        );
    }
    // An answer that is repeated is one answer.
    let one = answers(|_| (Ok(0.2), Ok(0.4)), 1).remove(0);
    let repeated = (0..100).map(|second| Observation {
        at: at(1_000 * second),
        ..one.clone()
    });
    inconclusive(&judge(fewer(kpi()), repeated), "1 of the 30 values needed");
    // Never asked.
    let nothing = (0..50).map(|second| {
        seen(
            1_000 * second,
            Some(Sample::default()),
            Some(Sample::default()),
        )
    });
    inconclusive(&judge(fewer(kpi()), nothing.clone()), "hasn't answered yet");
    inconclusive(
        &judge(
            ThresholdLimit::new(kpi(), MetricBound::Min(0.1)).unwrap(),
            nothing,
        ),
        "not measured yet",
    );
}

/// Counts that grow by so many requests, errors, slow ones and orders each second.
fn growing(canary: [u64; 4], stable: [u64; 4], seconds: i64) -> Vec<Observation> {
    let sample = |by: [u64; 4], second: u64| {
        let of = by.map(|by| by * second);
        Some(Sample {
            requests: of[0],
            errors: of[1],
            slow: vec![SlowCount {
                over_micros: 300_000,
                count: of[2],
            }],
            events: vec![BusinessEventCount {
                event: name("orders"),
                count: of[3],
            }],
            ..Sample::default()
        })
    };
    (0..seconds)
        .map(|second| {
            seen(
                1_000 * second,
                sample(canary, second as u64),
                sample(stable, second as u64),
            )
        })
        .collect()
}

#[test]
fn slow_answers_and_lost_orders_are_counted_events() {
    let slow = judge(
        sequential(SLOW),
        growing([100, 0, 5, 0], [900, 0, 9, 0], 120),
    );
    let why = slow.verdict.why();
    assert!(
        slow.verdict.is_fail()
            && why.starts_with("slow rate (over 300 ms) of #4 is worse than #3: 5% vs 1% ("),
        "{why}"
    );
    let lost = judge(
        fewer(orders()),
        growing([100, 0, 0, 5], [900, 0, 0, 90], 120),
    );
    let why = lost.verdict.why();
    assert!(
        lost.verdict.is_fail()
            && why.starts_with("orders rate of #4 is worse than #3: 5% vs 10% ("),
        "{why}"
    );
    let more = judge(
        fewer(orders()),
        growing([100, 0, 0, 20], [900, 0, 0, 90], 120),
    );
    assert!(more.verdict.is_pass() && more.is_final(), "{more:?}");
    assert!(
        more.verdict.why().ends_with("at least 1/2 of #3"),
        "{more:?}"
    );
    // Nobody counts it.
    let uncounted = Metric::SlowRate { over_micros: 7 };
    inconclusive(
        &judge(
            sequential(uncounted),
            growing([9, 0, 0, 0], [9, 0, 0, 0], 9),
        ),
        "it isn't counted",
    );
}

#[test]
fn a_median_that_is_slower_fails_and_one_that_is_not_ends_the_hold() {
    let shifted = |by: u16, seconds: u64, each: u64| {
        (0..seconds).map(move |second| {
            let of = |first: u16| {
                Some(Sample {
                    histogram: Some((0..20).map(|step| (first + step, each * second)).collect()),
                    requests: 20 * each * second,
                    ..Sample::default()
                })
            };
            seen(1_000 * second as i64, of(80 + by), of(80))
        })
    };
    let slower = judge(sequential(Metric::LatencyP50), shifted(10, 120, 10));
    let why = slower.verdict.why();
    assert!(
        slower.verdict.is_fail() && why.contains("latency p50") && why.contains("certainty"),
        "{why}"
    );
    let equal = judge(sequential(Metric::LatencyP50), shifted(0, 1_200, 10));
    assert!(equal.verdict.is_pass() && equal.is_final(), "{equal:?}");
    let hasty = judge(sequential(Metric::LatencyP99), shifted(10, 10, 10));
    no_data(&hasty, "1,800 of the 6,592 requests needed on each side");
    no_data(
        &judge(sequential(Metric::LatencyP50), shifted(10, 7, 1)),
        "120 of the ",
    );
    let none = growing([100, 0, 0, 0], [100, 0, 0, 0], 9);
    inconclusive(
        &judge(sequential(Metric::LatencyP50), none),
        "no latencies were measured",
    );
}

#[test]
fn no_traffic_for_an_hour_one_user_and_clocks_that_jump_end_in_a_stated_verdict() {
    let idle = || growing([0; 4], [0; 4], 3_600);
    for metric in [Metric::ErrorRate, SLOW] {
        no_data(&judge(sequential(metric), idle()), "0 of the 100 requests");
    }
    no_data(
        &judge(
            ThresholdLimit::new(Metric::ErrorRate, MetricBound::Max(0.1)).unwrap(),
            idle(),
        ),
        "0 of the 100 requests",
    );
    no_data(
        &judge(
            MannWhitney::new(
                vec![ScoredMetric::new(Metric::ErrorRate)],
                vec![],
                95.0,
                75.0,
            )
            .unwrap(),
            idle(),
        ),
        "has data",
    );
    // All traffic on one side, as with weights 0 and 100, or with a single user.
    for (canary, stable) in [([0; 4], [500, 5, 0, 0]), ([500, 5, 0, 0], [0; 4])] {
        let judged = judge(sequential(Metric::ErrorRate), growing(canary, stable, 600));
        assert!(
            !judged.is_final() && !judged.verdict.is_fail(),
            "{judged:?}"
        );
    }
    // A clock that goes back: what is older than what was seen counts for nothing, and nothing is lost.
    let mut jumping = growing([100, 1, 0, 0], [900, 9, 0, 0], 60);
    for (index, seen) in jumping.iter_mut().enumerate() {
        if index % 7 == 3 {
            seen.at = at(-3_600_000);
        }
    }
    let judged = judge(sequential(Metric::ErrorRate), jumping);
    assert!(
        judged.verdict.is_pass() && judged.verdict.why().contains(" 5,800 requests"),
        "{judged:?}"
    );
    // And one that jumps ahead by a day.
    let mut ahead = growing([100, 1, 0, 0], [900, 9, 0, 0], 60);
    ahead
        .iter_mut()
        .skip(30)
        .for_each(|seen| seen.at += Duration::from_secs(86_400));
    assert!(
        judge(sequential(Metric::ErrorRate), ahead)
            .verdict
            .is_pass()
    );
}

#[test]
fn a_warm_up_is_left_out() {
    let mut cold = growing([100, 50, 0, 0], [900, 0, 0, 0], 30);
    let last = cold.last().unwrap().clone();
    cold.extend((30..120).map(|second| {
        let grown = |side: &ReleaseSample, by: u64| ReleaseSample {
            sample: side.sample.clone().map(|sample| Sample {
                requests: sample.requests + by * (second - 29),
                ..sample
            }),
            ..side.clone()
        };
        Observation {
            at: at(1_000 * second as i64),
            canary: grown(&last.canary, 100),
            stable: last.stable.as_ref().map(|side| grown(side, 900)),
        }
    }));
    assert!(
        judge(sequential(Metric::ErrorRate), cold.clone())
            .verdict
            .is_fail()
    );
    let patient = SequentialComparison {
        skip: Duration::from_secs(30),
        ..sequential(Metric::ErrorRate)
    };
    inconclusive(
        &judge(patient.clone(), cold[..20].to_vec()),
        "the warm-up lasts another 11 s",
    );
    let judged = judge(patient, cold.clone());
    assert!(
        judged.verdict.is_pass()
            && judged
                .verdict
                .why()
                .contains("#4 is not shown to be worse than #3: 0%"),
        "{judged:?}"
    );
    let limit = ThresholdLimit {
        counting: MeasurementPolicy {
            skip: Duration::from_secs(30),
            ..MeasurementPolicy::default()
        },
        ..ThresholdLimit::new(Metric::ErrorRate, MetricBound::Max(0.02)).unwrap()
    };
    assert!(judge(limit, cold).verdict.is_pass());
}

#[test]
fn kayentas_score_fails_a_release_that_is_worse_and_says_by_what() {
    let judged = |cpu: f64| {
        let metrics = vec![
            ScoredMetric {
                critical: true,
                ..ScoredMetric::new(Metric::Cpu)
            },
            ScoredMetric::new(Metric::ErrorRate),
        ];
        let score = MannWhitney::new(metrics, Vec::new(), 95.0, 75.0).unwrap();
        let observations = growing([100, 1, 0, 0], [100, 1, 0, 0], 400);
        judge(
            score,
            observations
                .into_iter()
                .enumerate()
                .map(move |(index, mut seen)| {
                    let index = index as i64;
                    seen.canary.sample.as_mut().unwrap().cpu = Some(cpu + noise(index));
                    seen.stable.as_mut().unwrap().sample.as_mut().unwrap().cpu =
                        Some(0.5 + noise(index + 5));
                    seen
                }),
        )
    };
    let worse = judged(0.9);
    assert!(worse.verdict.is_fail(), "{worse:?}");
    assert!(
        worse.verdict.why().starts_with(
            "score of #4 vs #3 is 0 of 100 after 10 windows, fails below 75: CPU use high"
        ),
        "{worse:?}"
    );
    let fine = judged(0.5);
    assert!(fine.verdict.is_pass() && !fine.is_final(), "{fine:?}");
}
