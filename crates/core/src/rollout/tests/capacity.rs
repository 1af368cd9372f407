//! Ready instances: no shift and no promotion without them, and a rollback when they are lost.

use super::*;
use crate::rollout::SetReadiness;

const CANDIDATE: ReleaseNumber = ReleaseNumber(4);
const STABLE: ReleaseNumber = ReleaseNumber(3);

impl RolloutHarness {
    /// What the target reports: ready instances of the candidate and of stable.
    fn ready(&mut self, candidate: u32, stable: u32) {
        let set = |release, ready| SetReadiness {
            release,
            ready,
            problem: (ready == 0).then(|| "instance 1: HTTP 503".to_owned()),
        };
        let report = vec![set(CANDIDATE, candidate), set(STABLE, stable)];
        self.say(RolloutInput::Readiness(report)).unwrap();
    }

    /// The same, reported again after some seconds.
    fn ready_after(&mut self, seconds: i64, candidate: u32, stable: u32) {
        self.pass_time(seconds);
        self.ready(candidate, stable);
    }

    fn is_rolling_back(&self) -> bool {
        self.rollout().direction == PlanDirection::Back
    }
}

fn holding(instances: u32) -> RolloutHarness {
    let mut stage = RolloutHarness::open(spec(canary(), instances, Some(3)));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Holding);
    stage
}

#[test]
fn a_canary_whose_only_instance_becomes_unready_is_rolled_back_within_seconds() {
    let mut stage = holding(3);
    stage.ready(1, 3);
    stage.ready_after(5, 0, 3);
    assert!(!stage.is_rolling_back(), "one bad moment is not enough");
    stage.ready_after(2, 0, 3);
    assert!(stage.is_rolling_back(), "{:#?}", stage.story);
    let turn = stage.rollout().rollback_start.clone().unwrap();
    assert!(
        turn.why.contains("0 of 1 instances of #4 ready"),
        "{turn:?}"
    );
    assert!(turn.why.contains("HTTP 503"), "{turn:?}");
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::RolledBack);
}

#[test]
fn readiness_that_comes_back_in_time_changes_nothing() {
    let mut stage = holding(3);
    stage.ready_after(5, 0, 3);
    stage.pass_time(1);
    stage.now -= jiff::SignedDuration::from_millis(500);
    stage.ready(1, 3);
    stage.ready_after(60, 1, 3);
    assert!(!stage.is_rolling_back(), "{:#?}", stage.story);
    let recorded = |event: &&Event<RolloutEvent>| {
        matches!(
            event.body,
            RolloutEvent::CapacityLost { .. } | RolloutEvent::CapacityRestored { .. }
        )
    };
    assert_eq!(stage.log.iter().filter(recorded).count(), 2);
}

#[test]
fn a_partial_shortage_has_the_time_in_which_health_checks_notice_it() {
    let mut stage = holding(4);
    stage.good_hold();
    stage.carry();
    // At 50% two of four instances are needed; the interval is 2 s and three probes must fail.
    stage.ready(1, 4);
    stage.ready_after(5, 1, 4);
    assert!(!stage.is_rolling_back());
    stage.ready_after(1, 1, 4);
    assert!(stage.is_rolling_back());
}

#[test]
fn a_configured_grace_period_holds_without_any_instance_too() {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.environment.unready_grace = Some(Duration::from_secs(20));
    let mut stage = RolloutHarness::open(wanted);
    stage.carry();
    stage.ready(0, 3);
    stage.ready_after(19, 0, 3);
    assert!(!stage.is_rolling_back());
    stage.ready_after(1, 0, 3);
    assert!(stage.is_rolling_back());
}

#[test]
fn a_paused_rollout_is_guarded_as_well() {
    let mut stage = holding(3);
    let reason = "look first".to_owned();
    stage.say(RolloutInput::Pause { reason }).unwrap();
    stage.ready(0, 3);
    stage.ready_after(2, 0, 3);
    assert!(stage.is_rolling_back());
}

#[test]
fn while_stable_is_not_healthy_either_traffic_stays_and_people_are_told_once() {
    let mut stage = holding(3);
    stage.ready(0, 0);
    for _ in 0..5 {
        stage.ready_after(5, 0, 0);
    }
    assert!(!stage.is_rolling_back());
    let degraded = |notice: &&RolloutNotice| notice.title.contains("degraded");
    assert_eq!(stage.rollout().notices.iter().filter(degraded).count(), 1);
    stage.ready_after(1, 0, 3);
    assert!(stage.is_rolling_back(), "stable is back");
}

#[test]
fn a_recorded_shortage_alone_rolls_nothing_back_after_a_restart_of_the_server() {
    let mut stage = holding(3);
    stage.ready(0, 3);
    stage.now += jiff::SignedDuration::from_secs(50);
    stage.say(RolloutInput::TimerFired).unwrap();
    assert!(!stage.is_rolling_back());
    stage.ready(1, 3);
    assert!(!stage.is_rolling_back());
}

#[test]
fn in_keep_traffic_goes_back_to_the_warm_set_before_its_instances_are_counted() {
    let strategy = Strategy::BlueGreen(BlueGreen::default());
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::KeptWarm);
    stage.ready(2, 2);
    stage.ready_after(5, 0, 1);
    stage.ready_after(2, 0, 1);
    let plan: Vec<String> = stage.rollout().plan.actions[..4]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        plan,
        [
            "start 2 instances of #3, without traffic",
            "wait until 1 instance of #3 is ready",
            "shift traffic: 100% to #3",
            "wait until 2 instances of #3 are ready",
        ]
    );
    stage.carry();
    assert_eq!(stage.rollout().observed.promoted, Some(STABLE));
}

