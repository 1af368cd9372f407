//! A bake that is judged by what isn't counted by request: against what stable was before the switch.

use shipway_analysis::{
    AnalysisRule, BaselineSample, ConditionRule, Histogram, MannWhitney, ProviderAnswer,
    SequentialComparison, WorseDirection,
    evidence::{Alpha, mean::ValueSeries},
    mann_whitney::ScoredMetric,
};

use super::*;

const BAKE: u64 = 600;

/// Switched to #4, for as long as it is baked.
fn baking(rule: AnalysisRule) -> RolloutHarness {
    let strategy = Strategy::BlueGreen(BlueGreen {
        bake: Some(Duration::from_secs(BAKE)),
        ..BlueGreen::default()
    });
    let mut wanted = spec(strategy, 2, Some(3));
    wanted.environment.analysis = Analysis::new(vec![rule]);
    let mut stage = RolloutHarness::open(wanted);
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage
}

fn compared(metric: Metric, way: WorseDirection) -> AnalysisRule {
    let (alpha, beta) = (Alpha::new(0.01).unwrap(), Alpha::new(0.05).unwrap());
    let (margin, tolerance) = (
        SequentialComparison::default_margin(metric),
        SequentialComparison::default_tolerance(metric),
    );
    let mut sequential = SequentialComparison::new(metric, alpha, beta, margin, tolerance).unwrap();
    sequential.direction = way;
    AnalysisRule::from(sequential)
}

fn kpi() -> shipway_analysis::MetricName {
    "conversion".parse().unwrap()
}

/// A little to and fro, the same in each run.
fn noise(turn: u64) -> f64 {
    ((turn * 7_919) % 13) as f64 / 130.0
}

fn values(metric: Metric, level: f64, count: u64) -> BaselineSample {
    let mut values = ValueSeries::default();
    for turn in 0..count {
        values.add(level * (1.0 + noise(turn)));
    }
    BaselineSample {
        values: vec![(metric, values)],
        took: Histogram::default(),
    }
}

/// Each second of the bake, to its end: the canary's side, and what is known of stable's time before.
fn bake(
    stage: &mut RolloutHarness,
    canary: impl Fn(u64, Timestamp) -> Sample,
    before: Option<&BaselineSample>,
) {
    looks(stage, canary, before, 2 * BAKE);
    stage.carry();
}

/// So many seconds of it.
fn looks(
    stage: &mut RolloutHarness,
    canary: impl Fn(u64, Timestamp) -> Sample,
    before: Option<&BaselineSample>,
    seconds: u64,
) {
    for _ in 0..seconds {
        if stage.rollout().status() != RolloutStatus::Holding {
            break;
        }
        let since = stage.now.duration_since(stage.rollout().action_since);
        let side = |release: &str, sample| ReleaseSample {
            release: release.into(),
            sample: Some(sample),
        };
        let stable = Sample {
            requests: 200_000,
            errors: 200,
            // What it uses now that nobody asks for anything says nothing.
            cpu: Some(0.001),
            histogram: Some(Histogram::default()),
            before: before.cloned(),
            ..Sample::default()
        };
        let canary = canary(since.as_secs() as u64, stage.now);
        let seen = Box::new(Observation {
            at: stage.now,
            canary: side("#4", canary),
            stable: Some(side("#3", stable)),
        });
        let exposure = stage.rollout().exposure;
        stage
            .say(RolloutInput::Measured { exposure, seen })
            .unwrap();
        stage.pass_time(1);
    }
}

fn using(cpu: f64) -> impl Fn(u64, Timestamp) -> Sample {
    move |second, _| Sample {
        requests: 100 * second,
        cpu: Some(cpu * (1.0 + noise(second / 5))),
        ..Sample::default()
    }
}

#[test]
fn a_release_that_uses_more_than_stable_did_goes_back_and_one_that_does_not_is_promoted() {
    let before = values(Metric::Cpu, 0.4, 120);
    let mut stage = baking(compared(Metric::Cpu, WorseDirection::Increase));
    bake(&mut stage, using(0.8), Some(&before));
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    let turn = stage.rollout().rollback_start.clone().unwrap();
    for words in [
        "CPU use of #4 is worse than #3 before the switch: 83",
        " vs 41",
        "certainty",
    ] {
        assert!(turn.why.contains(words), "{words}: {}", turn.why);
    }
    let mut stage = baking(compared(Metric::Cpu, WorseDirection::Increase));
    bake(&mut stage, using(0.4), Some(&before));
    assert_eq!(
        stage.rollout().observed.promoted,
        Some(ReleaseNumber(4)),
        "{:#?}",
        stage.story
    );
    let enough = |note: &TimelineNote| note.text.contains("within 1.5 times #3");
    assert!(stage.rollout().notes.iter().any(enough), "early");
}

