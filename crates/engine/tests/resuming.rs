//! A server that is killed at any point is taken over by the next one: the same work comes out under the same keys, and it
//! ends as if nothing had happened.

mod support;

use std::sync::Arc;

use shipway_engine::{Clock, ManualClock, MemoryStore, Options, Store};
use support::{Body, Input, Stage, State, World, seconds, soon, start_time};

/// Says what the people of the story say, unless they have been heard already, and plays it to its end.
async fn play(stage: &Stage) -> State {
    let known = stage.engine.state("chores/a").await.unwrap();
    let heard = |chore| {
        let known = known.as_ref();
        known.is_some_and(|state| {
            state.in_turn.contains(&chore)
                || state.at_once.contains(&chore)
                || state.done.contains(&chore)
        })
    };
    if !heard(1) {
        let in_turn = Input::InTurn(vec![1, 2, 3, 4]);
        stage.say("chores/a", in_turn).await;
    }
    if !heard(10) {
        let at_once = Input::AtOnce(vec![10, 11, 12]);
        stage.say("chores/a", at_once).await;
    }
    let alarm = start_time() + seconds(60);
    let known = stage.state("chores/a").await;
    if known.alarm.is_none() && known.rang.is_empty() {
        stage.say("chores/a", Input::SetAlarm(alarm)).await;
    }
    stage.clock.set(alarm);
    let mut state = stage
        .until("chores/a", |state| {
            state.done.len() == 7 && !state.rang.is_empty()
        })
        .await;
    // Which of what is done at once is recorded first is nobody's business.
    state.done.sort();
    state
}

fn over(store: MemoryStore, world: Arc<World>) -> Stage {
    let clock = Arc::new(ManualClock::new(start_time()));
    Stage::over(store, world, clock, Options::default())
}

/// A world in which everything recorded so far has been done.
async fn world_of(store: &MemoryStore) -> Arc<World> {
    let world = World::new();
    for fact in over(store.clone(), World::new()).facts("chores/a").await {
        if let Body::Done { chore } = fact.body {
            let key = ("chores/a".to_owned(), format!("chore-{chore}"));
            world.done.lock().unwrap().insert(key, 1);
        }
    }
    world
}

#[tokio::test]
async fn a_crash_at_any_length_of_the_log_ends_in_the_same_state() {
    let whole = over(MemoryStore::default(), World::new());
    let expected = play(&whole).await;
    let length = whole.store.events().len();
    assert_eq!(length, 11, "three wishes, seven chores, one alarm");
    for cut in 0..=length {
        let store = whole.store.cut(cut);
        // Killed before an effect was begun, and after it was done but before that was recorded.
        for world in [world_of(&store).await, whole.world.clone()] {
            let stage = over(store.cut(cut), world);
            stage.engine.resume().await.unwrap();
            let state = play(&stage).await;
            assert_eq!(state, expected, "killed after {cut} events");
            assert_eq!(
                stage.store.events().len(),
                length,
                "nothing is recorded twice"
            );
        }
    }
}

#[tokio::test]
async fn an_engine_dropped_in_the_middle_is_taken_over_with_the_same_keys() {
    let stage = over(MemoryStore::default(), World::new());
    for chore in [1, 10, 11, 12] {
        stage.world.hold(chore);
    }
    stage.say("chores/a", Input::InTurn(vec![1, 2])).await;
    stage.say("chores/a", Input::AtOnce(vec![10, 11, 12])).await;
    stage.world.begun(4).await;
    let mut before = std::mem::take(&mut *stage.world.asked.lock().unwrap());
    for _ in 0..3 {
        let next = stage.beside();
        next.engine.resume().await.unwrap();
        next.world.begun(4).await;
        let mut after = std::mem::take(&mut *stage.world.asked.lock().unwrap());
        before.sort();
        after.sort();
        assert_eq!(after, before);
        soon(next.engine.stop()).await;
    }
}

#[tokio::test]
async fn only_what_is_live_is_loaded() {
    let stage = Stage::new();
    stage.say("chores/resting", Input::Count).await;
    stage.world.hold(1);
    stage.say("chores/live", Input::AtOnce(vec![1])).await;
    stage.world.begun(1).await;
    assert_eq!(stage.store.live("chores").await.unwrap(), ["chores/live"]);
}

/// A small generator of its own: the same numbers on every machine and with every version of every library.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A day of a seed: what is said, when, and how the drivers behave. Gives the log as bytes.
async fn day(seed: u64) -> Vec<String> {
    let stage = over(MemoryStore::default(), World::new());
    let mut dice = Dice(seed);
    let mut chore = 0;
    for _ in 0..60 {
        let stream = format!("chores/{}", dice.roll(3));
        chore += 1;
        let input = match dice.roll(6) {
            0 => Input::Count,
            1 => Input::AtOnce(vec![chore]),
            2 => Input::InTurn(vec![chore]),
            3 => {
                stage.world.conduct(chore, support::Conduct::Idle(2));
                Input::AtOnce(vec![chore])
            }
            4 => Input::SetAlarm(stage.clock.now() + seconds(dice.roll(100) as i64)),
            _ => Input::Drop(dice.roll(u64::from(chore)) as u32),
        };
        stage.say(&stream, input).await;
        stage.clock.advance(seconds(dice.roll(20) as i64));
    }
    for _ in 0..10 {
        stage.clock.advance(seconds(60));
        for stream in 0..3 {
            stage.say(&format!("chores/{stream}"), Input::Count).await;
        }
    }
    soon(stage.engine.stop()).await;
    let events = stage.store.events();
    let text = |event: &shipway_engine::Recorded| format!("{event:?}");
    events.iter().map(text).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(day(seed))
    };
    for seed in 1..20 {
        let (first, second) = (run(seed), run(seed));
        assert!(first.len() > 40);
        for (first, second) in first.iter().zip(&second) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
