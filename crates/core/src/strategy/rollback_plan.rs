//! The rollback plan: compiled from the observed state at that moment, never a recorded undo list.
//!
//! Traffic moves first wherever stable can take it; a release without a replacement stays.

use std::time::Duration;

use super::{
    ObservedState,
    plan::{PlanAction, RolloutPlan, TrafficSplit},
    take_down,
};
use crate::ids::ReleaseNumber;

/// What stable must have before it gets the traffic of a failed release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollbackReadiness {
    /// All instances, where it was scaled down.
    FullCapacity,
    /// One ready instance: the failed release serves no traffic, or waiting for all instances has failed before.
    AnyInstance,
}

/// Back from `failed` to `stable`, which needs `instances` to carry all traffic. `None` when there is nothing to go back to
/// and `failed` already serves: then it stays.
#[must_use]
pub fn compile(
    failed: ReleaseNumber,
    stable: Option<(ReleaseNumber, u32)>,
    observed: &ObservedState,
    drain: Duration,
    urgency: RollbackReadiness,
) -> Option<RolloutPlan> {
    let serves = observed.split.serves(failed);
    let Some((stable, instances)) = stable else {
        return (!serves).then(|| RolloutPlan {
            actions: take_down(failed, 0, drain),
            notes: Vec::new(),
        });
    };
    let mut actions = Vec::new();
    let promoted = observed.promoted == Some(failed);
    let is_scaled_down = observed.count(stable) < instances;
    let await_ready = |count| PlanAction::Await {
        release: stable,
        count,
    };
    // A warm set that lost an instance still serves better than the failed release.
    let needed = if is_scaled_down && urgency == RollbackReadiness::FullCapacity {
        instances
    } else {
        1
    };
    let restarts = is_scaled_down || promoted || urgency == RollbackReadiness::AnyInstance;
    if restarts {
        actions.push(PlanAction::Start {
            release: stable,
            count: instances,
        });
        actions.push(await_ready(needed));
    }
    actions.push(PlanAction::Shift {
        split: TrafficSplit::all_to(stable),
    });
    if restarts && needed < instances {
        actions.push(await_ready(instances));
    }
    if promoted {
        actions.push(PlanAction::promote(stable));
    }
    actions.extend(take_down(failed, 0, drain));
    let baselines = observed.counts.keys().filter(|it| it.is_baseline());
    actions.extend(baselines.flat_map(|baseline| take_down(*baseline, 0, drain)));
    Some(RolloutPlan {
        actions,
        notes: Vec::new(),
    })
}
