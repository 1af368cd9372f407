//! The steps of a plan as a ladder: done, under way with the remaining time, to come. After a rollback the forward plan is shown too, with
//! the step at which it ended.

use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::rollout::{
    PlanLine, RolloutHistory, RolloutProgress, RolloutStatus, RolloutView,
};

use crate::foreign_text::foreign_text;
use crate::format::{clock_time, duration_text, enum_text, relative_text};

pub(super) fn plan_section(view: &RolloutView, history: &RolloutHistory, now: Timestamp) -> Markup {
    html! {
        section.card id="plan" {
            h2 { "Plan" }
            @if history.forward_plan.is_empty() { (ladder(&view.plan, view, now)) }
            @else {
                h3 { "Forward, ended at the marked step" }
                (ladder(&history.forward_plan, view, now))
                @if let Some(turn) = &view.rollback_start { p.trouble { "Rolled back because: " (foreign_text(&turn.why)) } }
                h3 { "Back" }
                (ladder(&view.plan, view, now))
            }
        }
    }
}

fn ladder(lines: &[PlanLine], view: &RolloutView, now: Timestamp) -> Markup {
    html! {
        @if lines.is_empty() { p.dim { "The plan is compiled when the rollout starts." } }
        ol.plan { @for (place, line) in lines.iter().enumerate() {
            li class=(enum_text(&line.progress)) data-key={ "step-" (place) } aria-current=[(line.progress == RolloutProgress::Now).then_some("step")] {
                (line.text)
                @if line.progress == RolloutProgress::Now { (countdown(view, now)) }
                span.visually-hidden { (progress_label(line.progress)) }
            }
        } }
    }
}

const fn progress_label(progress: RolloutProgress) -> &'static str {
    match progress {
        RolloutProgress::Done => " (done)",
        RolloutProgress::Now => " (under way)",
        RolloutProgress::Stopped => " (failed or ended here)",
        RolloutProgress::Todo => " (to come)",
    }
}

/// The remaining time of the current step; the script counts down between two refreshes.
fn countdown(view: &RolloutView, now: Timestamp) -> Markup {
    let ends = view
        .hold_until
        .filter(|_| view.status != RolloutStatus::Paused);
    html! { @if let Some(ends) = ends {
        @if ends > now {
            span.countdown {
                " · " time datetime=(ends) data-countdown { (remaining_text(ends, now)) } " left, until " (clock_time(ends, now)) " UTC"
            }
        } @else { span.dim { " · its time is over (" (relative_text(ends, now)) ")" } }
    } }
}

fn remaining_text(ends: Timestamp, now: Timestamp) -> String {
    let left = u64::try_from(ends.duration_since(now).as_millis()).unwrap_or_default();
    match left {
        0..60_000 => format!("{} s", left / 1_000),
        60_000..3_600_000 => format!("{} min {} s", left / 60_000, left / 1_000 % 60),
        _ => duration_text(left),
    }
}
