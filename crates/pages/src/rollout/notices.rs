//! Notices of a rollout: the end of its hold, the guard after the promotion, missing instances, a rollback that keeps failing, the
//! decisions at its gate.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{
    gate::GateVerdict,
    rollout::{RolloutView, strategy::OnInconclusive},
};

use crate::{
    foreign_text::foreign_text,
    format::{clock_time, person_name, relative_text, status_badge},
};

/// What the guard sees: until when a promoted release is judged, missing instances, a rollback that keeps failing.
pub(super) fn guard_notices(view: &RolloutView, now: Timestamp) -> Markup {
    let at = |moment| html! { (clock_time(moment, now)) " UTC (" (relative_text(moment, now)) ")" };
    html! {
        @if let Some(until) = view.guarded_until {
            p { "Guarded until " (at(until)) ": a failure rolls back automatically" }
        }
        @if let Some(fault) = &view.unattributed_fault {
            p.lead.bad { "Degraded, but not rolled back: " (foreign_text(fault)) }
        }
        @if let Some(shortage) = &view.shortage {
            p.lead.bad { (shortage.ready) " of " (shortage.needed) " instances of " (view.release) " ready since " (at(shortage.since)) }
        }
        @if let Some(retry) = &view.rollback_retry {
            p.lead.bad {
                "The rollback has failed " (retry.attempt) " times"
                @match retry.until { Some(until) => { "; next attempt " (at(until)) }, None => { "; retrying now" } }
            }
        }
    }
}

/// The end of a hold, and the action that follows. A hold that is due while inconclusive is extended by the same time.
pub(super) fn hold_notice(
    due: Option<Timestamp>,
    deadline: Option<(Timestamp, OnInconclusive)>,
    now: Timestamp,
) -> Markup {
    let at = |moment| {
        html! { (clock_time(moment, now)) " UTC (" (relative_text(moment, now)) ")" }
    };
    html! {
        @match (due, deadline) {
            (Some(due), Some((deadline, then))) if due <= now => p.dim {
                "Waiting for evidence, at most until " (at(deadline)) "; "
                @match then {
                    OnInconclusive::Rollback => "otherwise the rollout is rolled back",
                    OnInconclusive::Promote => "then the rollout continues in any case",
                    OnInconclusive::Pause => "otherwise the rollout is paused",
                }
            },
            (Some(due), _) => p.dim { "Held until " (at(due)) },
            (None, _) => {},
        }
    }
}

/// The gate that a rollout waits at, or has passed, and the decisions of people.
pub(super) fn gate_notice(view: &RolloutView, now: Timestamp) -> Markup {
    let Some(gate) = &view.gate else {
        return html! {};
    };
    html! {
        section.card id="gate" {
            h2 { "Approval" }
            p { "Needs " (gate.spec.to_string()) }
            @if gate.decisions.is_empty() { p.dim { "No decision yet." } }
            ul { @for decision in &gate.decisions { li {
                (status_badge(match decision.verdict { GateVerdict::Pass => "approved", GateVerdict::Fail => "rejected", GateVerdict::Pending => "pending" }))
                " by " (foreign_text(person_name(&decision.by))) span.dim { " " (relative_text(decision.at, now)) }
                @if let Some(reason) = &decision.reason { ": " (foreign_text(reason)) }
            } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hold_is_said_to_have_ended_in_the_past() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let deadline = Some((at(90), OnInconclusive::Pause));
        let before = hold_notice(Some(at(30)), deadline, at(20)).into_string();
        assert!(
            before.contains("Held until") && before.contains(">00:00:30<"),
            "{before}"
        );
        let after = hold_notice(Some(at(30)), deadline, at(40)).into_string();
        assert!(!after.contains(">00:00:30<"), "{after}");
        assert!(
            after.contains(">00:01:30<") && after.contains("otherwise the rollout is paused"),
            "{after}"
        );
    }
}
