//! What a run and its jobs wait for apart from `needs`: the slot of a concurrency group, and approvals.
//!
//! # Invariants
//!
//! - A slot that was requested is released when its run or job has ended, whatever happened in between. A request gets its
//!   answer before the release is sent, so that the two can't overtake each other.
//! - The rules of an environment are those recorded when the run was ordered: changing them later opens and closes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shipway_workflow::{graph::MatrixCell, job::JobKey};

use super::{
    gate_event::GateEffect,
    gates::{EnvironmentGate, GroupSlot},
    state::Run,
};
use crate::{
    aggregate::EffectKey,
    concurrency::SlotPosition,
    gate::{ApprovalPolicy, EnvironmentRules},
    ids::Digest,
};

mod decide;
mod delays;
#[cfg(test)]
mod tests;
mod words;

pub(super) use delays::broken_glass;
pub(super) use words::{job_waits_for, run_waits_for, story_lines};

/// People that a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedApproval {
    /// The environment it goes to.
    pub environment: String,
    /// The allowed approvers and the number of approvals.
    pub rule: ApprovalPolicy,
    pub by: Vec<String>,
    /// Since when it waits.
    pub since: Timestamp,
    /// What an approval is for: the commit, the workflow, the job and the environment. None in rows of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

/// The digest of what an approval of a job is for.
fn approval_subject(run: &Run, key: &JobKey, environment: &str) -> Digest {
    let (commit, workflow) = (&run.spec.commit.id, &run.spec.workflow);
    let subject =
        json!({ "commit": commit, "workflow": workflow, "job": key, "environment": environment });
    Digest::compute(subject.to_string().as_bytes())
}

/// The rules of the environment that a job goes to.
fn environment_rules<'a>(run: &'a Run, cell: &MatrixCell) -> Option<&'a EnvironmentRules> {
    let wanted = cell.gate.environment.as_deref()?;
    let mut rules = run.spec.environments.iter();
    rules.find(|rules| rules.environment.eq_ignore_ascii_case(wanted))
}

/// The approvals that a job needs before it starts.
fn rule<'a>(run: &'a Run, cell: &MatrixCell) -> Option<&'a ApprovalPolicy> {
    environment_rules(run, cell)?.approvals.as_ref()
}

/// Why a job of this branch may not go to its environment.
fn refused_branch(run: &Run, cell: &MatrixCell) -> Option<String> {
    let environment = environment_rules(run, cell)?;
    let reference = &run.spec.reference;
    let branch = reference.strip_prefix("refs/heads/");
    let is_refused = !environment.rules.accept_branch(branch);
    is_refused.then(|| {
        format!(
            "{} accepts only branches {}, and this run is of {}",
            environment.environment,
            environment.rules.branch_list(),
            branch.unwrap_or(reference)
        )
    })
}

fn approval_awaited<'a>(run: &'a Run, cell: &MatrixCell) -> Option<&'a EnvironmentGate> {
    let gate = run.gates.jobs.get(&cell.key)?;
    let approval = gate
        .approval
        .as_ref()
        .filter(|_| gate.broken_glass.is_none())?;
    (!approval.is_passed() && cell.stopping.is_none() && cell.outcome.is_none()).then_some(approval)
}

/// The calls that lead to a job, the outermost first, and the job itself: each may have a group of its own.
fn cells_to_job<'r>(run: &'r Run, cell: &'r MatrixCell) -> impl Iterator<Item = &'r MatrixCell> {
    let callers = cell.key.callers();
    callers
        .filter_map(|caller| Some(run.cell(&caller)?.1))
        .chain([cell])
}

fn holds_slot(run: &Run, cell: &MatrixCell) -> bool {
    cell.gate.group.is_none()
        || run
            .gates
            .slot(Some(&cell.key))
            .is_some_and(GroupSlot::has_come)
}

/// Whether nothing keeps a job from starting.
pub(super) fn is_open(run: &Run, cell: &MatrixCell) -> bool {
    if run.plan().is_ok_and(|plan| !plan.has_gates) {
        return true;
    }
    cells_to_job(run, cell).all(|it| holds_slot(run, it))
        && refused_branch(run, cell).is_none()
        && approval_passed(run, cell)
        && delays::is_undelayed(run, cell)
}

/// Whether no people are needed for a job to start, or they have approved, or it was an emergency.
fn approval_passed(run: &Run, cell: &MatrixCell) -> bool {
    let gate = run.gates.jobs.get(&cell.key);
    let approval = gate.and_then(|gate| gate.approval.as_ref());
    rule(run, cell).is_none()
        || approval.is_some_and(EnvironmentGate::is_passed)
        || gate.is_some_and(|gate| gate.broken_glass.is_some())
}

/// What gates ask of the world, also after the end of the run.
pub(super) fn pending(run: &Run) -> impl Iterator<Item = (EffectKey, GateEffect)> {
    let of_run = run.gates.run.iter().map(|slot| (None, slot));
    let of_jobs = run
        .gates
        .jobs
        .iter()
        .filter_map(|(key, gate)| Some((Some(key), gate.slot.as_ref()?)));
    of_run.chain(of_jobs).filter_map(|(job, slot)| {
        let over = slot.stale
            || matches!(slot.position, Some(SlotPosition::Dropped { .. }))
            || run.ended.is_some()
            || job.is_some_and(|key| run.cell(key).is_none_or(|(_, cell)| cell.outcome.is_some()));
        let key = format!("turn-{}", slot.ticket);
        let (job, ticket) = (job.cloned(), slot.ticket);
        if !slot.answered {
            let (group, again) = (slot.group.clone(), slot.again);
            let effect = GateEffect::RequestSlot {
                job,
                ticket,
                group,
                again,
            };
            return Some((key.into(), effect));
        }
        let group = slot.group.name.clone();
        over.then(|| (key.into(), GateEffect::ReleaseSlot { job, ticket, group }))
    })
}

/// The people that a job waits for.
pub(super) fn awaited(run: &Run, cell: &MatrixCell) -> Option<AwaitedApproval> {
    let approval = approval_awaited(run, cell)?;
    Some(AwaitedApproval {
        environment: approval.environment.clone(),
        rule: approval.rule.clone(),
        by: (approval.state.approvers().into_iter())
            .map(ToOwned::to_owned)
            .collect(),
        since: approval.state.opened_at,
        subject: Some(approval_subject(run, &cell.key, &approval.environment)),
    })
}

/// When the next approval times out, or the next wait or freeze ends.
pub(super) fn wake_at(run: &Run, now: Timestamp) -> Option<Timestamp> {
    if run.gates.jobs.is_empty() {
        return None;
    }
    run.progress
        .active()
        .into_iter()
        .filter_map(|cell| match approval_awaited(run, cell) {
            Some(approval) => approval.state.expires_at(),
            None => delays::wakes_at(run, cell, now),
        })
        .min()
}
