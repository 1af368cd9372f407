//! After the promotion: the release is judged for as long as `watch` says.

use super::*;

fn watched(strategy: Strategy, seconds: u64) -> RolloutHarness {
    let mut wanted = spec(strategy, 2, Some(3));
    wanted.environment.watch = config::WatchDuration::For(Duration::from_secs(seconds));
    let mut stage = RolloutHarness::open(wanted);
    stage.carry();
    stage
}

fn rolling() -> Strategy {
    Strategy::Rolling(Rolling::default())
}

#[test]
fn every_strategy_is_watched_after_its_promotion() {
    let blue_green = BlueGreen {
        keep: Duration::from_secs(60),
        ..BlueGreen::default()
    };
    for strategy in [
        rolling(),
        Strategy::Recreate(Recreate {}),
        Strategy::BlueGreen(blue_green),
        canary(),
    ] {
        let stage = watched(strategy, 1_800);
        let last = stage.rollout().plan.actions.last().unwrap().to_string();
        assert!(last.starts_with("watch the release for"), "{last}");
    }
}

#[test]
fn a_set_that_is_kept_warm_for_longer_is_watched_meanwhile() {
    let stage = watched(Strategy::BlueGreen(BlueGreen::default()), 1_800);
    let watches = |action: &PlanAction| action.to_string().starts_with("watch");
    assert!(!stage.rollout().plan.actions.iter().any(watches));
    assert!(stage.rollout().is_judged());
}

#[test]
fn a_release_that_fails_in_its_watch_is_rolled_back_to_the_previous_one_started_anew() {
    let mut stage = watched(rolling(), 1_800);
    assert_eq!(stage.rollout().status(), RolloutStatus::Promoted);
    assert!(stage.rollout().guarded_until().is_some());
    assert_eq!(stage.rollout().observed.count(ReleaseNumber(3)), 0);
    stage.measure(0, 0);
    stage.pass_time(600);
    stage.measure(10_000, 1_000);
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
    let plan = &stage.rollout().plan.actions;
    assert_eq!(
        plan[..3]
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "start 2 instances of #3, without traffic",
            "wait until 2 instances of #3 are ready",
            "shift traffic: 100% to #3",
        ]
    );
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(3)));
    assert_eq!(stage.rollout().observed.count(ReleaseNumber(4)), 0);
}

#[test]
fn a_watch_ends_by_its_time_and_for_the_next_rollout() {
    let mut stage = watched(rolling(), 60);
    stage.pass_time(59);
    assert!(stage.rollout().ended.is_none());
    stage.pass_time(1);
    assert!(stage.rollout().ended.is_some());

    let mut stage = watched(rolling(), 60);
    let reason = "looks good".to_owned();
    stage.say(RolloutInput::Promote { reason }).unwrap();
    assert!(
        stage.rollout().ended.is_none(),
        "a person skips holds, not the guard"
    );
    let next = Some(ReleaseNumber(5));
    stage.say(RolloutInput::EndKeep { next }).unwrap();
    assert!(stage.rollout().ended.is_some());
}

#[test]
fn nothing_is_watched_where_the_file_says_so() {
    let stage = watched(rolling(), 0);
    assert!(stage.rollout().ended.is_some());
}

/// A promoted rolling update that is compared with what stable was: 200,000 requests, one in a thousand bad.
fn compared_after_promotion(strategy: Strategy) -> RolloutHarness {
    let mut wanted = spec(strategy, 2, Some(3));
    wanted.environment.watch = config::WatchDuration::For(Duration::from_secs(1_800));
    wanted.environment.analysis = Analysis::new(vec![compared::compared_rule()]);
    let mut stage = RolloutHarness::open(wanted);
    stage.carry();
    stage.compare((0, 0), (200_000, 200));
    stage
}

/// A tenth of the candidate's requests fail from now on, until something follows.
fn fail_against_the_past(stage: &mut RolloutHarness) {
    let plan = stage.rollout().plan_number;
    let begun = stage.now;
    for second in 1..=60 {
        stage.pass_time(1);
        stage.compare((100 * second, 10 * second), (200_000, 200));
        if stage.rollout().plan_number != plan || stage.rollout().unattributed_fault.is_some() {
            return;
        }
    }
    panic!("nothing followed since {begun}: {:#?}", stage.story);
}

#[test]
fn what_speaks_against_a_release_only_in_comparison_with_the_past_starts_a_reverse_canary() {
    let mut stage = compared_after_promotion(rolling());
    fail_against_the_past(&mut stage);
    let rollout = stage.rollout();
    assert_eq!(rollout.direction, PlanDirection::Forward);
    let plan = rollout.plan.actions.iter().map(ToString::to_string);
    assert_eq!(
        plan.take(5).collect::<Vec<_>>(),
        [
            "start 2 instances of #3, without traffic",
            "wait until 2 instances of #3 are ready",
            "shift traffic: 50% to #4, 50% to #3",
            "compare both releases for up to 5 min",
            "shift traffic: 100% to #4",
        ]
    );
}

