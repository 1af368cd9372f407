//! A small aggregate, the world its effects change, and an engine over both.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use shipway_core::aggregate::{Actor, Aggregate, EffectKey, Event, PendingWork, ViewRow};
use shipway_engine::{Driver, Engine, ManualClock, MemoryStore, Options, Store, Work};
use tokio::sync::Semaphore;

/// Chores to be done: some one after the other, some all at once; an alarm; a count.
#[derive(Debug)]
pub struct Chores;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub count: u64,
    pub in_turn: Vec<u32>,
    pub at_once: BTreeSet<u32>,
    pub done: Vec<u32>,
    pub alarm: Option<Timestamp>,
    pub rang: Vec<Timestamp>,
    /// A time that has come and that nothing is done about.
    pub stuck: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    Counted,
    Wanted { chores: Vec<u32>, in_turn: bool },
    Dropped { chore: u32 },
    Done { chore: u32 },
    AlarmSet { at: Timestamp },
    Rang,
    Stuck { since: Timestamp },
}

#[derive(Clone, Debug)]
pub enum Input {
    Count,
    InTurn(Vec<u32>),
    AtOnce(Vec<u32>),
    Drop(u32),
    Done(u32),
    /// What a driver says that has nothing to say.
    Nothing,
    SetAlarm(Timestamp),
    Stick(Timestamp),
    TimerFired,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("chore {0} is known already")]
pub struct Known(pub u32);

#[derive(Clone, Debug, PartialEq)]
pub struct Effect(pub u32);

impl State {
    fn knows(&self, chore: u32) -> bool {
        self.in_turn.contains(&chore) || self.at_once.contains(&chore) || self.done.contains(&chore)
    }

    fn waits_for(&self, chore: u32) -> bool {
        self.in_turn.first() == Some(&chore) || self.at_once.contains(&chore)
    }
}

impl Aggregate for Chores {
    const KIND: &'static str = "chores";
    type State = State;
    type Body = Body;
    type Input = Input;
    type Effect = Effect;
    type Rejection = Known;

    fn decide(
        state: &State,
        input: Input,
        by: Actor,
        at: Timestamp,
    ) -> Result<Vec<Event<Body>>, Known> {
        let body = match input {
            Input::Count => Body::Counted,
            Input::InTurn(chores) | Input::AtOnce(chores)
                if chores.iter().any(|chore| state.knows(*chore)) =>
            {
                return Err(Known(chores[0]));
            }
            Input::InTurn(chores) => Body::Wanted {
                chores,
                in_turn: true,
            },
            Input::AtOnce(chores) => Body::Wanted {
                chores,
                in_turn: false,
            },
            Input::Drop(chore) if state.waits_for(chore) => Body::Dropped { chore },
            Input::Done(chore) if state.waits_for(chore) => Body::Done { chore },
            Input::SetAlarm(at) => Body::AlarmSet { at },
            Input::Stick(since) => Body::Stuck { since },
            Input::TimerFired if state.alarm.is_some_and(|due| due <= at) => Body::Rang,
            Input::Drop(_) | Input::Done(_) | Input::TimerFired | Input::Nothing => {
                return Ok(Vec::new());
            }
        };
        Ok(vec![Event { at, by, body }])
    }

    fn apply(state: &mut State, event: &Event<Body>) {
        match &event.body {
            Body::Counted => state.count += 1,
            Body::Wanted { chores, in_turn } if *in_turn => state.in_turn.extend(chores),
            Body::Wanted { chores, .. } => state.at_once.extend(chores),
            Body::Dropped { chore } | Body::Done { chore } => {
                state.in_turn.retain(|it| it != chore);
                state.at_once.remove(chore);
                if matches!(event.body, Body::Done { .. }) {
                    state.done.push(*chore);
                }
            }
            Body::AlarmSet { at } => state.alarm = Some(*at),
            Body::Rang => {
                state.alarm = None;
                state.rang.push(event.at);
            }
            Body::Stuck { since } => state.stuck = Some(*since),
        }
    }

    fn pending(state: &State, _: Timestamp) -> PendingWork<Effect> {
        let wanted = state.in_turn.first().into_iter().chain(&state.at_once);
        let effects: Vec<_> = wanted
            .map(|chore| (EffectKey(format!("chore-{chore}")), Effect(*chore)))
            .collect();
        let wake_at = state.alarm.or(state.stuck);
        PendingWork {
            live: !effects.is_empty() || wake_at.is_some(),
            effects,
            wake_at,
        }
    }

    fn rows(state: &State, _: &[Event<Body>]) -> Vec<ViewRow> {
        vec![ViewRow {
            kind: "chores".to_owned(),
            key: "all".to_owned(),
            service: String::new(),
            live: false,
            doc: serde_json::json!({ "done": state.done, "count": state.count }),
        }]
    }

    fn timer_fired() -> Input {
        Input::TimerFired
    }
}

/// What a chore does when it is carried out; done at once when nothing is said.
#[derive(Clone)]
pub enum Conduct {
    /// Panics this many times, then does it.
    Panic(usize),
    /// Ends this many times without having done anything.
    Idle(usize),
    /// Does it when the test lets it; ends undone when it is cancelled.
    Held(Arc<Semaphore>),
    /// As `Held`, and goes on when it is cancelled.
    Stubborn(Arc<Semaphore>),
}

