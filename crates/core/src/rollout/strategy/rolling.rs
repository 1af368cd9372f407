//! rolling: replace instances in batches, never more than `max_surge` above nor `max_unavailable` below the wanted number.

use crate::{
    config::Rolling,
    exposure::Weight,
    rollout::{
        plan::{Action, Plan, Split},
        strategy::{Brief, bring_up, finish, first_deployment, take_down},
    },
};

/// Batches of start, await, shift, drain, stop. Traffic follows the instances: each release gets the share it has of them.
pub(super) fn compile(params: &Rolling, brief: &Brief) -> Plan {
    let Some(stable) = brief.stable else {
        return first_deployment(brief);
    };
    let wanted = brief.instances;
    let surge = params.max_surge.round_up(wanted);
    let unavailable = params.max_unavailable.round_down(wanted);
    // Kubernetes refuses 0 and 0; the file reader does too, and this keeps a percentage that rounds to 0 from standing still.
    let surge = if surge == 0 && unavailable == 0 {
        1
    } else {
        surge
    };
    let (mut old, mut new) = (brief.stable_count, 0);
    let mut actions = Vec::new();
    while new < wanted || old > 0 {
        let removable = (old + new)
            .saturating_sub(wanted.saturating_sub(unavailable))
            .min(old);
        let addable = (wanted + surge).saturating_sub(old + new).min(wanted - new);
        if addable > 0 {
            let first = new == 0;
            new += addable;
            actions.extend(bring_up_batch(brief, new, first));
        } else {
            old -= removable.max(1).min(old);
            let weight = Weight::ratio(new, old + new);
            actions.push(Action::Shift {
                split: Split::between(brief.release, weight, stable),
            });
            actions.extend(take_down(stable, old, brief.drain));
        }
    }
    if brief.stable_count == 0 {
        // There was nothing to replace, so no batch has shifted traffic.
        actions.push(Action::Shift {
            split: Split::all_to(brief.release),
        });
    }
    actions.extend(finish(brief, None));
    Plan {
        actions,
        notes: vec![format!(
            "rolling: up to {} instances at once, never fewer than {} ready",
            wanted + surge,
            wanted.saturating_sub(unavailable)
        )],
    }
}

/// Only the first batch is smoke-tested: later ones are the same bytes.
fn bring_up_batch(brief: &Brief, count: u32, first: bool) -> Vec<Action> {
    let mut actions = bring_up(brief, count);
    if !first {
        actions.retain(|action| !matches!(action, Action::Smoke { .. }));
    }
    actions
}
