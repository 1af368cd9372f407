//! Notices: each destination gets all of them in order, whatever the others do.

use super::*;

/// A rollout whose notices go to two destinations.
fn with_two_destinations() -> RolloutHarness {
    let mut wanted = spec(canary(), 3, Some(3));
    let second = config::NotificationTarget::Webhook("http://127.0.0.1:10/".into());
    wanted.environment.notify.push(second);
    RolloutHarness::open(wanted)
}

/// What is owed now, as (notice, destination).
fn owed(state: &RolloutState, now: Timestamp) -> Vec<(usize, usize)> {
    let effects = RolloutAggregate::pending(state, now).effects;
    let notify = |(_, effect): &(_, RolloutEffect)| match effect {
        RolloutEffect::Notify {
            index, destination, ..
        } => Some((*index, *destination)),
        _ => None,
    };
    effects.iter().filter_map(notify).collect()
}

fn finish_notification(
    stage: &mut RolloutHarness,
    index: usize,
    destination: usize,
    failed: Option<&str>,
) -> usize {
    let failed = failed.map(str::to_owned);
    stage
        .say(RolloutInput::NotificationFinished {
            index,
            destination,
            failed,
        })
        .unwrap()
}

fn rolled_back() -> RolloutHarness {
    let mut stage = with_two_destinations();
    stage.carry();
    stage
        .say(RolloutInput::Abort {
            cause: AbortCause::Person,
            reason: "customers call".into(),
        })
        .unwrap();
    stage.carry();
    assert_eq!(stage.rollout().notices.len(), 2, "{:#?}", stage.story);
    stage.say(RolloutInput::ServiceNotified).unwrap();
    stage
}

#[test]
fn a_destination_that_hangs_delays_only_its_own_notices() {
    let mut stage = rolled_back();
    assert_eq!(owed(&stage.state, stage.now), [(0, 0), (0, 1)]);
    finish_notification(&mut stage, 0, 1, None);
    assert_eq!(owed(&stage.state, stage.now), [(0, 0), (1, 1)]);
    finish_notification(&mut stage, 1, 1, None);
    assert_eq!(owed(&stage.state, stage.now), [(0, 0)]);
    assert!(RolloutAggregate::pending(&stage.state, stage.now).live);
    finish_notification(&mut stage, 0, 0, Some("the webhook at a: no answer"));
    finish_notification(&mut stage, 1, 0, None);
    assert!(!RolloutAggregate::pending(&stage.state, stage.now).live);
    let notes = stage.rollout().notes.iter();
    let given_up: Vec<_> = notes
        .filter(|note| note.text.contains("was not delivered"))
        .map(|note| note.text.as_str())
        .collect();
    let [only] = given_up.as_slice() else {
        panic!("{given_up:?}");
    };
    assert!(
        only.starts_with("notification \"shop #4 → production")
            && only.ends_with("was not delivered: the webhook at a: no answer"),
        "{only}"
    );
}

#[test]
fn what_is_settled_is_not_sent_again_after_a_crash_anywhere() {
    let mut stage = rolled_back();
    for (index, destination) in [(0, 1), (0, 0), (1, 0), (1, 1)] {
        finish_notification(&mut stage, index, destination, None);
    }
    let mut settled = Vec::new();
    let mut state = RolloutState::default();
    for event in &stage.log {
        RolloutAggregate::apply(&mut state, event);
        if let RolloutEvent::NotificationFinished {
            index, destination, ..
        } = event.body
        {
            settled.push((index, destination));
        }
        let again = owed(&state, stage.now);
        assert!(again.iter().all(|it| !settled.contains(it)), "{again:?}");
    }
    assert_eq!(settled.len(), 4);
}

#[test]
fn an_answer_that_comes_twice_or_too_late_changes_nothing() {
    let mut stage = rolled_back();
    assert_eq!(
        finish_notification(&mut stage, 1, 0, None),
        0,
        "it is not its turn"
    );
    assert_eq!(
        finish_notification(&mut stage, 0, 2, None),
        0,
        "no such destination"
    );
    assert_eq!(finish_notification(&mut stage, 0, 0, None), 1);
    assert_eq!(
        finish_notification(&mut stage, 0, 0, None),
        0,
        "settled already"
    );
}
