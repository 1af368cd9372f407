//! Rollouts of tied services: promoted together, or back together.

use super::*;
use crate::rollout::meet::{Fellow, Meeting, Stage as Where, meeting};

fn tied() -> Spec {
    let mut wanted = spec(canary(), 3, Some(3));
    wanted.tied = vec!["cart".parse().unwrap()];
    wanted
}

fn at_the_meeting() -> Stage {
    let mut stage = Stage::open(tied());
    while !matches!(stage.rollout().action(), Some(Action::Meet { .. })) {
        assert_eq!(stage.rollout().stage(), Where::Coming);
        match stage.carried() {
            Some((plan, index)) => drop(stage.say(done(plan, index))),
            None => stage.good_hold(),
        }
    }
    stage
}

fn done(plan: u32, index: usize) -> Input {
    Input::Done {
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
        Status::Meeting,
        "others have no deadline of ours"
    );
    stage.carry();
    assert_eq!(stage.rollout().status(), Status::Promoted);
    assert_eq!(stage.rollout().stage(), Where::There);
}

#[test]
fn a_fellow_that_goes_back_takes_the_others_along() {
    for mut stage in [at_the_meeting(), Stage::open(tied())] {
        stage
            .say(Input::FellowBack {
                why: "cart/ro3 went back: 5xx".into(),
            })
            .unwrap();
        assert_eq!(
            stage.rollout().turned_back.as_ref().unwrap().why,
            "cart/ro3 went back: 5xx"
        );
        assert_eq!(
            stage.say(Input::FellowBack {
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
        let mut stage = Stage::open(tied());
        let reason = reason();
        stage.say(Input::Abort { cause, reason }).unwrap();
        assert_eq!(stage.rollout().stage(), expected, "{cause:?}");
        stage.carry();
        assert_eq!(stage.rollout().stage(), expected, "and once it has ended");
    }
}

#[test]
fn the_others_are_waited_for_and_one_that_went_back_decides() {
    let fellow = |name: &str, stage| Fellow {
        name: name.to_owned(),
        stage,
    };
    let back = || Where::Back {
        at: start(),
        why: "5xx".to_owned(),
    };
    let there = fellow("cart/ro3", Where::There);
    assert_eq!(
        meeting(&[there.clone(), fellow("mail/ro1", Where::Aside)]),
        Meeting::Go
    );
    assert_eq!(
        meeting(&[there.clone(), fellow("mail", Where::Coming)]),
        Meeting::Wait("mail".into())
    );
    assert_eq!(
        meeting(&[fellow("mail", Where::Coming), fellow("cart/ro3", back())]),
        Meeting::Back("cart/ro3 went back: 5xx".into())
    );
}
