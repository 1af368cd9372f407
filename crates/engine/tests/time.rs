//! What waits for a time comes when it is there: once, whatever happens to the clock.

mod support;

use support::{Input, Stage, seconds, soon, start_time};

#[tokio::test]
async fn an_alarm_rings_when_its_time_has_come_and_not_before() {
    let stage = Stage::new();
    let due = start_time() + seconds(60);
    stage.say("chores/a", Input::SetAlarm(due)).await;
    stage.clock.advance(seconds(59));
    assert!(stage.say("chores/a", Input::Count).await.rang.is_empty());
    stage.clock.advance(seconds(1));
    let state = stage
        .until("chores/a", |state| !state.rang.is_empty())
        .await;
    assert_eq!(state.rang, [due]);
}

#[tokio::test]
async fn a_clock_set_back_neither_stalls_an_alarm_nor_rings_it_twice() {
    let stage = Stage::new();
    let due = start_time() + seconds(60);
    stage.say("chores/a", Input::SetAlarm(due)).await;
    stage.clock.advance(seconds(50));
    stage.clock.set(start_time() - seconds(86_400));
    stage.clock.advance(seconds(10));
    stage.until("chores/a", |state| state.rang == [due]).await;
    stage.clock.set(start_time());
    stage.clock.advance(seconds(60));
    let state = stage.say("chores/a", Input::Count).await;
    assert_eq!(state.rang, [due], "once");
}

#[tokio::test]
async fn a_clock_far_ahead_rings_everything_that_was_due_once() {
    let stage = Stage::new();
    for number in 1..=20 {
        let stream = format!("chores/{number}");
        let due = start_time() + seconds(number);
        stage.say(&stream, Input::SetAlarm(due)).await;
    }
    stage.clock.advance(seconds(86_400));
    for number in 1..=20 {
        let stream = format!("chores/{number}");
        let state = stage.until(&stream, |state| !state.rang.is_empty()).await;
        assert_eq!(state.rang.len(), 1);
    }
}

#[tokio::test]
async fn an_alarm_that_came_due_while_no_server_ran_rings_at_the_next_start() {
    let stage = Stage::new();
    let due = start_time() + seconds(60);
    stage.say("chores/a", Input::SetAlarm(due)).await;
    stage.engine.stop().await;
    stage.clock.advance(seconds(3_600));
    assert_eq!(stage.facts("chores/a").await.len(), 1);
    let next = stage.beside();
    next.engine.resume().await.unwrap();
    let state = next.until("chores/a", |state| !state.rang.is_empty()).await;
    assert_eq!(state.rang, [start_time() + seconds(3_600)]);
}

#[tokio::test]
async fn an_alarm_set_anew_rings_at_the_new_time_alone() {
    let stage = Stage::new();
    let (first, second) = (start_time() + seconds(60), start_time() + seconds(90));
    stage.say("chores/a", Input::SetAlarm(first)).await;
    stage.say("chores/a", Input::SetAlarm(second)).await;
    stage.clock.set(first);
    assert!(stage.say("chores/a", Input::Count).await.rang.is_empty());
    stage.clock.set(second);
    stage
        .until("chores/a", |state| state.rang == [second])
        .await;
}

#[tokio::test]
async fn an_aggregate_that_does_nothing_about_a_time_that_has_come_keeps_nobody_busy() {
    let stage = Stage::new();
    let overdue = start_time() - seconds(1);
    stage.say("chores/a", Input::Stick(overdue)).await;
    // On one thread: a loop that never rests would answer nobody.
    for count in 1..100 {
        assert_eq!(stage.say("chores/a", Input::Count).await.count, count);
        stage.clock.advance(seconds(1));
        assert_eq!(stage.say("chores/b", Input::Count).await.count, count);
    }
    soon(stage.engine.stop()).await;
}
