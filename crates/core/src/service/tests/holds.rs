//! People outrank automation: rollbacks are not superseded, and environments are held until a person resumes them.

use super::*;
use crate::{release::Release, rollout::RolloutKind};

const FILE: &str = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production: {}\n";

fn production() -> EnvironmentName {
    "production".parse().unwrap()
}

fn rollback() -> ServiceInput {
    ServiceInput::Rollback {
        environment: production(),
        to: None,
        force: Override::No,
        why: "customers call".into(),
    }
}

fn resume() -> ServiceInput {
    ServiceInput::ResumeEnvironment {
        environment: production(),
        reason: None,
    }
}

fn deploy(release: &Arc<Release>) -> ServiceInput {
    ServiceInput::Deploy {
        release: release.clone(),
        environment: Some(production()),
        force: Override::Yes,
        why: "by hand".into(),
    }
}

impl Stage {
    /// Releases #1 and #2 were promoted by ro1 and ro2; #2 is stable.
    fn two_releases() -> Self {
        Self::promoted_hourly(FILE, 2)
    }

    /// A green push of this number, and what follows beside the run and the release.
    fn green_push(&mut self, number: u32, file: &str) -> Vec<String> {
        self.push(number, file, 1);
        self.run_ends(number, true, &["shop"]).split_off(2)
    }

    fn release(&self, number: u32) -> Arc<Release> {
        let mut made = self.log.iter().filter_map(|event| match &event.body {
            ServiceEvent::ReleaseCreated { release, .. } => Some(release.clone()),
            _ => None,
        });
        made.find(|release| release.number.0 == number).unwrap()
    }

    fn queue(&self) -> Vec<u32> {
        let queue = &self.place("production").queue;
        queue.iter().map(|it| it.release.number.0).collect()
    }

    /// What is pending is the same however far the log is read, and whether it was written or folded.
    fn resumes_at_every_length(&self) {
        let (mut live, mut read) = (ServiceState::default(), ServiceState::default());
        for event in &self.log {
            let text = serde_json::to_string(event).unwrap();
            state::apply(&mut live, event);
            state::apply(&mut read, &serde_json::from_str(&text).unwrap());
            assert_eq!(
                ServiceAggregate::pending(&live, self.now),
                ServiceAggregate::pending(&read, self.now),
                "after {text}"
            );
            let holds = |state: &ServiceState| {
                let places = state.environments.values();
                places.map(|place| place.hold.clone()).collect::<Vec<_>>()
            };
            assert_eq!(holds(&live), holds(&read), "after {text}");
        }
    }
}

#[test]
fn a_rollback_that_runs_is_not_superseded_by_a_push_and_holds_the_environment() {
    let mut stage = Stage::two_releases();
    assert_eq!(
        stage.say(rollback()),
        [
            "production is held: customers call",
            "#1 wants production",
            "rollout ro3 #1→production"
        ]
    );
    assert_eq!(stage.green_push(3, FILE), ["#3 wants production"]);
    stage.promoted(3, 1);
    assert_eq!(stage.ends(3, RolloutOutcome::Promoted, 1), ["RolloutEnded"]);
    assert_eq!(stage.queue(), [3], "it waits, it is not lost");
    assert_eq!(
        stage.say(resume()),
        ["production is resumed", "rollout ro4 #3→production"]
    );
    assert_eq!(stage.say(resume()), [""; 0], "resumed once");
    stage.resumes_at_every_length();
}

#[test]
fn a_rollback_that_waits_is_not_superseded_by_a_push_a_retry_or_a_deploy() {
    let mut stage = Stage::promoted_hourly(FILE, 3);
    stage.green_push(4, FILE);
    let to = Some(stage.former(1));
    let back = ServiceInput::Rollback {
        environment: production(),
        to,
        force: Override::No,
        why: "customers call".into(),
    };
    assert_eq!(
        stage.say(back),
        [
            "production is held: customers call",
            "#1 wants production",
            "preemption ro4 supersede by #1"
        ]
    );
    assert_eq!(stage.green_push(5, FILE), ["#5 wants production"]);
    let by_hand = stage.release(2);
    assert_eq!(stage.say(deploy(&by_hand)), ["#2 wants production"]);
    let retry = ServiceInput::Retry(Box::new(RetryRequest {
        rollout: RolloutNumber(2),
        kind: RolloutKind::Deploy,
        release: stage.release(2),
        environment: production(),
        why: "again".into(),
    }));
    assert_eq!(
        stage.say(retry.clone()),
        ["dropped #2: #2 was requested again", "#2 wants production"]
    );
    assert_eq!(stage.say(retry), [""; 0], "a retry that waits is one retry");
    assert_eq!(stage.queue(), [1, 5, 2], "the rollback comes first");
    assert_eq!(
        stage.ends(4, RolloutOutcome::Superseded, 3),
        ["RolloutEnded", "rollout ro5 #1→production"]
    );
    stage.resumes_at_every_length();
}

