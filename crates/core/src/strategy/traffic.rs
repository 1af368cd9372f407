//! How much traffic the holds of a plan need before their evidence counts, said before anything runs.

use std::time::Duration;

use super::{
    Strategy, StrategyInput,
    plan::{HoldReason, PlanAction, RolloutPlan, TrafficSplit},
};
use crate::duration_text::DurationText;

/// How much traffic each hold of a strategy needs, without notes on anything else.
#[must_use]
pub fn describe_needed_traffic(strategy: &Strategy, brief: &StrategyInput) -> Vec<String> {
    let mut plan = strategy.compile(brief);
    plan.notes.clear();
    describe(&mut plan, brief);
    plan.notes
}

/// Says how much traffic each hold needs before its evidence counts, and how much it can expect of what stable had.
pub(super) fn describe(plan: &mut RolloutPlan, brief: &StrategyInput) {
    let mut notes = Vec::new();
    let mut split = None;
    for action in &plan.actions {
        match action {
            PlanAction::Shift { split: next } => split = Some(next),
            PlanAction::Hold {
                duration,
                why: HoldReason::Evidence,
            } => {
                let weight = split.map(|split: &TrafficSplit| split.weight_of(brief.release));
                let share = weight.map_or(0.0, |weight| weight.percent() / 100.0);
                notes.extend(traffic_of_hold(brief, share, *duration));
            }
            _ => {}
        }
    }
    if let Some(traffic) = brief.stable_traffic.filter(|_| brief.needs_slow_limit) {
        notes.push(traffic.describe_slow_limit());
    }
    plan.notes.extend(notes);
}

/// `10% for 5 min: judging needs 100 requests to the new release, about 600 are expected (stable had 72,000 in the last 1 h)`
fn traffic_of_hold(brief: &StrategyInput, share: f64, duration: Duration) -> Option<String> {
    if brief.min_requests == 0 || share <= 0.0 {
        return None;
    }
    let needed = brief.min_requests;
    let of = format!("{}% for {}", 100.0 * share, DurationText(duration));
    let seconds = duration.as_secs_f64();
    let Some(traffic) = brief.stable_traffic.filter(|it| !it.counted_for.is_zero()) else {
        let rate = needed as f64 / (share * seconds).max(f64::MIN_POSITIVE);
        return Some(format!(
            "{of}: judging needs {needed} requests to the new release, that is {} requests per second in total; with fewer the hold ends by time",
            decimal(rate)
        ));
    };
    let per_second = traffic.requests as f64 / traffic.counted_for.as_secs_f64();
    let expected = per_second * seconds * share;
    let outcome = if expected < needed as f64 {
        ": too few to judge, the hold ends by time"
    } else {
        ""
    };
    Some(format!(
        "{of}: judging needs {needed} requests to the new release, about {expected:.0} are expected (stable had {} in the last {}){outcome}",
        traffic.requests,
        DurationText(traffic.counted_for)
    ))
}

/// Few digits: `84`, `8.3`, `0.14`.
fn decimal(value: f64) -> String {
    match value {
        v if v >= 10.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