#[test]
fn a_rollback_that_fails_is_retried_with_backoff_until_it_succeeds() {
    let strategy = Strategy::BlueGreen(BlueGreen::default());
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    let reason = "customers call".to_owned();
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason,
        })
        .unwrap();
    for wait in [1, 2, 4, 8] {
        fail_action(&mut stage, "exit code 1");
        assert!(stage.carried().is_none(), "it waits");
        assert_eq!(
            stage.rollout().observed.split,
            TrafficSplit::all_to(CANDIDATE)
        );
        stage.pass_time(wait);
        assert!(stage.carried().is_some(), "attempt after {wait} s");
    }
    let calls = |notice: &&RolloutNotice| notice.title.contains("the rollback failed");
    assert_eq!(stage.rollout().notices.iter().filter(calls).count(), 1);
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Aborted);
    let why = &stage.rollout().ended.as_ref().unwrap().why;
    assert!(why.starts_with("customers call"), "{why}");
}

#[test]
fn a_person_can_stop_the_retries_of_a_rollback() {
    let strategy = Strategy::BlueGreen(BlueGreen::default());
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    let reason = || "customers call".to_owned();
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: reason(),
        })
        .unwrap();
    fail_action(&mut stage, "exit code 1");
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: reason(),
        })
        .unwrap();
    assert_eq!(stage.rollout().status(), RolloutStatus::Failed);
    assert_eq!(
        stage.rollout().observed.split,
        TrafficSplit::all_to(CANDIDATE)
    );
}

/// A keep in which the new release fails, so that it is rolled back by itself.
fn rolled_back_by_evidence() -> RolloutHarness {
    let strategy = Strategy::BlueGreen(BlueGreen::default());
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    let why = "exit code 7".to_owned();
    stage.say(RolloutInput::CrashLoop { why }).unwrap();
    assert_eq!(stage.rollout().direction, PlanDirection::Back);
    stage
}

#[test]
fn a_rollback_that_fails_makes_room_for_a_release_that_waits() {
    let next = || RolloutInput::EndKeep {
        next: Some(ReleaseNumber(5)),
    };
    let superseded = || RolloutInput::Abort {
        cause: AbortCause::Superseded,
        reason: "superseded by #5".to_owned(),
    };
    for waiting in [next, superseded] {
        // It waits before the first attempt fails, or afterwards.
        for attempts_before in [0, 2] {
            let mut stage = rolled_back_by_evidence();
            for attempt in 0..attempts_before {
                fail_action(&mut stage, "exit code 1");
                stage.pass_time(1 << attempt);
            }
            stage.say(waiting()).unwrap();
            if attempts_before == 0 {
                assert_eq!(stage.rollout().direction, PlanDirection::Back);
                assert!(stage.rollout().ended.is_none(), "the first attempt is made");
                fail_action(&mut stage, "exit code 1");
            }
            let end = stage.rollout().ended.clone().unwrap();
            assert_eq!(end.outcome, RolloutOutcome::Failed);
            assert!(end.why.contains("#5"), "{}", end.why);
        }
    }
}

#[test]
fn a_rollback_that_a_person_asked_for_is_retried_whatever_waits() {
    let strategy = Strategy::BlueGreen(BlueGreen::default());
    let mut stage = RolloutHarness::open(spec(strategy, 2, Some(3)));
    stage.carry();
    let reason = "customers call".to_owned();
    let cause = AbortCause::Person;
    stage.say(RolloutInput::Abort { cause, reason }).unwrap();
    let next = Some(ReleaseNumber(5));
    stage.say(RolloutInput::EndKeep { next }).unwrap();
    fail_action(&mut stage, "exit code 1");
    assert!(stage.rollout().ended.is_none());
    stage.pass_time(1);
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Aborted);
}

#[test]
fn a_weight_needs_its_share_of_the_instances() {
    let stage = holding(10);
    let rollout = stage.rollout();
    let needed = |percent: f64| {
        let weight = Weight::from_percent(percent).unwrap();
        rollout.instances_needed(&TrafficSplit::between(CANDIDATE, weight, STABLE), CANDIDATE)
    };
    assert_eq!(needed(0.0), 0);
    assert_eq!(needed(10.0), 1);
    // One instance is started for 10%: the plan starts the others before the weight rises.
    assert_eq!(needed(50.0), 1);
    let split = TrafficSplit::between(CANDIDATE, Weight::HALF, STABLE);
    assert_eq!(rollout.instances_needed_to_grow(&split), [(CANDIDATE, 1)]);
    assert_eq!(
        rollout.instances_needed_to_grow(&TrafficSplit::all_to(STABLE)),
        [(STABLE, 10)]
    );
}

fn fail_action(stage: &mut RolloutHarness, why: &str) {
    let (plan, index) = stage.carried().unwrap();
    let (why, smoke) = (why.to_owned(), None);
    let failed = RolloutInput::Failed {
        plan,
        index,
        why,
        smoke,
    };
    stage.say(failed).unwrap();
}
