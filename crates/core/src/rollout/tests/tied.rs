//! Rollouts of tied services: promoted together, or back together.

use super::*;
use crate::rollout::peers::{BarrierDecision, PeerStage as Where, RolloutPeer, decide_barrier};

fn tied() -> RolloutSpec {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.peers = vec!["cart".parse().unwrap()];
    wanted
}

fn at_the_meeting() -> RolloutHarness {
    let mut stage = RolloutHarness::open(tied());
    while !matches!(stage.rollout().action(), Some(PlanAction::Barrier { .. })) {
        assert_eq!(stage.rollout().stage(), Where::Coming);
        match stage.carried() {
            Some((plan, index)) => drop(stage.say(done(plan, index))),
            None => stage.good_hold(),
        }
    }
    stage
}

fn done(plan: u32, index: usize) -> RolloutInput {
    RolloutInput::Done {
        plan,
        index,
        note: None,
        smoke: None,
    }
}

#[test]
fn a_tied_rollout_waits_before_its_last_shift_however_long_it_takes() {
    let mut stage = at_the_meeting();
    assert_eq!(
        stage.rollout().observed.split.to_string(),
        "50% to #4, 50% to #3"
    );
    assert_eq!(stage.rollout().stage(), Where::There);
    stage.pass_time(100_000);
    assert_eq!(
        stage.rollout().status(),
        RolloutStatus::WaitingForPeers,
        "others have no deadline of ours"
    );
    stage.carry();
    assert_eq!(stage.rollout().status(), RolloutStatus::Promoted);
    assert_eq!(stage.rollout().stage(), Where::There);
}

#[test]
fn a_peer_that_rolls_back_takes_the_others_along() {
    for mut stage in [at_the_meeting(), RolloutHarness::open(tied())] {
        stage
            .say(RolloutInput::PeerRolledBack {
                why: "cart/ro3 was rolled back: 5xx".into(),
            })
            .unwrap();
        assert_eq!(
            stage.rollout().rollback_start.as_ref().unwrap().why,
            "cart/ro3 was rolled back: 5xx"
        );
        assert_eq!(
            stage.say(RolloutInput::PeerRolledBack {
                why: "again".into()
            }),
            Ok(0)
        );
        assert!(matches!(stage.rollout().stage(), Where::Back { .. }));
    }
}

#[test]
fn only_a_superseded_rollout_leaves_its_peers_running_whatever_the_reason_says() {
    let reason = || "superseded by the hotfix".to_owned();
    for (cause, expected) in [
        (AbortCause::Superseded, Where::Aside),
        (
            AbortCause::Person,
            Where::Back {
                at: start(),
                why: reason(),
            },
        ),
    ] {
        let mut stage = RolloutHarness::open(tied());
        let reason = reason();
        stage.say(RolloutInput::Abort { cause, reason }).unwrap();
        assert_eq!(stage.rollout().stage(), expected, "{cause:?}");
        stage.carry();
        assert_eq!(stage.rollout().stage(), expected, "and once it has ended");
    }
}

#[test]
fn the_others_are_waited_for_and_one_that_went_back_decides() {
    let peer = |name: &str, stage| RolloutPeer {
        name: name.to_owned(),
        stage,
    };
    let back = || Where::Back {
        at: start(),
        why: "5xx".to_owned(),
    };
    let there = peer("cart/ro3", Where::There);
    assert_eq!(
        decide_barrier(&[there.clone(), peer("mail/ro1", Where::Aside)]),
        BarrierDecision::Go
    );
    assert_eq!(
        decide_barrier(&[there.clone(), peer("mail", Where::Coming)]),
        BarrierDecision::Wait("mail".into())
    );
    assert_eq!(
        decide_barrier(&[peer("mail", Where::Coming), peer("cart/ro3", back())]),
        BarrierDecision::Back("cart/ro3 was rolled back: 5xx".into())
    );
}
