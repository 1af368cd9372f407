//! A rejected release goes nowhere: not by promotion, by hand, by force, by a retry or by a rollback.

use super::*;
use crate::{release::Release, rollout::RolloutKind};

const TWO: &str =
    "service: shop\nrun: { command: ./shop }\nenvironments:\n  staging: {}\n  production: {}\n";

fn reject(release: &Arc<Release>) -> ServiceInput {
    ServiceInput::RejectRelease {
        release: release.clone(),
        reason: "the prices are wrong".into(),
    }
}

fn deploy(release: &Arc<Release>, environment: &str, force: Override) -> ServiceInput {
    ServiceInput::Deploy {
        release: release.clone(),
        environment: Some(environment.parse().unwrap()),
        force,
        why: "by hand".into(),
    }
}

impl Stage {
    fn made(&self, number: u32) -> Arc<Release> {
        let mut made = self.log.iter().filter_map(|event| match &event.body {
            ServiceEvent::ReleaseCreated { release, .. } => Some(release.clone()),
            _ => None,
        });
        made.find(|release| release.number.0 == number).unwrap()
    }

    fn refusal(&mut self, input: ServiceInput) -> String {
        self.try_say(input).unwrap_err().to_string()
    }
}

#[test]
fn a_rejected_release_leaves_its_rollout_and_no_environment_accepts_it_until_that_is_undone() {
    let mut stage = Stage::new();
    stage.push(1, TWO, 1);
    stage.run_ends(1, true, &["shop"]);
    let release = stage.made(1);
    let back = "preemption ro1 back: #1 was rejected by ada: the prices are wrong (ada)";
    assert_eq!(stage.say(reject(&release)), ["ReleaseRejected", back]);
    assert_eq!(stage.say(reject(&release)), [""; 0], "once");
    stage.ends(1, RolloutOutcome::Aborted, 0);
    let retry = ServiceInput::Retry(Box::new(RetryRequest {
        rollout: RolloutNumber(1),
        kind: RolloutKind::Deploy,
        release: release.clone(),
        environment: "staging".parse().unwrap(),
        why: "again".into(),
    }));
    for input in [
        deploy(&release, "staging", Override::No),
        deploy(&release, "production", Override::Yes),
        retry,
    ] {
        let refusal = stage.refusal(input);
        for words in [
            "#1 was rejected by ada: the prices are wrong",
            "shipway reject shop --release 1 --undo",
        ] {
            assert!(refusal.contains(words), "{refusal}");
        }
    }
    let undo = || ServiceInput::UndoReleaseRejection {
        release: ReleaseNumber(1),
        reason: None,
    };
    assert_eq!(stage.say(undo()), ["ReleaseRejectionUndone"]);
    assert_eq!(stage.say(undo()), [""; 0]);
    let again = stage.say(deploy(&release, "staging", Override::Yes));
    assert_eq!(again[0], "#1 wants staging");
}

#[test]
fn a_rejection_stops_the_promotion_and_drops_what_is_queued() {
    let mut stage = Stage::new();
    stage.push(1, TWO, 1);
    stage.run_ends(1, true, &["shop"]);
    let first = stage.made(1);
    let busy = deploy(&first, "production", Override::No);
    assert_eq!(stage.say(busy).len(), 2);
    stage.push(2, TWO, 1);
    stage.run_ends(2, true, &["shop"]);
    let second = stage.made(2);
    // Staging runs #2 after #1; production has #1 on its way, and #2 in its queue.
    stage.ends(1, RolloutOutcome::Superseded, 0);
    stage.say(deploy(&second, "production", Override::No));
    let said = stage.say(reject(&second));
    assert_eq!(said[0], "ReleaseRejected", "{said:?}");
    assert!(
        said.contains(&"dropped #2: #2 was rejected".to_owned()),
        "{said:?}"
    );
    let queue = &stage.place("production").queue;
    assert!(queue.iter().all(|it| it.release.number.0 != 2));
    let staging = stage.place("staging").active.as_ref().unwrap();
    assert!(matches!(
        staging.preemption,
        Some(Preemption::RollBack { .. })
    ));
}

#[test]
fn a_rollback_skips_a_rejected_release_and_one_to_it_is_refused() {
    let one = "service: shop\nrun: { command: ./shop }\nenvironments:\n  production: {}\n";
    let mut stage = Stage::promoted_hourly(one, 3);
    let second = stage.made(2);
    assert_eq!(stage.say(reject(&second)), ["ReleaseRejected"]);
    let rollback = |to| ServiceInput::Rollback {
        environment: "production".parse().unwrap(),
        to,
        force: Override::Yes,
        why: "customers call".into(),
    };
    let refusal = stage.refusal(rollback(Some(second)));
    assert!(refusal.contains("#2 was rejected"), "{refusal}");
    let said = stage.say(rollback(None));
    assert!(said.contains(&"#1 wants production".to_owned()), "{said:?}");
    let empty = ServiceInput::RejectRelease {
        release: stage.made(1),
        reason: " ".into(),
    };
    assert!(stage.refusal(empty).contains("--reason"));
}
