//! Rollouts whose canary is compared with stable: evidence ends a hold early, both ways.

use shipway_analysis::{AnalysisRule, FailedUsers, SequentialComparison, evidence::Alpha};

use super::*;

/// A canary that is judged against stable by its error rate.
pub(super) fn compared_rule() -> AnalysisRule {
    let (alpha, beta) = (Alpha::new(0.01).unwrap(), Alpha::new(0.05).unwrap());
    let sequential = SequentialComparison::new(Metric::ErrorRate, alpha, beta, 1.0, 2.0).unwrap();
    AnalysisRule::from(sequential)
}

pub(super) fn compared() -> RolloutSpec {
    let mut spec = spec(canary(), 3, Some(3));
    spec.environment.analysis = Analysis::new(vec![compared_rule()]);
    spec
}

impl RolloutHarness {
    /// Requests and errors of the canary and of stable, since ever.
    pub(super) fn compare(&mut self, canary: (u64, u64), stable: (u64, u64)) {
        let side = |release: &str, (requests, errors)| ReleaseSample {
            release: release.into(),
            sample: Some(Sample {
                requests,
                errors,
                ..Sample::default()
            }),
        };
        let seen = Box::new(Observation {
            at: self.now,
            canary: side("#4", canary),
            stable: Some(side("#3", stable)),
        });
        let exposure = self.rollout().exposure;
        self.say(RolloutInput::Measured { exposure, seen }).unwrap();
    }

    pub(super) fn split(&self) -> String {
        self.rollout().observed.split.to_string()
    }
}

#[test]
fn a_hold_ends_early_once_the_canary_is_shown_to_be_no_worse_but_not_before_its_least_time() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    stage.compare((0, 0), (0, 0));
    stage.pass_time(4);
    stage.compare((20_000, 200), (180_000, 1_800));
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Holding,
        "4 s are too few"
    );
    stage.pass_time(5);
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage.pass_time(1);
    stage.carry();
    assert_eq!(stage.split(), "50% to #4, 50% to #3");
    // The next step shows it anew.
    stage.compare((20_100, 201), (180_100, 1_801));
    stage.pass_time(30);
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage.compare((60_000, 600), (220_000, 2_200));
    stage.carry();
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::Promoted,
        "{:#?}",
        stage.story
    );
    let is_told = |note: &TimelineNote| {
        note.text
            .contains("enough evidence: error rate of #4 is no worse than #3: 1%")
    };
    assert!(stage.rollout().notes.iter().any(is_told));
}

#[test]
fn what_speaks_against_a_canary_at_one_weight_is_not_forgotten_at_the_next() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    stage.compare((0, 0), (0, 0));
    stage.pass_time(30);
    // Three times stable's rate, of few: it may be chance.
    stage.compare((1_000, 7), (9_000, 18));
    assert_eq!(stage.rollout().direction, PlanDirection::Forward);
    stage.pass_time(31);
    stage.carry();
    assert_eq!(stage.split(), "50% to #4, 50% to #3");
    stage.compare((1_000, 7), (9_000, 18));
    stage.pass_time(1);
    // Alone these would say little.
    stage.compare((2_000, 19), (10_000, 20));
    assert_eq!(
        stage.rollout().direction,
        PlanDirection::Back,
        "{:#?}",
        stage.story
    );
    stage.carry();
    assert_eq!(stage.split(), "100% to #3");
}

#[test]
fn odds_above_ten_to_one_at_the_end_of_a_hold_pause_it_though_they_are_no_fail() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    stage.compare((0, 0), (0, 0));
    stage.pass_time(30);
    // Three times stable's rate: not yet beyond doubt.
    stage.compare((1_000, 8), (9_000, 18));
    stage.pass_time(31);
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage.pass_time(60);
    assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
}