#[test]
fn a_rollback_asked_twice_or_by_two_people_at_once_is_one_rollback() {
    let mut stage = Stage::two_releases();
    stage.say(rollback());
    assert_eq!(stage.say(rollback()), [""; 0]);
    let active = stage.place("production").active.as_ref().unwrap();
    assert_eq!(active.spec.kind, RolloutKind::Rollback);
    assert_eq!(
        active.preemption, None,
        "the second one does not undo the first"
    );
    // Of a running deploy too.
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    assert_eq!(
        stage.say(rollback()),
        [
            "production is held: customers call",
            "preemption ro3 back: customers call (ada)"
        ]
    );
    assert_eq!(stage.say(rollback()), [""; 0]);
}

#[test]
fn a_rollback_to_what_is_stable_already_is_refused_and_leaves_the_hold_as_it_is() {
    let mut stage = Stage::two_releases();
    stage.say(rollback());
    stage.promoted(3, 1);
    stage.ends(3, RolloutOutcome::Promoted, 1);
    let hold = stage.place("production").hold.clone().unwrap();
    let again = ServiceInput::Rollback {
        environment: production(),
        to: Some(stage.release(1)),
        force: Override::No,
        why: "no reason given".into(),
    };
    let refused = stage.try_say(again).unwrap_err();
    assert!(
        matches!(refused, ServiceRejection::StableAlready { .. }),
        "{refused}"
    );
    assert_eq!(stage.place("production").hold, Some(hold));
}

#[test]
fn a_person_who_stops_the_retries_of_a_rollback_holds_the_environment() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    stage.ends_by(
        crate::access::Principal::person("ann").actor(),
        3,
        RolloutOutcome::Failed,
        3,
    );
    let hold = stage.place("production").hold.as_ref().unwrap();
    assert_eq!(
        (hold.by.as_str(), hold.reason.as_str()),
        ("ann", "customers call")
    );
}

#[test]
fn a_release_that_is_asked_for_again_is_not_superseded() {
    let mut stage = Stage::two_releases();
    stage.say(rollback());
    stage.green_push(3, FILE);
    assert_eq!(stage.queue(), [3]);
    let third = stage.release(3);
    let events = stage.say(deploy(&third));
    assert_eq!(events[0], "dropped #3: #3 was requested again");
    assert_eq!(stage.queue(), [3]);
}

#[test]
fn a_rollback_of_a_promoted_rollout_needs_its_warm_set_and_no_push_takes_it_away() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    stage.promoted(3, 3);
    assert_eq!(
        stage.say(rollback()),
        [
            "production is held: customers call",
            "preemption ro3 back: customers call (ada)"
        ]
    );
    assert_eq!(stage.green_push(4, FILE), ["#4 wants production"]);
    let active = stage.place("production").active.as_ref().unwrap();
    assert!(matches!(
        active.preemption,
        Some(Preemption::RollBack { .. })
    ));
    stage.resumes_at_every_length();
}

#[test]
fn a_rollback_that_came_too_late_for_the_running_rollout_gets_one_of_its_own() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    stage.promoted(3, 3);
    stage.say(rollback());
    // It had ended before it heard.
    assert_eq!(
        stage.ends(3, RolloutOutcome::Promoted, 3),
        [
            "RolloutEnded",
            "#2 wants production",
            "rollout ro4 #2→production"
        ]
    );
    let active = stage.place("production").active.as_ref().unwrap();
    assert_eq!(active.spec.kind, RolloutKind::Rollback);
}

