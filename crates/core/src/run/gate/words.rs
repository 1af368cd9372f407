//! What a run waits for, in words.

use shipway_workflow::{graph::MatrixCell, job::JobKey};

use super::{approval_awaited, cells_to_job, delays};
use crate::{
    concurrency::SlotPosition,
    gate::{ApprovalPolicy, ApprovalRule},
    run::{
        gate_event::GateFact,
        gates::{EnvironmentGate, GroupSlot},
        state::Run,
    },
};

/// What the run as a whole waits for, in words.
pub(in crate::run) fn run_waits_for(run: &Run) -> Option<String> {
    if run.ended.is_some() {
        return None;
    }
    let slot = run.gates.run.as_ref().filter(|slot| !slot.has_come())?;
    Some(slot_status(slot))
}

/// What a job waits for, in words.
pub(in crate::run) fn job_waits_for(run: &Run, cell: &MatrixCell) -> Option<String> {
    if cell.outcome.is_some() || cell.stopping.is_some() {
        return None;
    }
    let slot = cells_to_job(run, cell).find_map(|it| {
        run.gates
            .slot(Some(&it.key))
            .filter(|slot| !slot.has_come())
    });
    if let Some(slot) = slot {
        return Some(slot_status(slot));
    }
    match approval_awaited(run, cell) {
        Some(approval) => Some(approval_status(run, approval)),
        None => delays::describe(run, cell),
    }
}

fn slot_status(slot: &GroupSlot) -> String {
    match &slot.position {
        Some(SlotPosition::Waiting { held_by }) => format!(
            "waiting for the concurrency group `{}`, held by {held_by}",
            slot.group.name
        ),
        Some(SlotPosition::Entered | SlotPosition::Dropped { .. }) | None => {
            format!("waiting for the concurrency group `{}`", slot.group.name)
        }
    }
}

fn approval_status(run: &Run, approval: &EnvironmentGate) -> String {
    let so_far = match approval.state.approvers().as_slice() {
        [] => String::new(),
        by => format!(" (approved by {})", by.join(", ")),
    };
    format!(
        "waiting for approval by {} to deploy to {}{so_far}: shipway approve {}",
        people(&approval.rule),
        approval.environment,
        run.spec.id.number
    )
}

fn people(policy: &ApprovalPolicy) -> String {
    let rules: Vec<String> = policy.rules.iter().map(people_of_rule).collect();
    rules.join(" and by ")
}

fn people_of_rule(rule: &ApprovalRule) -> String {
    match rule.from.as_slice() {
        [] if rule.count == 1 => "anybody".to_owned(),
        [] => format!("{} people", rule.count),
        [one] => one.clone(),
        [most @ .., last] if rule.count == 1 => format!("{} or {last}", most.join(", ")),
        from => format!("{} of {}", rule.count, from.join(", ")),
    }
}

/// Lines for the log that a person follows.
pub(in crate::run) fn story_lines(fact: &GateFact) -> Vec<String> {
    let whose = |job: &Option<JobKey>| {
        job.as_ref()
            .map(|key| format!("{key} "))
            .unwrap_or_default()
    };
    match fact {
        GateFact::SlotRequestAnswered {
            job,
            position: SlotPosition::Waiting { held_by },
        } => vec![format!(
            "· {}waiting for the concurrency group, held by {held_by}",
            whose(job)
        )],
        GateFact::ApprovalRequested {
            run,
            key,
            environment,
            rule,
            people: _,
        } => vec![format!(
            "· {key} is waiting for approval by {} to deploy to {environment}: shipway approve {run}",
            people(rule)
        )],
        GateFact::SlotRequestAnswered {
            job,
            position: SlotPosition::Entered,
        }
        | GateFact::SlotPositionChanged {
            job,
            position: SlotPosition::Entered,
        } => Vec::from_iter(
            job.as_ref()
                .map(|key| format!("· {key} entered the concurrency group")),
        ),
        GateFact::Approved { key, .. } => vec![format!("· {key} is approved")],
        GateFact::EnvironmentUrlSet { key, url } => vec![format!("· {key} is at {url}")],
        GateFact::EnvironmentReached {
            key,
            environment,
            wait_ends_at: Some(end),
        } => vec![format!(
            "· {key} waits until {end:.0} before it goes to {environment}"
        )],
        GateFact::EnvironmentFrozen { key, freeze } => {
            vec![format!("· {key} waits: its environment is {freeze}")]
        }
        GateFact::GlassBroken { key, reason } => {
            vec![format!(
                "! {key}: all gates are open by break-glass: {reason}"
            )]
        }
        GateFact::SlotRequested { .. }
        | GateFact::SlotRequestAnswered { .. }
        | GateFact::SlotPositionChanged { .. }
        | GateFact::SlotReleased { .. }
        | GateFact::Rejected { .. }
        | GateFact::EnvironmentReached { .. }
        | GateFact::EnvironmentOpened { .. }
        | GateFact::GlassReviewed { .. } => Vec::new(),
    }
}
