//! recreate: stop the old, then start the new. One version at a time; downtime is expected and said beforehand.

use crate::rollout::{
    plan::{Action, Plan, Split},
    strategy::{Brief, bring_up, finish, take_down},
};

/// Drain and stop the old, then start, await, smoke, shift.
pub(super) fn compile(brief: &Brief) -> Plan {
    let mut actions = Vec::new();
    let mut notes = Vec::new();
    if let Some(stable) = brief.stable {
        actions.extend(take_down(stable, 0, brief.drain));
        notes.push(format!(
            "recreate: nothing serves between the stop of {stable} and the readiness of {}; the proxy holds requests meanwhile",
            brief.release
        ));
    }
    actions.extend(bring_up(brief, brief.instances));
    actions.push(Action::Shift {
        split: Split::all_to(brief.release),
    });
    actions.extend(finish(brief, None));
    Plan { actions, notes }
}
