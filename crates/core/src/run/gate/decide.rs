//! What may happen next at the gates of a run.

use shipway_workflow::{
    graph::{MatrixCell, resolve_run_group},
    job::{Conclusion, JobKey},
};

use super::{approval_awaited, approval_subject, cells_to_job, holds_slot, refused_branch, rule};
use crate::{
    concurrency::{SlotChange, SlotPosition},
    gate::{ApprovingPerson, ChangePeople, UnacceptedDecider},
    ids::Digest,
    run::{
        RunDecider,
        event::{RunEvent, RunRejection},
        gate_event::{GateFact, GateInput},
        gates::{EnvironmentGate, GroupSlot},
        job_lookup::is_over,
        state::{Run, RunPlan},
    },
};

impl RunDecider {
    pub(super) fn run(&self) -> Option<&Run> {
        self.state.0.as_deref()
    }

    pub(super) fn fact(&mut self, fact: GateFact) {
        self.emit(RunEvent::Gate(Box::new(fact)));
    }

    pub(in crate::run) fn handle_gate_input(
        &mut self,
        run: &Run,
        input: GateInput,
    ) -> Result<(), RunRejection> {
        match input {
            GateInput::SlotRequestAnswered {
                job,
                ticket,
                position,
            } => {
                self.slot_answered(run, job, ticket, position);
            }
            GateInput::SlotPositionChanged {
                job,
                ticket,
                change,
            } => {
                if let Some(slot) = slot_with_ticket(run, job.as_ref(), ticket) {
                    self.slot_changed(run, slot, job, change);
                }
            }
            GateInput::SlotReleased { job, ticket } => {
                if slot_with_ticket(run, job.as_ref(), ticket).is_some() {
                    self.fact(GateFact::SlotReleased { job });
                }
            }
            GateInput::EnvironmentUrlSet { key, url } => {
                if !is_over(run, &key)? && run.gates.url(&key) != Some(url.as_str()) {
                    self.fact(GateFact::EnvironmentUrlSet { key, url });
                }
            }
            GateInput::Approve {
                key,
                groups,
                comment,
                seen,
            } => {
                require_seen(run, &key, seen.as_ref())?;
                self.approve_job(run, key, &groups, comment)?;
            }
            GateInput::Reject {
                key,
                groups,
                reason,
                seen,
            } => {
                require_seen(run, &key, seen.as_ref())?;
                self.reject_job(run, key, &groups, reason)?;
            }
            GateInput::BreakGlass {
                key,
                groups,
                reason,
            } => self.break_glass_of_job(run, key, &groups, reason)?,
            GateInput::ReviewBreakGlass { key, comment } => {
                self.review_glass_of_job(run, key, comment)?;
            }
        }
        Ok(())
    }

    fn approve_job(
        &mut self,
        run: &Run,
        key: JobKey,
        groups: &[String],
        comment: Option<String>,
    ) -> Result<(), RunRejection> {
        let approval = waited_for(run, &key)?;
        let who = ApprovingPerson::new(&self.by, groups);
        let accepted = approval.state.accept_approver(&who);
        accepted.map_err(|refused| not_allowed(run, &key, refused))?;
        if !approval.state.has_decision_by(&who) {
            let groups = approval.state.spec.relevant_groups(groups);
            self.fact(GateFact::Approved {
                key,
                groups,
                comment,
            });
        }
        Ok(())
    }

    fn reject_job(
        &mut self,
        run: &Run,
        key: JobKey,
        groups: &[String],
        reason: String,
    ) -> Result<(), RunRejection> {
        let approval = waited_for(run, &key)?;
        let who = ApprovingPerson::new(&self.by, groups);
        let accepted = approval.state.accept_decider(&who);
        accepted.map_err(|refused| not_allowed(run, &key, refused))?;
        let why = format!("rejected by {}: {reason}", who.name);
        self.fact(GateFact::Rejected {
            key: key.clone(),
            reason,
        });
        self.ended_at_gate(key, Conclusion::Failure, why);
        Ok(())
    }

    fn slot_answered(
        &mut self,
        run: &Run,
        job: Option<JobKey>,
        ticket: u32,
        position: SlotPosition,
    ) {
        let slot = slot_with_ticket(run, job.as_ref(), ticket);
        let Some(slot) = slot.filter(|slot| !slot.answered) else {
            return;
        };
        let position = slot.decided().cloned().unwrap_or(position);
        self.fact(GateFact::SlotRequestAnswered {
            job: job.clone(),
            position: position.clone(),
        });
        self.dropped(run, job, &position);
    }