#[test]
fn without_traffic_there_is_nothing_to_compare_and_the_time_ends_the_hold() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    for _ in 0..12 {
        assert!(
            !stage
                .rollout()
                .evidence
                .judgement()
                .is_some_and(|it| it.verdict.is_pass())
        );
        stage.compare((0, 0), (0, 0));
        stage.pass_time(5);
    }
    stage.carry();
    assert_eq!(stage.split(), "50% to #4, 50% to #3");
}

/// A canary that is judged by what a provider says, with what it says of both sides.
fn by_a_kpi(stage: &mut RolloutHarness, canary: Result<f64, &str>, stable: Result<f64, &str>) {
    use shipway_analysis::ProviderAnswer;
    let kpi: shipway_analysis::MetricName = "conversion".parse().unwrap();
    let now = stage.now;
    let side = |release: &str, said: Result<f64, &str>| ReleaseSample {
        release: release.into(),
        sample: Some(Sample {
            answers: vec![match said {
                Ok(value) => ProviderAnswer::value(kpi, now, value),
                Err(why) => ProviderAnswer::unknown(kpi, now, why.to_owned()),
            }],
            ..Sample::default()
        }),
    };
    let seen = Box::new(Observation {
        at: now,
        canary: side("#4", canary),
        stable: Some(side("#3", stable)),
    });
    let exposure = stage.rollout().exposure;
    stage
        .say(RolloutInput::Measured { exposure, seen })
        .unwrap();
}

#[test]
fn a_provider_that_dies_in_the_middle_pauses_and_one_that_says_half_rolls_back() {
    let (alpha, beta) = (Alpha::new(0.01).unwrap(), Alpha::new(0.05).unwrap());
    let metric = Metric::Value("conversion".parse().unwrap());
    let mut sequential = SequentialComparison::new(metric, alpha, beta, 1.0, 1.5).unwrap();
    sequential.direction = shipway_analysis::WorseDirection::Decrease;
    let mut spec = compared();
    spec.environment.analysis = Analysis::new(vec![AnalysisRule::from(sequential)]);
    let noise = |second: i32| f64::from((second * 7_919) % 13) / 1_000.0;
    for dies in [true, false] {
        let mut stage = RolloutHarness::open(spec.clone());
        stage.carry();
        for second in 0..240 {
            let answer = |value: f64, second: i32| {
                if dies && second > 10 {
                    Err("Prometheus could not be reached")
                } else {
                    Ok(value + noise(second))
                }
            };
            let canary = if dies { 0.4 } else { 0.2 };
            if stage.rollout().status() == RolloutStatus::Holding {
                by_a_kpi(&mut stage, answer(canary, second), answer(0.4, second + 5));
            }
            stage.pass_time(1);
        }
        if dies {
            assert_eq!(stage.rollout().status(), RolloutStatus::Paused);
            let why = format!("{:#?}", stage.story);
            assert!(why.contains("Prometheus could not be reached"), "{why}");
        } else {
            assert_eq!(
                stage.rollout().direction,
                PlanDirection::Back,
                "{:#?}",
                stage.story
            );
        }
    }
}

