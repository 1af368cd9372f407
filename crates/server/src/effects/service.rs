//! Carries out the effects of services: opens streams of runs and rollouts, and preempts rollouts.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use shipway_core::{
    aggregate::Actor,
    ids::{RolloutId, RunId},
    rollout::{self, AbortCause},
    service::{Preemption, RunOrder, ServiceAggregate, ServiceEffect, ServiceInput},
};
use shipway_drivers::reusable_workflows::{calls_unread_workflow, read_called_workflows};
use shipway_engine::{Driver, Work};

use super::{addresses, environment_health, rollout_group};
use crate::{app::App, baseline_history::with_stable_traffic};

/// Carries out the effects of services.
pub struct ServiceDriver(pub Weak<App>);

#[async_trait]
impl Driver<ServiceAggregate> for ServiceDriver {
    async fn carry_out(&self, work: Work<ServiceAggregate>) -> ServiceInput {
        // The application outlives its engines but for the moment in which both end.
        let Some(app) = self.0.upgrade() else {
            return ServiceInput::TimerFired;
        };
        let service = work.state.name.clone();
        match work.effect {
            ServiceEffect::OpenRun(order) => open_run(&app, &work.stream, *order).await,
            ServiceEffect::OpenRollout(spec) => {
                let spec = Box::new(
                    with_stable_traffic(&app.workloads, &app.observations.baseline_history, *spec)
                        .await,
                );
                let number = spec.id.number;
                let shipway = || Actor::Shipway(spec.why.clone());
                let by = spec.by.clone().unwrap_or_else(shipway);
                match app
                    .engines
                    .rollouts
                    .send(&spec.id.stream(), rollout::RolloutInput::Open(spec), by)
                    .await
                {
                    Ok(_) => ServiceInput::RolloutOpened(number),
                    Err(error) => {
                        tracing::error!(%error, rollout = %number, "the rollout could not be opened");
                        ServiceInput::TimerFired
                    }
                }
            }
            ServiceEffect::NotifyPeers { peers, groups } => match service {
                Some(leader) => rollout_group::notify_members(&app, &leader, &peers, &groups).await,
                None => ServiceInput::TimerFired,
            },
            ServiceEffect::ReportAddresses(asked) => match service {
                Some(service) => addresses::report(&app, &service, asked).await,
                None => ServiceInput::TimerFired,
            },
            ServiceEffect::NotifyHealth {
                notice,
                destination,
            } => match service {
                Some(service) => {
                    environment_health::notify(&app, &service, &notice, destination).await
                }
                None => ServiceInput::TimerFired,
            },
            ServiceEffect::SendPreemption { number, preemption } => {
                let Some(service) = service else {
                    return ServiceInput::TimerFired;
                };
                let id = RolloutId { service, number };
                let (input, by) = preemption_input(preemption);
                // A refusal means that it ends by itself.
                if let Err(error) = app.engines.rollouts.send(&id.stream(), input, by).await {
                    tracing::debug!(%error, rollout = %id, "asked to make preemption");
                }
                ServiceInput::PreemptionDelivered(number)
            }
        }
    }
}

/// The input that preempts a rollout, and its actor.
fn preemption_input(preemption: Preemption) -> (rollout::RolloutInput, Actor) {
    match preemption {
        Preemption::Supersede { by } => {
            let reason = format!("superseded by {by}");
            let cause = AbortCause::Superseded;
            let input = rollout::RolloutInput::Abort {
                cause,
                reason: reason.clone(),
            };
            (input, Actor::Shipway(reason))
        }
        Preemption::RollBack { by, reason } => {
            let cause = AbortCause::Person;
            (rollout::RolloutInput::Abort { cause, reason }, by)
        }
        Preemption::Finish { next } => {
            let reason = format!("{next} is waiting");
            (
                rollout::RolloutInput::EndKeep { next },
                Actor::Shipway(reason),
            )
        }
    }
}

async fn open_run(app: &Arc<App>, stream: &str, mut order: RunOrder) -> ServiceInput {
    let number = order.number;
    let Some(service) = stream
        .strip_prefix("service/")
        .and_then(|name| name.parse().ok())
    else {
        return ServiceInput::TimerFired;
    };
    let id = RunId { service, number };
    // Opened before a crash, it has all that it needs.
    let known = app.engines.runs.state(&id.stream()).await.ok().flatten();
    if known.is_none_or(|state| state.0.is_none()) && calls_unread_workflow(&order.workflow) {
        let scratch = app.data.join("forge");
        for note in read_called_workflows(&mut order.workflow, &app.actions, &scratch).await {
            tracing::warn!(run = %id, "{note}");
        }
    }
    match app.open_run(&id, order).await {
        Ok(()) => ServiceInput::RunOpened(number),
        Err(error) => {
            tracing::error!(%error, run = %id, "the run could not be opened");
            ServiceInput::TimerFired
        }
    }
}
