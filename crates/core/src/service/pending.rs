//! What the world still owes a service: derived from its state, so that it comes out again after a crash.

use super::{
    event::{Preemption, ServiceEffect},
    state::ServiceState,
};
use crate::aggregate::PendingWork;

/// What the world still owes the service.
pub(super) fn pending(state: &ServiceState) -> PendingWork<ServiceEffect> {
    let runs = (state.open_runs.iter())
        .filter(|(_, run)| !run.opened)
        .map(|(number, run)| {
            (
                format!("run-{}", number.0).into(),
                ServiceEffect::OpenRun(Box::new((*run.order).clone())),
            )
        });
    let rollouts = state.environments.values().filter_map(|place| {
        let active = place.active.as_ref()?;
        let number = active.spec.id.number;
        if !active.opened {
            return Some((
                format!("rollout-{}", number.0).into(),
                ServiceEffect::OpenRollout(Box::new((*active.spec).clone())),
            ));
        }
        let preemption = active
            .preemption
            .as_ref()
            .filter(|_| !active.preemption_delivered)?;
        let how = match preemption {
            Preemption::Supersede { .. } => "supersede",
            Preemption::RollBack { .. } => "back",
            Preemption::Withdraw { .. } => "withdraw",
            Preemption::Finish { .. } => "finish",
        };
        Some((
            format!("preemption-{}-{how}", number.0).into(),
            ServiceEffect::SendPreemption {
                number,
                preemption: preemption.clone(),
            },
        ))
    });
    let peers = (state.pending_peer_notification()).map(|effect| ("peers".into(), effect));
    let addresses = (state.address_report()).map(|effect| ("addresses".into(), effect));
    let effects: Vec<_> = (runs.chain(rollouts))
        .chain(peers)
        .chain(addresses)
        .chain(state.health_effects())
        .chain(state.removal_effects())
        .collect();
    // A test leaves quarantine by itself, and schedules come.
    let wake_at = [state.testing.next_end(), state.schedules.next()]
        .into_iter()
        .flatten()
        .min();
    PendingWork {
        live: !effects.is_empty() || wake_at.is_some(),
        effects,
        wake_at,
    }
}
