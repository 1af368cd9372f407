//! Whole rollouts through the real engine: opened, four actions each, ended, told; every event durable.

use std::{path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use shipway_core::{
    aggregate::{Actor, EffectKey},
    ids::ServiceName,
    rollout::{RolloutAggregate, RolloutEffect, RolloutInput, RolloutSpec},
    service::ServiceAggregate,
};
use shipway_engine::{Driver, Engine, Options, RealClock, Store, Work};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    at_least,
    delivery::{Stream, push, start, wanted},
    open,
};

const ROLLOUTS: u32 = 1_000;
const ROUNDS: usize = 3;
const ACTIONS: usize = 4;

pub async fn measure(folder: &Path) {
    for (at_once, what) in [
        (64, "rollouts/s, 64 at a time"),
        (1, "rollouts/s, one after the other"),
    ] {
        let mut rates = Vec::new();
        for round in 0..ROUNDS {
            let store = open(&folder.join(format!("rollouts-{at_once}-{round}")));
            rates.push(rollout_rate(store, at_once).await);
        }
        at_least(what, rates, 50.0);
    }
}

/// A target where everything succeeds at once.
struct Simulated;

#[async_trait]
impl Driver<RolloutAggregate> for Simulated {
    async fn carry_out(&self, work: Work<RolloutAggregate>) -> RolloutInput {
        match work.effect {
            RolloutEffect::ExecuteAction { plan, index, .. } => RolloutInput::Done {
                plan,
                index,
                note: None,
                smoke: None,
            },
            RolloutEffect::Measure { .. }
            | RolloutEffect::WatchInstances { .. }
            | RolloutEffect::WatchPeers { .. } => {
                work.cancelled.cancelled().await;
                RolloutInput::TimerFired
            }
            RolloutEffect::NotifyService { .. } => RolloutInput::ServiceNotified,
            RolloutEffect::Notify {
                index, destination, ..
            } => RolloutInput::NotificationFinished {
                index,
                destination,
                failed: None,
            },
        }
    }
}

async fn rollout_rate(store: Arc<dyn Store>, at_once: usize) -> f64 {
    let clock = Arc::new(RealClock::default());
    let engine: Engine<RolloutAggregate> = Engine::start(
        store.clone(),
        Arc::new(Simulated),
        clock,
        Options::default(),
    );
    let name: ServiceName = "shop".parse().expect("a name");
    let mut service = Stream::<ServiceAggregate>::new("service/shop".to_owned());
    service.say(push(&name, 1), start());
    let spec = wanted(&service, start());

    let mut told = store.subscribe(0).await.expect("the log can be read");
    let free = Arc::new(Semaphore::new(at_once));
    let began = Instant::now();
    let mut opening = JoinSet::new();
    let (engine_, free_) = (engine.clone(), free.clone());
    opening.spawn(async move {
        for number in 1..=ROLLOUTS {
            free_.acquire().await.expect("it stays open").forget();
            open_one(&engine_, &spec, number).await;
        }
    });
    let (mut ended, mut done) = (0, 0);
    while ended < ROLLOUTS {
        let recorded = told
            .next()
            .await
            .expect("it goes on")
            .expect("it can be read");
        done += usize::from(recorded.event.contains("\"action_done\""));
        if recorded.event.contains("\"service_notified\"") {
            ended += 1;
            free.add_permits(1);
        }
    }
    let rate = f64::from(ROLLOUTS) / began.elapsed().as_secs_f64();
    assert_eq!(done, ROLLOUTS as usize * ACTIONS, "each has four actions");
    opening.join_all().await;
    engine.stop().await;
    rate
}

async fn open_one(engine: &Engine<RolloutAggregate>, spec: &RolloutSpec, number: u32) {
    let mut spec = spec.clone();
    spec.id.number.0 = number;
    let (stream, by) = (spec.id.stream(), EffectKey::from("bench"));
    let input = RolloutInput::Open(Box::new(spec));
    let opened = engine.send(&stream, input, Actor::Shipway(by.0)).await;
    opened.expect("it is new");
}
