//! What is said to a stream is decided once, on the state as it is, and answered when it is durable.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use shipway_core::aggregate::ViewRow;
use shipway_engine::{
    Append, AppendError, Engine, EngineError, ManualClock, MemoryStore, Options, OrderedRow,
    ProjectionSave, RowPage, RowQuery, Snapshot, Store, StoreError, Subscription,
};
use support::{Body, Chores, Doer, Input, Known, Stage, World, person, seconds, soon, start_time};
use tokio::task::JoinSet;

#[tokio::test]
async fn an_input_is_answered_with_its_facts_and_the_state_after_them() {
    let stage = Stage::new();
    let outcome = stage.engine.send("chores/a", Input::Count, person()).await;
    let outcome = outcome.unwrap();
    assert_eq!((outcome.version, outcome.state.count), (1, 1));
    assert_eq!(outcome.events.len(), 1);
    assert_eq!(outcome.events[0].by, person());
    assert_eq!(outcome.events[0].at, start_time());
    assert_eq!(stage.facts("chores/a").await, outcome.events);
}

#[tokio::test]
async fn what_is_said_at_once_is_all_decided_and_each_gets_its_own_facts() {
    let stage = Stage::new();
    let mut said = JoinSet::new();
    for _ in 0..2_000 {
        let engine = stage.engine.clone();
        said.spawn(async move { engine.send("chores/a", Input::Count, person()).await });
    }
    for outcome in soon(said.join_all()).await {
        assert_eq!(outcome.unwrap().events.len(), 1);
    }
    assert_eq!(stage.state("chores/a").await.count, 2_000);
}

#[tokio::test]
async fn a_rejection_changes_nothing_and_hurts_nobody_beside_it() {
    let stage = Stage::new();
    stage.world.hold(1);
    let send = |input| stage.engine.send("chores/a", input, person());
    let (wanted, again, counted) = tokio::join!(
        send(Input::AtOnce(vec![1])),
        send(Input::AtOnce(vec![1])),
        send(Input::Count),
    );
    assert!(wanted.is_ok() && counted.is_ok());
    assert!(matches!(again, Err(EngineError::Rejected(Known(1)))));
    assert_eq!(stage.facts("chores/a").await.len(), 2);
}