    fn slot_changed(
        &mut self,
        run: &Run,
        slot: &GroupSlot,
        job: Option<JobKey>,
        change: SlotChange,
    ) {
        match change {
            SlotChange::Stop { why } => self.stopped(run, job, why),
            SlotChange::Stands(position)
                if slot.decided().is_none() && slot.position.as_ref() != Some(&position) =>
            {
                self.fact(GateFact::SlotPositionChanged {
                    job: job.clone(),
                    position: position.clone(),
                });
                self.dropped(run, job, &position);
            }
            SlotChange::Stands(_) => {}
        }
    }

    fn ended_at_gate(&mut self, key: JobKey, conclusion: Conclusion, why: String) {
        self.emit(RunEvent::JobEnded {
            key,
            conclusion,
            outputs: Vec::new(),
            why: Some(why),
        });
    }

    /// A job that lost its position in the queue is cancelled.
    fn dropped(&mut self, run: &Run, job: Option<JobKey>, position: &SlotPosition) {
        let SlotPosition::Dropped { why } = position else {
            return;
        };
        match job {
            Some(key)
                if run
                    .cell(&key)
                    .is_some_and(|(_, cell)| cell.outcome.is_none()) =>
            {
                self.ended_at_gate(key, Conclusion::Cancelled, why.clone());
            }
            Some(_) => {}
            None => self.stopped(run, None, why.clone()),
        }
    }

    fn stopped(&mut self, run: &Run, job: Option<JobKey>, why: String) {
        match job {
            None if run.ended.is_none() && run.progress.cancelled.is_none() => {
                self.emit(RunEvent::CancellationRequested { reason: why });
            }
            Some(key)
                if (run.cell(&key))
                    .is_some_and(|(_, cell)| cell.outcome.is_none() && cell.stopping.is_none()) =>
            {
                self.emit(RunEvent::StopRequested { key, why });
            }
            None | Some(_) => {}
        }
    }

    /// Whether the run as a whole may start; requests the slot of its group if it has not yet. A run that was cancelled before
    /// it got the slot runs nothing, not even `always()` jobs.
    pub(in crate::run) fn may_start_run(&mut self, plan: &RunPlan) -> bool {
        let Some(run) = self.run() else { return false };
        let Some(concurrency) = &plan.workflow.concurrency else {
            return true;
        };
        if let Some(slot) = &run.gates.run {
            if slot.has_come() {
                return true;
            }
        } else {
            match resolve_run_group(concurrency, &plan.ground) {
                Ok(None) => return true,
                Ok(Some(group)) => {
                    let (ticket, again) = (run.gates.tickets + 1, run.gates.was_inside);
                    self.fact(GateFact::SlotRequested {
                        job: None,
                        ticket,
                        group,
                        again,
                    });
                }
                Err(error) => {
                    let (conclusion, why) = (Conclusion::Failure, Some(error.to_string()));
                    self.emit(RunEvent::Ended { conclusion, why });
                    return false;
                }
            }
        }
        let Some(why) = self.run().and_then(|run| run.progress.cancelled.clone()) else {
            return false;
        };
        for (at, job) in plan.workflow.jobs.iter().enumerate() {
            if self
                .run()
                .is_some_and(|run| !run.progress.jobs[at].is_over())
            {
                self.emit(RunEvent::JobCompleted {
                    job: JobKey::new(&job.id, None),
                    result: Conclusion::Cancelled,
                    why: Some(why.clone()),
                });
            }
        }
        true
    }

    /// Gives up jobs whose approval has timed out.
    pub(in crate::run) fn give_up_at_gates(&mut self) {
        let Some(run) = self.run() else { return };
        let late: Vec<(JobKey, String)> = (run.progress.active().into_iter())
            .filter_map(|cell| {
                let gate = &approval_awaited(run, cell)?.state;
                let is_late = gate.expires_at()? <= self.now;
                is_late.then(|| (cell.key.clone(), gate.describe_expiry()))
            })
            .collect();
        for (key, why) in late {
            self.ended_at_gate(key, Conclusion::Failure, why);
        }
    }

