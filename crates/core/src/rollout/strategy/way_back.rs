//! The way back: compiled from what is observed at that moment, never a recorded undo list.
//!
//! Traffic goes first wherever stable can take it; a release that nobody can replace stays.

use std::time::Duration;

use crate::{
    ids::ReleaseNumber,
    rollout::{
        plan::{Action, Plan, Split},
        strategy::{Observed, take_down},
    },
};

/// What stable must have before it gets the traffic of a failed release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// All instances, where it was scaled down.
    FullCapacity,
    /// One ready instance: the failed release serves nobody, or waiting for all instances has failed before.
    AnyInstance,
}

/// Back from `failed` to `stable`, which needs `instances` to carry all traffic. `None` when there is nothing to go back to
/// and `failed` already serves: then it stays.
#[must_use]
pub fn compile(
    failed: ReleaseNumber,
    stable: Option<(ReleaseNumber, u32)>,
    observed: &Observed,
    drain: Duration,
    urgency: Urgency,
) -> Option<Plan> {
    let serves = observed.split.serves(failed);
    let Some((stable, instances)) = stable else {
        return (!serves).then(|| Plan {
            actions: take_down(failed, 0, drain),
            notes: Vec::new(),
        });
    };
    let mut actions = Vec::new();
    let promoted = observed.promoted == Some(failed);
    let is_scaled_down = observed.count(stable) < instances;
    let await_ready = |count| Action::Await {
        release: stable,
        count,
    };
    // A warm set that lost an instance still serves better than the failed release.
    let needed = if is_scaled_down && urgency == Urgency::FullCapacity {
        instances
    } else {
        1
    };
    let restarts = is_scaled_down || promoted || urgency == Urgency::AnyInstance;
    if restarts {
        actions.push(Action::Start {
            release: stable,
            count: instances,
        });
        actions.push(await_ready(needed));
    }
    actions.push(Action::Shift {
        split: Split::all_to(stable),
    });
    if restarts && needed < instances {
        actions.push(await_ready(instances));
    }
    if promoted {
        actions.push(Action::Promote { release: stable });
    }
    actions.extend(take_down(failed, 0, drain));
    let baselines = observed.counts.keys().filter(|it| it.is_baseline());
    actions.extend(baselines.flat_map(|baseline| take_down(*baseline, 0, drain)));
    Some(Plan {
        actions,
        notes: Vec::new(),
    })
}
