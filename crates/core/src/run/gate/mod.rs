//! What a run and its jobs wait for apart from `needs`: the slot of a concurrency group, and approvals.
//!
//! # Invariants
//!
//! - A slot that was requested is released when its run or job has ended, whatever happened in between. A request gets its
//!   answer before the release is sent, so that the two can't overtake each other.
//! - The rules of an environment are those recorded when the run was ordered: changing them later opens and closes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_workflow::{
    graph::{ConcurrencyGroup, MatrixCell},
    job::JobKey,
};

use super::{event::RunEvent, state::Run};
use crate::{
    aggregate::{EffectKey, Event},
    concurrency::SlotPosition,
    gate::{ApprovalRule, GateDecision, GateSpec, GateState, GateVerdict},
};

mod decide;
mod event;
#[cfg(test)]
mod tests;
mod words;

pub use event::{GateEffect, GateFact, GateInput};
pub(super) use words::{job_waits_for, run_waits_for, story_lines};

/// People that a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedApproval {
    /// The environment it goes to.
    pub environment: String,
    /// The allowed approvers and the number of approvals.
    pub rule: ApprovalRule,
    pub by: Vec<String>,
    /// Since when it waits.
    pub since: Timestamp,
}

/// Where the gates of a run stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunGates {
    /// Asks so far, of groups.
    tickets: u32,
    /// Whether the run as a whole has been in its group before.
    was_inside: bool,
    /// The turn of the run as a whole.
    run: Option<GroupSlot>,
    jobs: BTreeMap<JobKey, JobGate>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct JobGate {
    /// Its turn in its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<GroupSlot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approval: Option<EnvironmentGate>,
    /// Where its environment is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// A slot of a group that was requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct GroupSlot {
    ticket: u32,
    group: ConcurrencyGroup,
    again: bool,
    /// Whether the group has answered.
    answered: bool,
    position: Option<SlotPosition>,
    /// Left over from an earlier attempt: to be released and requested again.
    stale: bool,
}

impl GroupSlot {
    /// The final answer. A member that was let in or dropped doesn't wait again: a later notice of that kind is outdated.
    fn decided(&self) -> Option<&SlotPosition> {
        self.position
            .as_ref()
            .filter(|position| !matches!(position, SlotPosition::Waiting { .. }))
    }

    fn has_come(&self) -> bool {
        !self.stale && self.position == Some(SlotPosition::Entered)
    }
}

/// The gate between a job and its environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct EnvironmentGate {
    environment: String,
    rule: ApprovalRule,
    state: GateState,
}

impl EnvironmentGate {
    /// Whether people have approved; expiry ends the job, and needs no answer here.
    fn is_passed(&self) -> bool {
        self.state.verdict(self.state.opened_at) == GateVerdict::Pass
    }
}

impl RunGates {
    fn slot(&self, job: Option<&JobKey>) -> Option<&GroupSlot> {
        match job {
            None => self.run.as_ref(),
            Some(key) => self.jobs.get(key)?.slot.as_ref(),
        }
    }

    fn slot_mut(&mut self, job: Option<&JobKey>) -> &mut Option<GroupSlot> {
        match job {
            None => &mut self.run,
            Some(key) => &mut self.jobs.entry(key.clone()).or_default().slot,
        }
    }

    /// Where the environment that a job went to is reached.
    pub(super) fn url(&self, key: &JobKey) -> Option<&str> {
        self.jobs.get(key)?.url.as_deref()
    }

    /// A job begins anew: what it was let through before counts no more.
    pub(super) fn forget(&mut self, key: &JobKey) {
        if let Some(gate) = self.jobs.get_mut(key) {
            (gate.approval, gate.url) = (None, None);
            if let Some(slot) = &mut gate.slot {
                slot.stale = true;
            }
        }
    }

    fn decide_gate(
        &mut self,
        event: &Event<RunEvent>,
        key: &JobKey,
        verdict: GateVerdict,
        reason: Option<String>,
    ) {
        if let Some(gate) = &mut self.jobs.entry(key.clone()).or_default().approval {
            gate.state.record_decision(GateDecision {
                by: event.by.to_string(),
                at: event.at,
                verdict,
                reason,
            });
        }
    }

    pub(super) fn apply(&mut self, event: &Event<RunEvent>, fact: &GateFact) {
        match fact {
            GateFact::SlotRequested {
                job,
                ticket,
                group,
                again,
            } => {
                self.tickets = *ticket;
                *self.slot_mut(job.as_ref()) = Some(GroupSlot {
                    ticket: *ticket,
                    group: group.clone(),
                    again: *again,
                    answered: false,
                    position: None,
                    stale: false,
                });
            }
            GateFact::SlotRequestAnswered { job, position } => {
                if let Some(slot) = self.slot_mut(job.as_ref()) {
                    slot.answered = true;
                    slot.position = Some(position.clone());
                }
            }
            GateFact::SlotPositionChanged { job, position } => {
                if let Some(slot) = self.slot_mut(job.as_ref()) {
                    slot.position = Some(position.clone());
                }
            }
            GateFact::SlotReleased { job } => {
                *self.slot_mut(job.as_ref()) = None;
                self.was_inside |= job.is_none();
            }
            GateFact::ApprovalRequested {
                key,
                environment,
                rule,
                ..
            } => {
                self.jobs.entry(key.clone()).or_default().approval = Some(EnvironmentGate {
                    environment: environment.clone(),
                    rule: rule.clone(),
                    state: GateState::new(GateSpec::Approval(rule.clone()), None, event.at),
                });
            }
            GateFact::Approved { key, comment } => {
                self.decide_gate(event, key, GateVerdict::Pass, comment.clone());
            }
            GateFact::Rejected { key, reason } => {
                self.decide_gate(event, key, GateVerdict::Fail, Some(reason.clone()));
            }
            GateFact::EnvironmentUrlSet { key, url } => {
                self.jobs.entry(key.clone()).or_default().url = Some(url.clone());
            }
        }
    }
}

/// Who must say yes before this job starts.
fn rule<'a>(run: &'a Run, cell: &MatrixCell) -> Option<&'a ApprovalRule> {
    let wanted = cell.gate.environment.as_deref()?;
    let rules = &run.spec.environments;
    rules
        .iter()
        .find(|rules| rules.environment.eq_ignore_ascii_case(wanted))?
        .approvals
        .as_ref()
}

fn approval_awaited<'a>(run: &'a Run, cell: &MatrixCell) -> Option<&'a EnvironmentGate> {
    let approval = run.gates.jobs.get(&cell.key)?.approval.as_ref()?;
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
    let gate = run.gates.jobs.get(&cell.key);
    let approval = gate.and_then(|gate| gate.approval.as_ref());
    cells_to_job(run, cell).all(|it| holds_slot(run, it))
        && (rule(run, cell).is_none() || approval.is_some_and(EnvironmentGate::is_passed))
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

impl RunGates {
    /// The jobs that wait for approval, or have waited for it in this attempt.
    pub(in crate::run) fn approval_keys(&self) -> impl Iterator<Item = &JobKey> {
        let gates = self.jobs.iter();
        gates.filter_map(|(key, gate)| gate.approval.as_ref().map(|_| key))
    }
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
    })
}

/// When the next approval times out.
pub(super) fn wake_at(run: &Run) -> Option<Timestamp> {
    if run.gates.jobs.is_empty() {
        return None;
    }
    run.progress
        .active()
        .into_iter()
        .filter_map(|cell| approval_awaited(run, cell)?.state.expires_at())
        .min()
}
