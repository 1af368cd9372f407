//! What the world still owes a service: derived from its state, so that it comes out again after a crash.

use super::{
    event::{Effect, Way},
    state::State,
};
use crate::aggregate::Pending;

/// What the world still owes the service.
pub(super) fn pending(state: &State) -> Pending<Effect> {
    let runs = (state.open_runs.iter())
        .filter(|(_, run)| !run.opened)
        .map(|(number, run)| {
            (
                format!("run-{}", number.0).into(),
                Effect::OpenRun(Box::new((*run.order).clone())),
            )
        });
    let rollouts = state.environments.values().filter_map(|place| {
        let active = place.active.as_ref()?;
        let number = active.spec.id.number;
        if !active.opened {
            return Some((
                format!("rollout-{}", number.0).into(),
                Effect::OpenRollout(Box::new((*active.spec).clone())),
            ));
        }
        let way = active.way_asked.as_ref().filter(|_| !active.way_answered)?;
        let how = match way {
            Way::Supersede { .. } => "supersede",
            Way::Back { .. } => "back",
            Way::Finish { .. } => "finish",
        };
        Some((
            format!("way-{}-{how}", number.0).into(),
            Effect::AskWay {
                number,
                way: way.clone(),
            },
        ))
    });
    let fellows = (state.untold()).map(|effect| ("fellows".into(), effect));
    let addresses = (state.address_report()).map(|effect| ("addresses".into(), effect));
    let effects: Vec<_> = (runs.chain(rollouts))
        .chain(fellows)
        .chain(addresses)
        .chain(state.health_effects())
        .collect();
    // A test leaves quarantine by itself, and schedules come.
    let wake_at = [state.testing.next_end(), state.timetable.next()]
        .into_iter()
        .flatten()
        .min();
    Pending {
        live: !effects.is_empty() || wake_at.is_some(),
        effects,
        wake_at,
    }
}
