//! One line that says where a rollout is, and what it waits for.

use jiff::Timestamp;
use shipway_core::{
    gate::GateState,
    rollout::{RolloutProgress, RolloutStatus, RolloutView},
};

use crate::{
    exit::Failure,
    print::{Output, line},
};

/// Where a rollout is after an action.
pub(super) fn show_rollout(view: &RolloutView, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.document(view);
    }
    line(&format!(
        "{} of {} → {}: {}{}{}",
        view.id,
        view.release,
        view.environment,
        view.status,
        missing_answers(view),
        why_rolling_back(view)
    ));
    Ok(())
}

/// Of two who stop a rollout only the first one's reason counts: the second one learns it.
fn why_rolling_back(view: &RolloutView) -> String {
    match (&view.rollback_start, &view.ended) {
        (Some(turn), None) => format!(" · {} (by {})", turn.why, turn.by),
        _ => String::new(),
    }
}

/// What a gate still waits for.
pub(super) fn missing_answers(view: &RolloutView) -> String {
    if view.status != RolloutStatus::Waiting {
        return String::new();
    }
    let asked = view
        .plan
        .iter()
        .find(|it| it.progress == RolloutProgress::Now);
    let asked = asked.map_or("an answer", |it| it.text.as_str());
    let progress = view.gate.as_ref().map(GateState::describe_progress);
    let progress = progress.filter(|it| !it.is_empty());
    let opens = (view.gate.as_ref()).and_then(|gate| gate.describe_time(Timestamp::now()));
    let details = progress.into_iter().chain(opens);
    let details: String = details.map(|it| format!("; {it}")).collect();
    format!(" · {asked}{details}")
}

/// Whether people open the gate that it waits at; else time does.
pub(super) fn is_waiting_for_people(view: &RolloutView) -> bool {
    (view.gate.as_ref()).is_none_or(|gate| gate.spec.approvals().is_some())
}