#[test]
fn what_is_not_known_of_the_time_before_is_inconclusive_and_never_passes() {
    let few = values(Metric::Cpu, 0.4, 5);
    // Values that stand still for long and then jump: thirty of them, but two that are new.
    let mut alike = ValueSeries::default();
    for turn in 0..30 {
        alike.add(if turn < 15 { 0.4 } else { 0.5 });
    }
    let alike = BaselineSample {
        values: vec![(Metric::Cpu, alike)],
        ..BaselineSample::default()
    };
    for (before, words) in [
        (None, "#3 before the switch: "),
        (
            Some(&alike),
            "the 30 values of #3 before the switch are too strongly correlated",
        ),
        (
            Some(&few),
            "#3 before the switch had only 5 of the 30 values needed",
        ),
    ] {
        let mut stage = baking(compared(Metric::Cpu, WorseDirection::Increase));
        bake(&mut stage, using(0.8), before);
        assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
        let paused = stage.rollout().paused.clone().unwrap();
        assert!(paused.reason.contains(words), "{}", paused.reason);
    }
}

fn answering(value: f64) -> impl Fn(u64, Timestamp) -> Sample {
    move |second, at| Sample {
        requests: 100 * second,
        answers: vec![ProviderAnswer::value(
            kpi(),
            at,
            value * (1.0 + noise(second)),
        )],
        ..Sample::default()
    }
}

#[test]
fn a_kpi_that_halves_after_the_switch_goes_back_though_the_server_was_started_anew_in_between() {
    let metric = Metric::Value(kpi());
    let mut stage = baking(compared(metric, WorseDirection::Decrease));
    let before = values(metric, 0.4, 60);
    // The first seconds with what is known, the others without: it is in the log.
    looks(&mut stage, answering(0.2), Some(&before), 10);
    bake(&mut stage, answering(0.2), None);
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::RolledBack,
        "{:#?}",
        stage.story
    );
    let mut stage = baking(compared(metric, WorseDirection::Decrease));
    bake(&mut stage, answering(0.4), Some(&before));
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(4)));
}

#[test]
fn a_condition_on_stable_looks_at_the_mean_of_the_time_before() {
    let metric = Metric::Value(kpi());
    let before = values(metric, 0.4, 60);
    for (value, promoted) in [(0.2, 3), (0.4, 4)] {
        let pass = "value >= 0.8 * stable".parse().unwrap();
        let rule = AnalysisRule::from(ConditionRule::new(metric, Some(pass), None).unwrap());
        let mut stage = baking(rule);
        bake(&mut stage, answering(value), Some(&before));
        let found = stage.rollout().observed.promoted;
        assert_eq!(found, Some(ReleaseNumber(promoted)), "{:#?}", stage.story);
    }
}

#[test]
fn answers_that_take_longer_than_before_the_switch_go_back_and_no_more_of_them_are_claimed_than_were_seen()
 {
    let before = BaselineSample {
        took: [(60, 4_000), (64, 1_000)].into_iter().collect(),
        ..BaselineSample::default()
    };
    let answers = |bucket: u16| {
        move |second: u64, _: Timestamp| Sample {
            requests: 100 * second,
            histogram: Some([(bucket, 100 * second)].into_iter().collect()),
            ..Sample::default()
        }
    };
    let rule = || compared(Metric::LatencyP50, WorseDirection::Increase);
    let mut stage = baking(rule());
    bake(&mut stage, answers(80), Some(&before));
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    let mut stage = baking(rule());
    bake(&mut stage, answers(60), Some(&before));
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(4)));
    let mut stage = baking(rule());
    looks(&mut stage, answers(60), Some(&before), 3);
    let late = |_: u64, at| Sample {
        requests: 1_000_000,
        ..answers(60)(200, at)
    };
    looks(&mut stage, late, Some(&before), 1);
    let seen = stage.rollout().evidence.last().unwrap().clone();
    let took = seen.stable.unwrap().sample.unwrap().histogram.unwrap();
    assert_eq!(took.total(), 10_000, "those there were, once more");
}

#[test]
fn windows_of_a_stable_that_has_no_traffic_are_not_made_up() {
    let windows = MannWhitney::new(vec![ScoredMetric::new(Metric::Cpu)], Vec::new(), 95.0, 75.0);
    let mut stage = baking(AnalysisRule::from(windows.unwrap()));
    bake(&mut stage, using(0.8), Some(&values(Metric::Cpu, 0.4, 120)));
    assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
}
