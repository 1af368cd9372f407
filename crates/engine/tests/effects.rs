//! What a stream is owed is carried out: as often as it takes, never more at once than allowed, and no longer than it is wanted.

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shipway_engine::{EngineError, Options};
use support::{Conduct, Input, Stage, person, seconds, soon};
use tokio::sync::Semaphore;

/// Moves the clock on until `is` holds of a stream.
async fn patiently(stage: &Stage, is: impl Fn(&support::State) -> bool) {
    let moved = async {
        while !is(&*stage.state("chores/a").await) {
            stage.clock.advance(seconds(31));
            tokio::task::yield_now().await;
        }
    };
    soon(moved).await;
}

#[tokio::test]
async fn chores_are_done_in_turn_and_at_once() {
    let stage = Stage::new();
    stage.say("chores/a", Input::InTurn(vec![3, 1, 2])).await;
    stage.say("chores/a", Input::AtOnce(vec![7, 8])).await;
    let state = stage.until("chores/a", |state| state.done.len() == 5).await;
    let in_turn: Vec<_> = state.done.iter().filter(|it| **it < 7).collect();
    assert_eq!(in_turn, [&3, &1, &2]);
    assert_eq!(stage.world.times_done(), [1; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_under_way_at_once_than_allowed() {
    let options = Options {
        effects_max: 3,
        ..Options::default()
    };
    let stage = Stage::with(options);
    let held: Vec<_> = (0..20).map(|chore| stage.world.hold(chore)).collect();
    for chore in 0..20 {
        let stream = format!("chores/{}", chore % 5);
        stage.say(&stream, Input::AtOnce(vec![chore])).await;
    }
    for _ in 0..6 {
        stage.world.begun(3).await;
        for let_go in &held {
            let_go.add_permits(1);
        }
    }
    stage.world.begun(2).await;
    for stream in 0..5 {
        let stream = format!("chores/{stream}");
        stage.until(&stream, |state| state.done.len() == 4).await;
    }
    assert_eq!(stage.world.most_at_once.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_driver_that_panics_is_asked_again_and_others_go_on() {
    let stage = Stage::new();
    stage.world.conduct(1, Conduct::Panic(3));
    stage.say("chores/a", Input::AtOnce(vec![1, 2])).await;
    stage.until("chores/a", |state| state.done == [2]).await;
    patiently(&stage, |state| state.done == [2, 1]).await;
    let asked = stage.world.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|key| *key == "chore-1").count(), 4);
}

#[tokio::test]
async fn an_effect_that_changes_nothing_is_tried_again_with_growing_patience() {
    let stage = Stage::new();
    stage.world.conduct(1, Conduct::Idle(2));
    stage.say("chores/a", Input::AtOnce(vec![1])).await;
    stage.world.begun(1).await;
    // No time goes by: it is not asked again, however much else is said.
    for count in 1..50 {
        assert_eq!(stage.say("chores/a", Input::Count).await.count, count);
    }
    assert_eq!(stage.world.asked.lock().unwrap().len(), 1);
    patiently(&stage, |state| state.done == [1]).await;
    assert_eq!(stage.world.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_cancelled() {
    let stage = Stage::new();
    stage.world.hold(1);
    stage.say("chores/a", Input::InTurn(vec![1, 2])).await;
    stage.world.begun(1).await;
    stage.say("chores/a", Input::Drop(1)).await;
    let state = stage.until("chores/a", |state| state.done == [2]).await;
    assert!(state.in_turn.is_empty());
    stage.engine.stop().await;
    assert_eq!(*stage.world.cancelled.lock().unwrap(), ["chore-1"]);
}

#[tokio::test]
async fn what_a_cancelled_effect_says_is_not_heard() {
    let stage = Stage::new();
    let let_go = Arc::new(Semaphore::new(0));
    stage.world.conduct(1, Conduct::Stubborn(let_go.clone()));
    stage.say("chores/a", Input::AtOnce(vec![1])).await;
    stage.world.begun(1).await;
    stage.say("chores/a", Input::Drop(1)).await;
    // Wanted once more: the work that was cancelled must not count as done.
    let held = stage.world.hold(1);
    stage.say("chores/a", Input::AtOnce(vec![1])).await;
    stage.world.begun(1).await;
    let_go.add_permits(1);
    stage.say("chores/a", Input::Count).await;
    assert!(stage.state("chores/a").await.done.is_empty());
    held.add_permits(1);
    stage.until("chores/a", |state| state.done == [1]).await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_takes_nothing_new() {
    let options = Options {
        stop_grace: Duration::from_secs(20),
        ..Options::default()
    };
    let stage = Stage::with(options);
    let let_go = Arc::new(Semaphore::new(0));
    stage.world.conduct(1, Conduct::Stubborn(let_go.clone()));
    stage.say("chores/a", Input::AtOnce(vec![1])).await;
    stage.world.begun(1).await;
    let stop = stage.engine.stop();
    tokio::pin!(stop);
    tokio::select! {
        biased;
        () = &mut stop => panic!("something is under way"),
        () = tokio::task::yield_now() => {}
    }
    let refused = stage.engine.send("chores/a", Input::Count, person()).await;
    assert!(matches!(refused, Err(EngineError::Stopping)));
    let_go.add_permits(1);
    soon(stop).await;
    assert_eq!(stage.world.times_done(), [1]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let options = Options {
        stop_grace: Duration::from_millis(50),
        ..Options::default()
    };
    let stage = Stage::with(options);
    stage
        .world
        .conduct(1, Conduct::Stubborn(Arc::new(Semaphore::new(0))));
    stage.say("chores/a", Input::AtOnce(vec![1])).await;
    stage.world.begun(1).await;
    soon(stage.engine.stop()).await;
    assert!(stage.world.times_done().is_empty());
    // It comes out again under the next engine.
    stage.world.conduct(1, Conduct::Idle(0));
    let next = stage.beside();
    next.engine.resume().await.unwrap();
    next.until("chores/a", |state| state.done == [1]).await;
}
