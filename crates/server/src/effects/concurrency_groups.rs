//! What runs ask of concurrency groups, and what groups tell runs.

use std::sync::Weak;

use async_trait::async_trait;
use shipway_core::{
    aggregate::Actor,
    concurrency::{self, ConcurrencyGroups, GroupMemberId, SlotRequest},
    ids::RunId,
    run::{self, GateEffect, GateInput},
};
use shipway_engine::{Driver, Engine, EngineError, Work};

use crate::delivery_engines::DeliveryEngines;

/// Carries out the effects of groups.
pub(crate) struct GroupDriver {
    pub(crate) engines: Weak<DeliveryEngines>,
}

#[async_trait]
impl Driver<ConcurrencyGroups> for GroupDriver {
    async fn carry_out(&self, work: Work<ConcurrencyGroups>) -> concurrency::GroupInput {
        let Some(engines) = self.engines.upgrade() else {
            return concurrency::GroupInput::TimerFired;
        };
        let (number, notice) = (work.effect.number, work.effect.notice);
        let run = &notice.holder.run;
        let input = run::RunInput::Gate(GateInput::SlotPositionChanged {
            job: notice.holder.job,
            ticket: notice.ticket,
            change: notice.change,
        });
        let by = Actor::Shipway("its concurrency group".to_owned());
        match engines.runs.send(&run.stream(), input, by).await {
            // A rejected notification is stale; count it as delivered.
            Ok(_) | Err(EngineError::Rejected(_)) => {
                concurrency::GroupInput::NoticeDelivered(number)
            }
            Err(error) => {
                tracing::warn!(%error, %run, "a run could not be notified of its slot; retrying");
                concurrency::GroupInput::TimerFired
            }
        }
    }
}

/// Asks or leaves a group for a run.
pub(super) async fn carry_out(
    groups: &Engine<ConcurrencyGroups>,
    run: &RunId,
    effect: &GateEffect,
) -> run::RunInput {
    let holder = |job: &Option<_>| GroupMemberId {
        run: run.clone(),
        job: job.clone(),
    };
    let (group, input) = match effect {
        GateEffect::RequestSlot {
            job,
            ticket,
            group,
            again,
        } => {
            let ask = SlotRequest {
                holder: holder(job),
                ticket: *ticket,
                cancel_in_progress: group.cancel_in_progress,
                queue: group.queue,
                again: *again,
            };
            (&group.name, concurrency::GroupInput::RequestSlot(ask))
        }
        GateEffect::ReleaseSlot { job, group, .. } => {
            (group, concurrency::GroupInput::ReleaseSlot(holder(job)))
        }
    };
    let stream = concurrency::stream(&run.service, group);
    let by = Actor::Shipway(format!("run {}", run.number));
    let outcome = match groups.send(&stream, input, by).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(%error, %run, group, "a concurrency group could not be queried; retrying");
            return run::RunInput::TimerFired;
        }
    };
    run::RunInput::Gate(match effect {
        GateEffect::RequestSlot { job, ticket, .. } => GateInput::SlotRequestAnswered {
            job: job.clone(),
            ticket: *ticket,
            position: outcome.state.position_of(&holder(job)),
        },
        GateEffect::ReleaseSlot { job, ticket, .. } => GateInput::SlotReleased {
            job: job.clone(),
            ticket: *ticket,
        },
    })
}