/// The world: it outlives engines, as the real one does.
#[derive(Default)]
pub struct World {
    /// How often each piece of work was done, by stream and key; a second time finds it done.
    pub done: Mutex<BTreeMap<(String, String), usize>>,
    /// What was asked for, in order.
    pub asked: Mutex<Vec<String>>,
    pub cancelled: Mutex<Vec<String>>,
    conduct: Mutex<BTreeMap<u32, Conduct>>,
    under_way: AtomicUsize,
    pub most_at_once: AtomicUsize,
    /// One permit for each that was asked for: what tests wait on.
    begun: Option<Semaphore>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Some(Semaphore::new(0)),
            ..Self::default()
        })
    }

    pub fn conduct(&self, chore: u32, conduct: Conduct) {
        self.conduct.lock().unwrap().insert(chore, conduct);
    }

    /// Holds a chore until the test lets it go: once for each permit.
    pub fn hold(&self, chore: u32) -> Arc<Semaphore> {
        let let_go = Arc::new(Semaphore::new(0));
        self.conduct(chore, Conduct::Held(let_go.clone()));
        let_go
    }

    /// Returns when this many more pieces of work have been begun.
    pub async fn begun(&self, count: u32) {
        let begun = self.begun.as_ref().unwrap();
        soon(begun.acquire_many(count)).await.unwrap().forget();
    }

    pub fn times_done(&self) -> Vec<usize> {
        self.done.lock().unwrap().values().copied().collect()
    }

    async fn behave(&self, work: &Work<Chores>) -> bool {
        let chore = work.effect.0;
        let conduct = {
            let mut all = self.conduct.lock().unwrap();
            let conduct = all.get(&chore).cloned();
            if let Some(Conduct::Panic(left) | Conduct::Idle(left)) = all.get_mut(&chore) {
                *left = left.saturating_sub(1);
            }
            conduct
        };
        match conduct {
            None | Some(Conduct::Panic(0) | Conduct::Idle(0)) => true,
            Some(Conduct::Panic(_)) => panic!("chore {chore} panics, as the test wants"),
            Some(Conduct::Idle(_)) => false,
            Some(Conduct::Stubborn(let_go)) => {
                let_go.acquire().await.unwrap().forget();
                true
            }
            Some(Conduct::Held(let_go)) => tokio::select! {
                permit = let_go.acquire() => {
                    permit.unwrap().forget();
                    true
                }
                () = work.cancelled.cancelled() => {
                    self.cancelled.lock().unwrap().push(work.key.0.clone());
                    false
                }
            },
        }
    }
}

/// Counts what is under way, however it ends.
struct UnderWay<'w>(&'w World);

impl<'w> UnderWay<'w> {
    fn begin(world: &'w World) -> Self {
        let now = world.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        world.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(world)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct Doer(pub Arc<World>);

#[async_trait]
impl Driver<Chores> for Doer {
    async fn carry_out(&self, work: Work<Chores>) -> Input {
        let _under_way = UnderWay::begin(&self.0);
        self.0.asked.lock().unwrap().push(work.key.0.clone());
        if let Some(begun) = &self.0.begun {
            begun.add_permits(1);
        }
        if !self.0.behave(&work).await {
            return Input::Nothing;
        }
        let key = (work.stream.clone(), work.key.0.clone());
        *self.0.done.lock().unwrap().entry(key).or_default() += 1;
        Input::Done(work.effect.0)
    }
}

pub fn start_time() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

pub fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

pub fn person() -> Actor {
    shipway_core::access::Principal::person("ada").actor()
}

/// An engine over a log, a world and a clock that outlive it.
pub struct Stage {
    pub engine: Engine<Chores>,
    pub store: MemoryStore,
    pub world: Arc<World>,
    pub clock: Arc<ManualClock>,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let clock = Arc::new(ManualClock::new(start_time()));
        Self::over(MemoryStore::default(), World::new(), clock, options)
    }

    pub fn over(
        store: MemoryStore,
        world: Arc<World>,
        clock: Arc<ManualClock>,
        options: Options,
    ) -> Self {
        let driver = Arc::new(Doer(world.clone()));
        let engine = Engine::start(Arc::new(store.clone()), driver, clock.clone(), options);
        Self {
            engine,
            store,
            world,
            clock,
        }
    }

    /// Another engine over the same.
    pub fn beside(&self) -> Self {
        let (store, world) = (self.store.clone(), self.world.clone());
        Self::over(store, world, self.clock.clone(), Options::default())
    }

    pub async fn say(&self, stream: &str, input: Input) -> Arc<State> {
        soon(self.engine.send(stream, input, person()))
            .await
            .unwrap()
            .state
    }

    pub async fn state(&self, stream: &str) -> Arc<State> {
        soon(self.engine.state(stream)).await.unwrap().unwrap()
    }

    /// The facts of a stream.
    pub async fn facts(&self, stream: &str) -> Vec<Event<Body>> {
        let texts = self.store.read(stream, 0).await.unwrap();
        let read = |text: &String| serde_json::from_str(text).unwrap();
        texts.iter().map(read).collect()
    }

    /// Returns when the log's facts about a stream fold into a state of which `is` holds.
    pub async fn until(&self, stream: &str, is: impl Fn(&State) -> bool) -> State {
        let mut log = self.store.subscribe(0).await.unwrap();
        let mut state = State::default();
        let folded = async {
            while !is(&state) {
                let recorded = log.next().await.unwrap().unwrap();
                if recorded.stream == stream {
                    Chores::apply(&mut state, &serde_json::from_str(&recorded.event).unwrap());
                }
            }
        };
        soon(folded).await;
        state
    }
}

/// What must come, and does so soon or never.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("it comes within seconds")
}