#[test]
fn an_abort_by_a_person_holds_the_environment_and_an_automatic_rollback_does_not() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    assert_eq!(
        stage.ends(3, RolloutOutcome::Aborted, 2),
        ["RolloutEnded", "production is held: customers call"]
    );
    let hold = stage.place("production").hold.clone().unwrap();
    assert_eq!((hold.by.as_str(), hold.since), ("ann", stage.now));
    assert_eq!(stage.green_push(4, FILE), ["#4 wants production"]);
    assert_eq!(
        stage.green_push(5, FILE),
        ["dropped #4: superseded by #5", "#5 wants production"],
        "the newest one waits"
    );
    stage.resumes_at_every_length();
    for outcome in [
        RolloutOutcome::RolledBack,
        RolloutOutcome::Rejected,
        RolloutOutcome::Failed,
    ] {
        let mut stage = Stage::two_releases();
        stage.green_push(3, FILE);
        assert_eq!(stage.ends(3, outcome, 2), ["RolloutEnded"], "{outcome}");
        assert_eq!(
            stage.green_push(4, FILE),
            ["#4 wants production", "rollout ro4 #4→production"],
            "{outcome}: the next green commit goes out"
        );
    }
}

#[test]
fn what_waits_while_a_person_aborts_is_held_and_not_started() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    assert_eq!(
        stage.green_push(4, FILE),
        ["#4 wants production", "preemption ro3 supersede by #4"]
    );
    // A person was faster: the rollout was aborted, not superseded.
    assert_eq!(
        stage.ends(3, RolloutOutcome::Aborted, 2),
        ["RolloutEnded", "production is held: customers call"]
    );
    assert_eq!(stage.queue(), [4]);
}

#[test]
fn a_person_deploys_into_a_held_environment_and_the_hold_stays() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    stage.ends(3, RolloutOutcome::Aborted, 2);
    stage.green_push(4, FILE);
    let by_hand = stage.release(4);
    assert_eq!(
        stage.say(deploy(&by_hand)),
        [
            "dropped #4: #4 was requested again",
            "#4 wants production",
            "rollout ro4 #4→production"
        ]
    );
    // Automation neither supersedes it nor ends the warmth of its previous set.
    assert_eq!(stage.green_push(5, FILE), ["#5 wants production"]);
    assert_eq!(stage.promoted(4, 4), ["Promoted"]);
    assert_eq!(stage.ends(4, RolloutOutcome::Promoted, 4), ["RolloutEnded"]);
    assert!(stage.place("production").hold.is_some());
    assert_eq!(
        stage.say(resume()),
        ["production is resumed", "rollout ro5 #5→production"]
    );
    stage.resumes_at_every_length();
}

#[test]
fn resuming_ends_the_warmth_that_a_waiting_release_does_not_need() {
    let mut stage = Stage::two_releases();
    stage.green_push(3, FILE);
    stage.ends(3, RolloutOutcome::Aborted, 2);
    let by_hand = stage.release(1);
    stage.say(deploy(&by_hand));
    stage.promoted(4, 1);
    stage.green_push(4, FILE);
    assert_eq!(
        stage.say(resume()),
        ["production is resumed", "preemption ro4 finish for #4"]
    );
}

#[test]
fn a_retry_of_a_rollback_is_a_rollback_and_an_unknown_environment_is_refused() {
    let mut stage = Stage::two_releases();
    stage.say(rollback());
    stage.ends(3, RolloutOutcome::RolledBack, 2);
    let retry = ServiceInput::Retry(Box::new(RetryRequest {
        rollout: RolloutNumber(3),
        kind: RolloutKind::Rollback,
        release: stage.release(1),
        environment: production(),
        why: "again".into(),
    }));
    stage.say(retry);
    let active = stage.place("production").active.as_ref().unwrap();
    assert_eq!(active.spec.kind, RolloutKind::Rollback);
    let elsewhere = ServiceInput::ResumeEnvironment {
        environment: "moon".parse().unwrap(),
        reason: None,
    };
    let refused = stage.try_say(elsewhere).unwrap_err().to_string();
    assert!(
        refused.contains("\"moon\"") && refused.contains("production"),
        "{refused}"
    );
}
