//! canary: a growing share of users, held at each step until the evidence is good enough.

use crate::{
    config::{Approvals, Canary},
    exposure::Weight,
    rollout::{
        plan::{Action, HoldReason, Plan, Split},
        strategy::{Brief, bring_up, finish, first_deployment},
    },
};

/// For each step: shift, smoke, ask, hold; then everything, promote, and the old set goes.
pub(super) fn compile(params: &Canary, brief: &Brief) -> Plan {
    let Some(stable) = brief.stable else {
        return first_deployment(brief);
    };
    let mut actions = Vec::new();
    let mut running = 0;
    for step in &params.steps {
        let needed = step
            .scale
            .map_or_else(
                || step.weight.share_of(brief.instances),
                |scale| scale.round_up(brief.instances),
            )
            .max(1);
        if needed > running {
            running = needed;
            let mut up = bring_up(brief, running);
            if actions.is_empty() {
                actions.append(&mut up);
            } else {
                actions.extend(
                    up.into_iter()
                        .filter(|action| !matches!(action, Action::Smoke { .. })),
                );
            }
        }
        if step.smoke && !matches!(actions.last(), Some(Action::Smoke { .. })) {
            actions.push(Action::Smoke {
                release: brief.release,
            });
        }
        if step.ask {
            actions.push(Action::Ask {
                gate: brief.approvals.clone().unwrap_or_else(Approvals::anyone),
            });
        }
        actions.push(Action::Shift {
            split: Split::between(brief.release, step.weight, stable),
        });
        if let Some(duration) = step.hold {
            actions.push(Action::Hold {
                duration,
                why: HoldReason::Evidence,
            });
        }
    }
    if running < brief.instances {
        let up = bring_up(brief, brief.instances);
        let again = running > 0;
        actions.extend(
            up.into_iter()
                .filter(|action| !again || !matches!(action, Action::Smoke { .. })),
        );
    }
    if params
        .steps
        .last()
        .is_none_or(|step| step.weight != Weight::FULL)
    {
        actions.push(Action::Shift {
            split: Split::all_to(brief.release),
        });
    }
    actions.extend(finish(brief, Some(stable)));
    Plan {
        actions,
        notes: Vec::new(),
    }
}