#[test]
fn a_step_of_everything_is_compared_with_what_stable_was_and_a_step_of_nothing_only_shows_copies() {
    let mut wanted = compared();
    let Strategy::Canary(canary) = &mut wanted.environment.strategy else {
        panic!("a canary")
    };
    canary.steps.truncate(1);
    canary.steps[0].weight = Weight::FULL;
    for (errors, ends) in [(200, PlanDirection::Back), (1, PlanDirection::Forward)] {
        let mut stage = RolloutHarness::open(wanted.clone());
        stage.carry();
        assert_eq!(stage.split(), "100% to #4");
        stage.compare((0, 0), (100_000, 100));
        stage.pass_time(20);
        stage.compare((1_000, errors), (100_000, 100));
        assert_eq!(stage.rollout().direction, ends, "{:#?}", stage.story);
        let told = stage
            .rollout()
            .evidence
            .judgement()
            .unwrap()
            .verdict
            .why()
            .to_owned();
        assert!(told.contains("than #3 before the switch"), "{told}");
        if ends == PlanDirection::Forward {
            // As things stand it may go on, when the time has come.
            stage.pass_time(60);
            stage.carry();
            assert_eq!(stage.rollout().status(), RolloutStatus::Promoted);
        }
    }
    // Nothing to the canary: there is no data, which is no pass, and the time ends the hold.
    let Strategy::Canary(canary) = &mut wanted.environment.strategy else {
        panic!("a canary")
    };
    canary.steps[0].weight = Weight::ZERO;
    canary.matches = vec![Default::default()];
    let mut stage = RolloutHarness::open(wanted);
    stage.carry();
    for turn in 0..60 {
        assert_eq!(stage.split(), "0% to #4, 100% to #3;  to #4");
        stage.compare((0, 0), (100 * turn, turn));
        stage.pass_time(1);
    }
    let is_told = |note: &TimelineNote| note.text.contains("0 of the 100 requests needed");
    assert!(stage.rollout().notes.iter().any(is_told));
}

#[test]
fn counters_that_begin_anew_neither_hide_errors_nor_make_them_up() {
    for (errors_per_second, ends) in [(10, PlanDirection::Back), (1, PlanDirection::Forward)] {
        let mut stage = RolloutHarness::open(compared());
        stage.carry();
        let mut counted = (0, 0);
        for second in 0..55 {
            // The proxy is killed every ten seconds, and counts from nothing.
            if second % 10 == 0 {
                counted = (0, 0);
            }
            stage.compare(counted, (9 * counted.0, counted.0 / 100 * 9));
            counted = (counted.0 + 100, counted.1 + errors_per_second);
            stage.pass_time(1);
        }
        assert_eq!(stage.rollout().direction, ends, "{:#?}", stage.story);
    }
}

/// One user of the canary, all of whose requests but `good` fail; and many of stable.
fn one_user_fails(stage: &mut RolloutHarness, (requests, good): (u64, u64), stable: (u64, u64)) {
    let side = |release: &str, weight, (requests, errors), failed_users| ReleaseSample {
        release: release.into(),
        sample: Some(Sample {
            requests,
            errors,
            users: Some(FailedUsers {
                weight,
                errors: failed_users,
                slow: Vec::new(),
            }),
            ..Sample::default()
        }),
    };
    let seen = Box::new(Observation {
        at: stage.now,
        canary: side("#4", 100, (requests, requests - good), 1),
        stable: Some(side("#3", 9_900, stable, stable.1.min(40))),
    });
    let exposure = stage.rollout().exposure;
    let input = RolloutInput::Measured { exposure, seen };
    stage.say(input).unwrap();
}

#[test]
fn a_canary_whose_only_user_gets_nothing_but_errors_is_rolled_back_within_seconds() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    for second in 0..9 {
        one_user_fails(&mut stage, (4 * second, 0), (400 * second, 0));
        stage.pass_time(1);
    }
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
    let why = &stage.rollout().rollback_start.as_ref().unwrap().why;
    assert!(why.contains("nearly all recent requests to #4"), "{why}");
}

#[test]
fn one_user_who_fails_beside_others_and_an_outage_of_both_releases_roll_nothing_back() {
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    for second in 0..9 {
        one_user_fails(&mut stage, (8 * second, 4 * second), (400 * second, 0));
        stage.pass_time(1);
    }
    assert_eq!(stage.rollout().direction, PlanDirection::Forward);
    let mut stage = RolloutHarness::open(compared());
    stage.carry();
    for second in 0..9 {
        let failing = (400 * second, 400 * second);
        one_user_fails(&mut stage, (4 * second, 0), failing);
        stage.pass_time(1);
    }
    assert_eq!(stage.rollout().direction, PlanDirection::Forward);
}