    /// Asks, for the jobs that may start, whom they have to ask.
    pub(in crate::run) fn request_gates(&mut self) {
        let Some(run) = self.run() else { return };
        let active: Vec<MatrixCell> = (run.progress.active().into_iter())
            .filter(|cell| cell.stopping.is_none())
            .cloned()
            .collect();
        for cell in active {
            if self.request_slots(&cell) {
                self.reach_environment(&cell);
                self.request_approval(cell.clone());
                self.end_delays(&cell);
            }
        }
    }

    /// Asks the groups on the way to a job, one after the other; true when all its turns have come.
    fn request_slots(&mut self, cell: &MatrixCell) -> bool {
        let Some(run) = self.run() else { return false };
        let next = cells_to_job(run, cell).find(|it| !holds_slot(run, it));
        let Some((key, Some(group))) = next.map(|it| (it.key.clone(), it.gate.group.clone()))
        else {
            return true;
        };
        if run.gates.slot(Some(&key)).is_none() {
            let ticket = run.gates.tickets + 1;
            self.fact(GateFact::SlotRequested {
                job: Some(key),
                ticket,
                group,
                again: false,
            });
        }
        false
    }

    fn request_approval(&mut self, cell: MatrixCell) {
        let Some(run) = self.run() else { return };
        if let Some(why) = refused_branch(run, &cell) {
            self.ended_at_gate(cell.key, Conclusion::Failure, why);
            return;
        }
        let gate = run.gates.jobs.get(&cell.key);
        if gate.is_some_and(|gate| gate.approval.is_some() || gate.broken_glass.is_some()) {
            return;
        }
        if let Some(rule) = rule(run, &cell).cloned() {
            let people = change_people(run);
            let run = run.spec.id.number;
            self.fact(GateFact::ApprovalRequested {
                run,
                key: cell.key,
                environment: cell.gate.environment.unwrap_or_default(),
                rule,
                people,
            });
        }
    }
}

fn not_allowed(run: &Run, key: &JobKey, decider: UnacceptedDecider) -> RunRejection {
    RunRejection::NotAllowed {
        run: run.spec.id.clone(),
        key: key.clone(),
        decider: Box::new(decider),
    }
}

/// The people of the change that a run brings.
fn change_people(run: &Run) -> ChangePeople {
    let commit = &run.spec.commit;
    let named = |name: &String| ApprovingPerson {
        name: name.clone(),
        principal: None,
        groups: Vec::new(),
    };
    ChangePeople {
        author: Some(commit.author.clone()),
        committer: commit.committer.clone(),
        triggerers: ([&run.by].into_iter())
            .chain(&run.rerun_by)
            .map(named)
            .collect(),
    }
}

/// The turn that the ask with this number is about.
fn slot_with_ticket<'a>(run: &'a Run, job: Option<&JobKey>, ticket: u32) -> Option<&'a GroupSlot> {
    run.gates.slot(job).filter(|slot| slot.ticket == ticket)
}

/// Refuses a decision whose subject has changed.
fn require_seen(run: &Run, key: &JobKey, seen: Option<&Digest>) -> Result<(), RunRejection> {
    let approval = waited_for(run, key)?;
    let current = approval_subject(run, key, &approval.environment);
    if seen.is_none_or(|seen| *seen == current) {
        return Ok(());
    }
    Err(RunRejection::SubjectChanged {
        run: run.spec.id.clone(),
        key: key.clone(),
        environment: approval.environment.clone(),
        current,
    })
}

fn waited_for<'a>(run: &'a Run, key: &JobKey) -> Result<&'a EnvironmentGate, RunRejection> {
    let over = is_over(run, key)?;
    let gate = run.gates.jobs.get(key);
    gate.and_then(|gate| gate.approval.as_ref())
        .filter(|approval| !over && !approval.is_passed())
        .filter(|_| gate.is_some_and(|gate| gate.broken_glass.is_none()))
        .ok_or_else(|| RunRejection::NoPendingApproval {
            run: run.spec.id.clone(),
            key: key.clone(),
            waiting: listed_waiting(run),
        })
}

fn listed_waiting(run: &Run) -> String {
    let waiting: Vec<&str> = (run.progress.active().into_iter())
        .filter(|cell| approval_awaited(run, cell).is_some())
        .map(|cell| cell.key.as_str())
        .collect();
    match waiting.as_slice() {
        [] => "no job of it does".to_owned(),
        keys => format!("these do: {}", keys.join(", ")),
    }
}