#[test]
fn a_fault_of_both_releases_is_not_blamed_on_the_new_one() {
    let mut stage = compared_after_promotion(rolling());
    fail_against_the_past(&mut stage);
    stage.carry();
    for second in 0..400 {
        stage.pass_time(1);
        let failing = (10_000 + 100 * second, 1_000 + 10 * second);
        stage.compare(failing, failing);
        stage.carry();
    }
    let rollout = stage.rollout();
    assert_eq!(
        rollout.direction,
        PlanDirection::Forward,
        "{:#?}",
        stage.story
    );
    assert_eq!(
        rollout.observed.split,
        TrafficSplit::all_to(ReleaseNumber(4))
    );
    assert_eq!(rollout.observed.count(ReleaseNumber(3)), 0);
    let told = |notice: &RolloutNotice| notice.text.contains("not this release");
    assert!(rollout.notices.iter().any(told));
    // The past is not asked again.
    for second in 0..60 {
        stage.pass_time(1);
        stage.compare(
            (60_000 + 100 * second, 6_000 + 10 * second),
            (50_000, 5_000),
        );
    }
    assert_eq!(stage.rollout().direction, PlanDirection::Forward);
    assert!(stage.rollout().guarded_until().is_some());
}

#[test]
fn evidence_against_the_past_is_dropped_when_a_reverse_canary_begins_recorded_or_not() {
    let mut stage = compared_after_promotion(rolling());
    fail_against_the_past(&mut stage);
    let live = stage.rollout().evidence.clone();
    assert!(live.judgement().unwrap().verdict.is_fail());
    stage.carry();
    assert!(stage.rollout().is_reverse_canary());
    let live = stage.rollout().evidence_after_shift(live);
    assert_eq!(live, RolloutEvidence::default());
}

#[test]
fn a_release_that_is_worse_than_the_previous_one_at_the_same_time_is_rolled_back() {
    let mut stage = compared_after_promotion(rolling());
    fail_against_the_past(&mut stage);
    stage.carry();
    for second in 0..200 {
        if stage.rollout().direction == PlanDirection::Back {
            break;
        }
        stage.pass_time(1);
        let (bad, good) = (10_000 + 100 * second, 300_000 + 100 * second);
        stage.compare((bad, 1_000 + 10 * second), (good, 300));
    }
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
    assert_eq!(stage.rollout().observed.promoted, Some(ReleaseNumber(3)));
}

#[test]
fn when_nearly_all_requests_fail_the_rollback_does_not_wait_for_a_comparison() {
    let mut stage = compared_after_promotion(rolling());
    stage.pass_time(1);
    stage.compare((100, 100), (200_000, 200));
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
}

#[test]
fn requests_that_never_get_an_answer_are_failures_too() {
    for strategy in [rolling(), Strategy::Recreate(Recreate {})] {
        let mut stage = compared_after_promotion(strategy);
        stage.pass_time(1);
        let side = |release: &str, sample| ReleaseSample {
            release: release.into(),
            sample: Some(sample),
        };
        let hanging = Sample {
            abandoned: 100,
            ..Sample::default()
        };
        let stable = Sample {
            requests: 200_000,
            errors: 200,
            ..Sample::default()
        };
        let seen = Box::new(Observation {
            at: stage.now,
            canary: side("#4", hanging),
            stable: Some(side("#3", stable)),
        });
        let exposure = stage.rollout().exposure;
        stage
            .say(RolloutInput::Measured { exposure, seen })
            .unwrap();
        assert_eq!(
            stage.rollout().direction,
            PlanDirection::Back,
            "{:#?}",
            stage.story
        );
    }
}

#[test]
fn recreate_never_runs_two_releases_so_people_are_notified_once() {
    let mut stage = compared_after_promotion(Strategy::Recreate(Recreate {}));
    fail_against_the_past(&mut stage);
    let rollout = stage.rollout();
    assert_eq!(rollout.direction, PlanDirection::Forward);
    assert_eq!(rollout.plan_number, 1);
    let told = |notice: &&RolloutNotice| notice.title.contains("degraded");
    assert_eq!(rollout.notices.iter().filter(told).count(), 1);
}

#[test]
fn a_previous_release_that_can_not_be_started_blames_nobody() {
    let mut stage = compared_after_promotion(rolling());
    fail_against_the_past(&mut stage);
    let (plan, index) = stage.carried().unwrap();
    let (why, smoke) = ("exit code 1".to_owned(), None);
    let failed = RolloutInput::Failed {
        plan,
        index,
        why,
        smoke,
    };
    stage.say(failed).unwrap();
    stage.carry();
    let rollout = stage.rollout();
    assert_eq!(rollout.direction, PlanDirection::Forward);
    assert_eq!(rollout.observed.count(ReleaseNumber(3)), 0);
    assert!(rollout.guarded_until().is_some(), "{:#?}", stage.story);
}
