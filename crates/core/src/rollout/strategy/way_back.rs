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

/// Back from `failed` to `stable`, which needs `instances` to carry all traffic. `None` when there is nothing to go back to
/// and `failed` already serves: then it stays.
#[must_use]
pub fn compile(
    failed: ReleaseNumber,
    stable: Option<(ReleaseNumber, u32)>,
    observed: &Observed,
    drain: Duration,
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
    if observed.count(stable) < instances || promoted {
        // A set kept warm may have died meanwhile: the failed release serves until stable is known to be well.
        actions.push(Action::Start {
            release: stable,
            count: instances,
        });
        actions.push(Action::Await {
            release: stable,
            count: instances,
        });
    }
    actions.push(Action::Shift {
        split: Split::all_to(stable),
    });
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
