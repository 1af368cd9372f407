//! Where the gates of a run and its jobs stand, folded from the facts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_workflow::{graph::ConcurrencyGroup, job::JobKey};

use super::{event::RunEvent, gate_event::GateFact};
use crate::{
    aggregate::Event,
    concurrency::SlotPosition,
    gate::{
        ActiveFreeze, ApprovalPolicy, ApprovingPerson, BrokenGlass, GateDecision, GateSpec,
        GateState, GateVerdict, GlassReview,
    },
};

/// Where the gates of a run stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunGates {
    /// Asks so far, of groups.
    pub(super) tickets: u32,
    /// Whether the run as a whole has been in its group before.
    pub(super) was_inside: bool,
    /// The turn of the run as a whole.
    pub(super) run: Option<GroupSlot>,
    pub(super) jobs: BTreeMap<JobKey, JobGate>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct JobGate {
    /// Its turn in its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<GroupSlot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<EnvironmentGate>,
    /// Where its environment is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    /// When it came to its environment, where that has a wait or freezes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reached_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) wait_ends_at: Option<Timestamp>,
    /// The freeze that was in force when it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) freeze: Option<ActiveFreeze>,
    /// Whether its wait has ended without a freeze in force.
    #[serde(default)]
    pub(super) is_opened: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) broken_glass: Option<BrokenGlass>,
}

/// A slot of a group that was requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct GroupSlot {
    pub(super) ticket: u32,
    pub(super) group: ConcurrencyGroup,
    pub(super) again: bool,
    /// Whether the group has answered.
    pub(super) answered: bool,
    pub(super) position: Option<SlotPosition>,
    /// Left over from an earlier attempt: to be released and requested again.
    pub(super) stale: bool,
}

impl GroupSlot {
    /// The final answer. A member that was let in or dropped doesn't wait again: a later notice of that kind is outdated.
    pub(super) fn decided(&self) -> Option<&SlotPosition> {
        self.position
            .as_ref()
            .filter(|position| !matches!(position, SlotPosition::Waiting { .. }))
    }

    pub(super) fn has_come(&self) -> bool {
        !self.stale && self.position == Some(SlotPosition::Entered)
    }
}

/// The gate between a job and its environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EnvironmentGate {
    pub(super) environment: String,
    pub(super) rule: ApprovalPolicy,
    pub(super) state: GateState,
}

impl EnvironmentGate {
    /// Whether people have approved; expiry ends the job, and needs no answer here.
    pub(super) fn is_passed(&self) -> bool {
        self.state.verdict(self.state.opened_at) == GateVerdict::Pass
    }
}

impl RunGates {
    pub(super) fn slot(&self, job: Option<&JobKey>) -> Option<&GroupSlot> {
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
            let mut slot = gate.slot.take();
            slot.iter_mut().for_each(|slot| slot.stale = true);
            *gate = JobGate {
                slot,
                ..JobGate::default()
            };
        }
    }

    fn decide_gate(&mut self, key: &JobKey, decision: GateDecision) {
        if let Some(gate) = &mut self.jobs.entry(key.clone()).or_default().approval {
            gate.state.record_decision(decision);
        }
    }

    fn request_approval(&mut self, event: &Event<RunEvent>, fact: &GateFact) {
        let GateFact::ApprovalRequested {
            key,
            environment,
            rule,
            people,
            run: _,
        } = fact
        else {
            return;
        };
        let spec = GateSpec::Approval(rule.clone());
        self.jobs.entry(key.clone()).or_default().approval = Some(EnvironmentGate {
            environment: environment.clone(),
            rule: rule.clone(),
            state: GateState::new(spec, event.at, event.at).for_change_of(people.clone()),
        });
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
            GateFact::ApprovalRequested { .. } => self.request_approval(event, fact),
            GateFact::Approved {
                key,
                groups,
                comment,
            } => {
                let decision = decision(event, groups, GateVerdict::Pass);
                self.decide_gate(key, decision.with_reason(comment.clone()));
            }
            GateFact::Rejected { key, reason } => {
                let decision = decision(event, &[], GateVerdict::Fail);
                self.decide_gate(key, decision.with_reason(Some(reason.clone())));
            }
            GateFact::EnvironmentUrlSet { key, url } => {
                self.jobs.entry(key.clone()).or_default().url = Some(url.clone());
            }
            fact => self.apply_delay(event, fact),
        }
    }

    /// Facts of waits, freezes and emergencies.
    fn apply_delay(&mut self, event: &Event<RunEvent>, fact: &GateFact) {
        match fact {
            GateFact::EnvironmentReached {
                key, wait_ends_at, ..
            } => {
                let gate = self.jobs.entry(key.clone()).or_default();
                gate.reached_at = Some(event.at);
                gate.wait_ends_at = *wait_ends_at;
            }
            GateFact::EnvironmentFrozen { key, freeze } => {
                self.jobs.entry(key.clone()).or_default().freeze = Some(freeze.clone());
            }
            GateFact::EnvironmentOpened { key } => {
                self.jobs.entry(key.clone()).or_default().is_opened = true;
            }
            GateFact::GlassBroken { key, reason } => {
                self.jobs.entry(key.clone()).or_default().broken_glass = Some(BrokenGlass {
                    by: ApprovingPerson::new(&event.by, &[]),
                    at: event.at,
                    reason: reason.clone(),
                    review: None,
                });
            }
            GateFact::GlassReviewed { key, comment } => {
                let gate = self.jobs.entry(key.clone()).or_default();
                if let Some(glass) = &mut gate.broken_glass {
                    glass.review = Some(GlassReview {
                        by: event.by.to_string(),
                        at: event.at,
                        comment: comment.clone(),
                    });
                }
            }
            GateFact::SlotRequested { .. }
            | GateFact::SlotRequestAnswered { .. }
            | GateFact::SlotPositionChanged { .. }
            | GateFact::SlotReleased { .. }
            | GateFact::ApprovalRequested { .. }
            | GateFact::Approved { .. }
            | GateFact::EnvironmentUrlSet { .. }
            | GateFact::Rejected { .. } => {}
        }
    }

    /// The jobs that wait for approval or a review, or have waited for it in this attempt.
    pub(super) fn approval_keys(&self) -> impl Iterator<Item = &JobKey> {
        let gates = self.jobs.iter();
        gates.filter_map(|(key, gate)| {
            (gate.approval.is_some() || gate.broken_glass.is_some()).then_some(key)
        })
    }
}

fn decision(event: &Event<RunEvent>, groups: &[String], verdict: GateVerdict) -> GateDecision {
    GateDecision::new(ApprovingPerson::new(&event.by, groups), event.at, verdict)
}