#[tokio::test]
async fn an_input_that_changes_nothing_appends_nothing() {
    let stage = Stage::new();
    let outcome = stage
        .engine
        .send("chores/a", Input::Nothing, person())
        .await;
    let outcome = outcome.unwrap();
    assert_eq!((outcome.version, outcome.events.len()), (0, 0));
    assert_eq!(stage.store.events(), []);
    assert!(stage.engine.state("chores/a").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_on_one_stream_lose_no_input() {
    let one = Stage::new();
    let other = one.beside();
    let mut said = JoinSet::new();
    for number in 0..200 {
        let stage = if number % 2 == 0 { &one } else { &other };
        let engine = stage.engine.clone();
        said.spawn(async move { engine.send("chores/a", Input::Count, person()).await });
    }
    assert!(soon(said.join_all()).await.iter().all(Result::is_ok));
    assert_eq!(one.facts("chores/a").await.len(), 200);
    // Each learns of the other's facts with its next input at the latest.
    one.say("chores/a", Input::Count).await;
    assert_eq!(other.say("chores/a", Input::Count).await.count, 202);
}

#[tokio::test]
async fn the_loser_of_a_race_decides_again_on_what_the_winner_did() {
    let one = Stage::new();
    let other = one.beside();
    other.say("chores/a", Input::Count).await;
    one.world.hold(1);
    one.say("chores/a", Input::AtOnce(vec![1])).await;
    let late = other
        .engine
        .send("chores/a", Input::AtOnce(vec![1]), person())
        .await;
    assert!(matches!(late, Err(EngineError::Rejected(Known(1)))));
    assert_eq!(one.facts("chores/a").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_that_do_the_same_work_record_it_once() {
    let one = Stage::new();
    let other = one.beside();
    let chores: Vec<u32> = (0..20).collect();
    let let_go = one.world.hold(0);
    one.say("chores/a", Input::InTurn(chores.clone())).await;
    other.engine.resume().await.unwrap();
    one.world.begun(2).await;
    let_go.add_permits(2);
    let state = one.until("chores/a", |state| state.done.len() == 20).await;
    assert_eq!(state.done, chores, "in turn, each once");
    let facts = one.facts("chores/a").await;
    let done = facts
        .iter()
        .filter(|fact| matches!(fact.body, Body::Done { .. }));
    assert_eq!(done.count(), 20);
}

#[tokio::test]
async fn snapshots_shorten_the_load_and_change_nothing() {
    let options = Options {
        snapshot_every: 7,
        ..Options::default()
    };
    let stage = Stage::with(options);
    for _ in 0..50 {
        stage.say("chores/a", Input::Count).await;
    }
    let snapshot = stage.store.snapshot("chores/a").await.unwrap().unwrap();
    assert_eq!(snapshot.version, 49);
    let with = stage.beside().state("chores/a").await;
    stage.store.forget_snapshots().await.unwrap();
    let without = stage.beside().state("chores/a").await;
    assert_eq!((with.count, &with), (50, &without));
}

#[tokio::test]
async fn a_snapshot_of_another_version_is_passed_over() {
    let stage = Stage::new();
    let facts = stage.say("chores/a", Input::Count).await;
    let event = serde_json::to_string(&stage.facts("chores/a").await[0]).unwrap();
    let append = Append {
        stream: "chores/a".to_owned(),
        expected: 1,
        events: vec![event],
        rows: Vec::new(),
        snapshot: Some(r#"{"unknown":true}"#.to_owned()),
        live: false,
    };
    stage.store.append(append).await.unwrap();
    assert_eq!(facts.count, 1);
    assert_eq!(stage.beside().state("chores/a").await.count, 2);
}

#[tokio::test]
async fn an_event_of_a_newer_shipway_is_named_in_the_error() {
    let stage = Stage::new();
    let append = Append {
        stream: "chores/a".to_owned(),
        expected: 0,
        events: vec![
            r#"{"at":"2026-11-21T09:00:00Z","by":{"person":{"principal":"person:x","name":"x"}},"body":"Flown"}"#.to_owned(),
        ],
        rows: Vec::new(),
        snapshot: None,
        live: true,
    };
    stage.store.append(append).await.unwrap();
    let error = stage.engine.send("chores/a", Input::Count, person()).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("event 1 of chores/a") && text.contains("newer"),
        "{text}"
    );
    stage.say("chores/b", Input::Count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_unloaded_all_the_time_still_gets_its_work_done() {
    let options = Options {
        idle_after: Duration::ZERO,
        ..Options::default()
    };
    let stage = Arc::new(Stage::with(options));
    for chore in 0..300 {
        stage.say("chores/a", Input::AtOnce(vec![chore])).await;
        if chore % 3 == 0 {
            stage
                .until("chores/a", |state| state.done.contains(&chore))
                .await;
        }
    }
    let state = stage
        .until("chores/a", |state| state.done.len() == 300)
        .await;
    assert!(state.at_once.is_empty());
}

/// A log whose disk can be full.
struct Disk {
    log: MemoryStore,
    full: AtomicBool,
}

#[async_trait]
impl Store for Disk {
    async fn append(&self, append: Append) -> Result<(), AppendError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError("the disk is full".to_owned()).into());
        }
        self.log.append(append).await
    }
    async fn read(&self, stream: &str, after: u64) -> Result<Vec<String>, StoreError> {
        self.log.read(stream, after).await
    }
    async fn snapshot(&self, stream: &str) -> Result<Option<Snapshot>, StoreError> {
        self.log.snapshot(stream).await
    }
    async fn forget_snapshots(&self) -> Result<(), StoreError> {
        self.log.forget_snapshots().await
    }
    async fn forget_streams(&self, streams: Vec<String>) -> Result<(), StoreError> {
        self.log.forget_streams(streams).await
    }
    async fn live(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        self.log.live(kind).await
    }
    async fn streams(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        self.log.streams(kind).await
    }
    async fn has_stream(&self, stream: &str) -> Result<bool, StoreError> {
        self.log.has_stream(stream).await
    }
    async fn subscribe(&self, after: u64) -> Result<Subscription, StoreError> {
        self.log.subscribe(after).await
    }
    async fn last_position(&self) -> Result<u64, StoreError> {
        self.log.last_position().await
    }
    async fn row(&self, kind: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        self.log.row(kind, key).await
    }
    async fn rows(&self, query: RowQuery<'_>) -> Result<RowPage, StoreError> {
        self.log.rows(query).await
    }
    async fn position_at(&self, at: Timestamp) -> Result<u64, StoreError> {
        self.log.position_at(at).await
    }

    async fn replace_ordered_rows(
        &self,
        kind: &str,
        rows: Vec<OrderedRow>,
    ) -> Result<(), StoreError> {
        self.log.replace_ordered_rows(kind, rows).await
    }
    async fn save_projection(&self, save: ProjectionSave) -> Result<(), StoreError> {
        self.log.save_projection(save).await
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_acknowledged_and_with_room_it_goes_on() {
    let disk = Arc::new(Disk {
        log: MemoryStore::default(),
        full: AtomicBool::new(false),
    });
    let (world, clock) = (World::new(), Arc::new(ManualClock::new(start_time())));
    let driver = Arc::new(Doer(world.clone()));
    let engine: Engine<Chores> =
        Engine::start(disk.clone(), driver, clock.clone(), Options::default());
    let let_go = world.hold(1);
    let send = |input| soon(engine.send("chores/a", input, person()));
    send(Input::AtOnce(vec![1])).await.unwrap();
    let alarm = start_time() + seconds(1);
    send(Input::SetAlarm(alarm)).await.unwrap();
    world.begun(1).await;

    disk.full.store(true, Ordering::SeqCst);
    let refused = send(Input::Count).await;
    assert!(
        matches!(&refused, Err(EngineError::Store(error)) if error.to_string().contains("full"))
    );
    // The alarm comes and the chore is done while nothing can be recorded: both are tried again.
    let_go.add_permits(1);
    clock.set(alarm);
    send(Input::Count).await.unwrap_err();
    let state = soon(engine.state("chores/a")).await.unwrap().unwrap();
    assert_eq!((state.count, state.rang.len(), state.done.len()), (0, 0, 0));

    disk.full.store(false, Ordering::SeqCst);
    world.conduct(1, support::Conduct::Idle(0));
    let done = async {
        loop {
            clock.advance(seconds(31));
            let state = engine.state("chores/a").await.unwrap().unwrap();
            if state.rang.len() == 1 && state.done == [1] {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(done).await;
    assert_eq!(send(Input::Count).await.unwrap().state.count, 1);
}
