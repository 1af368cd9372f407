//! blue-green: a full new set beside the old one, smoke-tested, switched at once; the old set stays warm so that going back is one shift.

use crate::{
    config::BlueGreen,
    rollout::{
        plan::{Action, HoldReason, Plan, Split},
        strategy::{Brief, bring_up, first_deployment, take_down},
    },
};

/// Start, await, smoke, shift, promote; keep; drain, stop.
pub(super) fn compile(params: &BlueGreen, brief: &Brief) -> Plan {
    let Some(stable) = brief.stable else {
        return first_deployment(brief);
    };
    let mut actions = bring_up(brief, brief.instances);
    actions.push(Action::Shift {
        split: Split::all_to(brief.release),
    });
    actions.push(Action::Promote {
        release: brief.release,
    });
    actions.push(Action::Hold {
        duration: params.keep,
        why: HoldReason::KeepWarm,
    });
    actions.extend(take_down(stable, 0, brief.drain));
    Plan {
        actions,
        notes: vec![format!(
            "blue-green: {} instances run while both sets are up",
            brief.instances + brief.stable_count
        )],
    }
}
