//! A data folder with a past: services, each rolled out many times, as the real aggregates decide it.

use std::{path::Path, sync::Arc, time::Instant};

use jiff::Timestamp;
use shipway_core::{
    aggregate::Aggregate,
    ids::ServiceName,
    rollout::{self, RolloutAggregate, plan::PlanAction},
    service::{self, ServiceAggregate},
};
use shipway_engine::Store;
use tokio::task::JoinSet;

use crate::{
    delivery::{Stream, later, push, start, wanted},
    open,
};

const SERVICES: usize = 50;

pub async fn fill(folder: &Path, rollouts: usize) {
    let began = Instant::now();
    let store = open(folder);
    let mut tasks = JoinSet::new();
    for number in 0..SERVICES {
        let store = store.clone();
        tasks.spawn(async move {
            let each = rollouts / SERVICES;
            let name: ServiceName = format!("service-{number}").parse().expect("a name");
            history(store, &name, each).await;
        });
    }
    tasks.join_all().await;
    println!(
        "{rollouts} rollouts of {SERVICES} services, {} events, written in {:.0} s",
        store.last_position().await.expect("the log can be read"),
        began.elapsed().as_secs_f64()
    );
}

/// Pushes of one service, each rolled out to its end before the next.
async fn history(store: Arc<dyn Store>, name: &ServiceName, rollouts: usize) {
    let mut service = Stream::<ServiceAggregate>::new(format!("service/{name}"));
    for number in 1..=rollouts {
        let now = later(start(), number as i64 * 600);
        service.say(push(name, number), now);
        let rollout = roll_out(&mut service, now);
        let ended = later(now, 30);
        for append in [rollout, service.append(ended)] {
            store.append(append).await.expect("nobody else appends");
        }
    }
}

fn roll_out(service: &mut Stream<ServiceAggregate>, now: Timestamp) -> shipway_engine::Append {
    let spec = wanted(service, now);
    let id = spec.id.clone();
    let mut rollout = Stream::<RolloutAggregate>::new(id.stream());
    rollout.say(rollout::RolloutInput::Open(Box::new(spec)), now);
    service.say(service::ServiceInput::RolloutOpened(id.number), now);
    for second in 1.. {
        let now = later(now, second);
        let pending = RolloutAggregate::pending(&rollout.state, now);
        let Some((_, effect)) = pending.effects.into_iter().find(|(_, effect)| {
            !matches!(
                effect,
                rollout::RolloutEffect::WatchInstances { .. }
                    | rollout::RolloutEffect::Measure { .. }
            )
        }) else {
            break;
        };
        match effect {
            rollout::RolloutEffect::ExecuteAction {
                plan,
                index,
                action,
            } => {
                if let PlanAction::Promote {
                    variant: rollout::RolloutVariant::Release(release),
                } = action
                {
                    let rollout = id.number;
                    service.say(service::ServiceInput::Promoted { rollout, release }, now);
                }
                let (note, smoke) = (None, None);
                rollout.say(
                    rollout::RolloutInput::Done {
                        plan,
                        index,
                        note,
                        smoke,
                    },
                    now,
                );
            }
            rollout::RolloutEffect::NotifyService { end, observed } => {
                let number = id.number;
                service.say(
                    service::ServiceInput::RolloutEnded {
                        number,
                        end,
                        observed,
                    },
                    now,
                );
                rollout.say(rollout::RolloutInput::ServiceNotified, now);
            }
            rollout::RolloutEffect::Notify { .. }
            | rollout::RolloutEffect::WatchPeers { .. }
            | rollout::RolloutEffect::WatchInstances { .. }
            | rollout::RolloutEffect::Measure { .. } => {
                unreachable!("nobody is notified, and the others are passed over")
            }
        }
    }
    rollout.append(later(now, 60))
}
