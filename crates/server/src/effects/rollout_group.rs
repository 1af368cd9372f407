//! Rollout groups: each rollout of a group watches the others. `core/rollout/peers` decides what the group does.

use std::{collections::BTreeSet, time::Duration};

use shipway_core::{
    aggregate::Actor,
    ids::{EnvironmentName, RolloutId, RolloutNumber, ServiceName},
    rollout::{
        Rollout, RolloutAggregate, RolloutInput,
        peers::{self, BarrierDecision, PeerStage, RolloutPeer},
    },
    service::{self, AutoPromotion, RolloutGroups},
};
use shipway_engine::Work;

use crate::delivery_engines::DeliveryEngines;

/// From one look at the others to the next; reading a few states costs microseconds.
const PAUSE: Duration = Duration::from_millis(200);
/// Rollouts of a service that are looked at, the newest first: more can't come and go during one.
const LOOKED_AT: u32 = 10;

/// Why a rollout can't pass the barrier of its group.
#[derive(Debug, thiserror::Error)]
pub(super) enum BarrierError {
    /// Another rollout of the group rolls back.
    #[error("{0}")]
    RolledBack(String),
    /// The rollout does not need the barrier any more.
    #[error("it is no longer wanted")]
    Cancelled,
}

/// Waits until all rollouts of the group have reached this barrier.
pub(super) async fn await_group(
    engines: &DeliveryEngines,
    work: &Work<RolloutAggregate>,
    rollout: &Rollout,
    with: &[ServiceName],
) -> Result<(), BarrierError> {
    loop {
        match peers::decide_barrier(&peers(engines, rollout, with).await) {
            BarrierDecision::Go => return Ok(()),
            BarrierDecision::Back(why) => return Err(BarrierError::RolledBack(why)),
            BarrierDecision::Wait(_) => {}
        }
        tokio::select! {
            () = work.cancelled.cancelled() => return Err(BarrierError::Cancelled),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Reports a rollout of the group that went back, once there is one.
pub(super) async fn watch(
    engines: &DeliveryEngines,
    work: &Work<RolloutAggregate>,
    rollout: &Rollout,
    with: &[ServiceName],
) -> RolloutInput {
    loop {
        if let Some(why) = peers::gone_back(&peers(engines, rollout, with).await) {
            return RolloutInput::PeerRolledBack { why };
        }
        tokio::select! {
            () = work.cancelled.cancelled() => return RolloutInput::TimerFired,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// The rollouts of `with` into the same environment that are under way, or were at some time since this one began; and releases
/// that are on their way there.
async fn peers(
    engines: &DeliveryEngines,
    rollout: &Rollout,
    with: &[ServiceName],
) -> Vec<RolloutPeer> {
    let environment = &rollout.spec.environment.name;
    let mut peers = Vec::new();
    for name in with {
        let Some(state) = engines.service(name).await.ok().flatten() else {
            continue;
        };
        if is_coming(&state, environment) {
            peers.push(RolloutPeer {
                name: name.to_string(),
                stage: PeerStage::Coming,
            });
        }
        let last = state.last_rollout.0;
        for number in (last.saturating_sub(LOOKED_AT) + 1..=last).rev() {
            let id = RolloutId {
                service: name.clone(),
                number: RolloutNumber(number),
            };
            peers.extend(peer(engines, &id, rollout).await);
        }
    }
    peers
}

async fn peer(engines: &DeliveryEngines, id: &RolloutId, mine: &Rollout) -> Option<RolloutPeer> {
    let state = engines.rollout(id).await?;
    let other = state.0.as_deref()?;
    let over = other.ended.as_ref().map(|end| end.at);
    let is_mine = other.spec.environment.name == mine.spec.environment.name;
    if !is_mine || over.is_some_and(|at| at < mine.opened_at) {
        return None;
    }
    let stage = other.stage();
    // It was on its way back already when this one began.
    let is_earlier = matches!(&stage, PeerStage::Back { at, .. } if *at < mine.opened_at);
    (!is_earlier).then(|| RolloutPeer {
        name: id.to_string(),
        stage,
    })
}

/// Whether a release of the service is on its way to `environment`: in a run, in an environment before, or in the queue.
fn is_coming(state: &service::ServiceState, environment: &EnvironmentName) -> bool {
    let pushed = (state.open_pushes.values()).any(|push| push.push.is_released());
    let goes_on = (state.environments.iter()).any(|(name, place)| {
        let moving = place.active.as_ref();
        let on = |active: &service::ActiveRollout| {
            let is_next = active.spec.release().environment_after(name);
            !active.promoted
                && active.auto_promotion == AutoPromotion::Next
                && is_next.is_some_and(|next| next.name == *environment)
        };
        name != environment && moving.is_some_and(on)
    });
    let queued = state.environments.get(environment);
    pushed || goes_on || queued.is_some_and(|place| !place.queue.is_empty())
}

/// Tells the services that `leader` names, or named before.
pub(super) async fn notify_members(
    engines: &DeliveryEngines,
    leader: &ServiceName,
    peers: &BTreeSet<ServiceName>,
    groups: &RolloutGroups,
) -> service::ServiceInput {
    for name in peers {
        let theirs: RolloutGroups = (groups.iter())
            .filter(|(_, group)| group.contains(name))
            .map(|(environment, group)| (environment.clone(), group.clone()))
            .collect();
        let input = service::ServiceInput::PromotionGroupChanged {
            leader: leader.clone(),
            groups: theirs,
        };
        let by = Actor::Shipway(format!("{leader} names it in its `promote_with`"));
        if let Err(error) = engines.send_to_service(name, input, by).await {
            tracing::error!(%error, service = %name, "a service could not be notified of its promotion group");
            return service::ServiceInput::TimerFired;
        }
    }
    service::ServiceInput::PeersNotified(groups.clone())
}
