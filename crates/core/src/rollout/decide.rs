//! What may happen next in a rollout, and what the world still owes it. Every rule of "what a correct executor does" that a
//! rollout can keep by itself is kept here.

use super::{
    RolloutDecider,
    event::{
        PlanDirection, RolloutEvent, RolloutInput, RolloutRejection, RolloutSpec,
        describe_warm_set_end,
    },
    failure::{FailureResponse, response_to_failure},
    metric_evaluation::MetricEvaluation,
    outcome::{RollbackCause, RolloutKind, RolloutOutcome, RolloutPace},
    plan::{HoldReason, PlanAction},
    state::{Rollout, RolloutState},
    strategy::{OnInconclusive, compile, straight},
};
use crate::{
    aggregate::{Actor, Event},
    duration_text::DurationText,
    gate::{ApprovingPerson, GateSpec, GateState, GateVerdict, SeenSubject, UnacceptedDecider},
};
use jiff::Timestamp;
use shipway_analysis::Observation;

impl RolloutDecider {
    /// Consequences are attributed to Shipway, not to the author of the input that triggered them.
    pub(super) fn emit_because(&mut self, why: &str, body: RolloutEvent) {
        let by = std::mem::replace(&mut self.by, Actor::Shipway(why.to_owned()));
        self.emit(body);
        self.by = by;
    }

    pub(super) fn rollout(&self) -> Option<&Rollout> {
        self.state.0.as_deref()
    }

    fn open(&mut self, spec: Box<RolloutSpec>) {
        let brief = Rollout::brief(&spec);
        let plan = match spec.pace {
            RolloutPace::ByStrategy => compile(&spec.environment.strategy, &brief),
            RolloutPace::Direct => straight(&brief),
        };
        let why = spec.why.clone();
        self.emit(RolloutEvent::Opened { spec });
        self.emit(RolloutEvent::Planned {
            direction: PlanDirection::Forward,
            plan,
            cause: None,
            why,
        });
    }

    /// Everything that follows from the state and the time alone.
    fn advance(&mut self) {
        while let Some(step) = self
            .rollout()
            .and_then(|rollout| next_step(rollout, self.now))
        {
            match step {
                NextStep::Done(index, note) => self.emit_because(
                    "the plan continues",
                    RolloutEvent::ActionDone {
                        index,
                        note,
                        smoke: None,
                    },
                ),
                NextStep::TurnBack(cause, why) => self.roll_back_automatically(cause, &why),
                NextStep::Compare(why) => self.start_reverse_canary(&why),
                NextStep::ReportFault(why) => {
                    self.emit_because("watch", RolloutEvent::FaultNotAttributed { why });
                }
                NextStep::RetryRollback(cause, why) => self.roll_back_automatically(cause, &why),
                NextStep::FailAction(cause, why) => {
                    self.by = Actor::Shipway("no progress".to_owned());
                    self.fail_action(cause, why, None);
                }
                NextStep::Pause(reason) => {
                    let notifies = true;
                    self.emit_because("inconclusive", RolloutEvent::Paused { reason, notifies })
                }
                NextStep::End(outcome, cause, why) => self.emit_because(
                    "the plan is done",
                    RolloutEvent::Ended {
                        outcome,
                        cause,
                        why,
                    },
                ),
            }
        }
    }
}

pub(super) enum NextStep {
    Done(usize, Option<String>),
    TurnBack(RollbackCause, String),
    FailAction(RollbackCause, String),
    RetryRollback(RollbackCause, String),
    Compare(String),
    ReportFault(String),
    Pause(String),
    End(RolloutOutcome, Option<RollbackCause>, String),
}

/// The next thing that follows by itself, if any.
pub(super) fn next_step(rollout: &Rollout, now: Timestamp) -> Option<NextStep> {
    if rollout.ended.is_some() {
        return None;
    }
    if let Some(step) = step_after_failed_verdict(rollout) {
        return Some(step);
    }
    if let Some(until) = rollout.rollback_retry.and_then(|retry| retry.until) {
        let turn = rollout.rollback_start.as_ref().filter(|_| now >= until)?;
        return Some(NextStep::RetryRollback(turn.cause, turn.why.clone()));
    }
    let Some(action) = rollout.action() else {
        return Some(end_of_plan(rollout));
    };
    if rollout.paused.is_some() {
        return None;
    }
    match action {
        PlanAction::Hold { why, .. } => hold_step(rollout, *why, now),
        PlanAction::Ask { .. } => gate_step(rollout, now),
        PlanAction::Barrier { .. } if rollout.holds_skipped => Some(NextStep::Done(
            rollout.cursor,
            Some("not waited for".to_owned()),
        )),
        PlanAction::ClaimAddresses { .. }
        | PlanAction::Start { .. }
        | PlanAction::Await { .. }
        | PlanAction::Smoke { .. }
        | PlanAction::Shift { .. }
        | PlanAction::Barrier { .. }
        | PlanAction::Drain { .. }
        | PlanAction::Stop { .. }
        | PlanAction::Promote { .. } => {
            let deadline = rollout.progress_deadline()?;
            (now >= deadline).then(|| {
                let allowed = DurationText(rollout.spec.environment.progress_deadline);
                NextStep::FailAction(
                    RollbackCause::NoProgress,
                    format!("no progress for {allowed}"),
                )
            })
        }
    }
}

fn gate_step(rollout: &Rollout, now: Timestamp) -> Option<NextStep> {
    let gate = rollout.gate.as_ref()?;
    if let Some(glass) = &rollout.broken_glass {
        let note = format!("opened by break-glass of {}", glass.by.name);
        return Some(NextStep::Done(rollout.cursor, Some(note)));
    }
    match gate.verdict(now) {
        GateVerdict::Pass => {
            let note = match &gate.spec {
                GateSpec::Approval(_) => format!("approved by {}", gate.approvers().join(", ")),
                GateSpec::Wait(_) => "the time is over".to_owned(),
                GateSpec::Freeze(_) => "not frozen".to_owned(),
            };
            Some(NextStep::Done(rollout.cursor, Some(note)))
        }
        GateVerdict::Fail => Some(NextStep::TurnBack(
            RollbackCause::Rejected,
            gate.describe_expiry(),
        )),
        GateVerdict::Pending => None,
    }
}

/// The response to evidence against the new release, if there is any.
fn step_after_failed_verdict(rollout: &Rollout) -> Option<NextStep> {
    let judgement = rollout.evidence.judgement()?;
    if rollout.direction != PlanDirection::Forward || !judgement.verdict.is_fail() {
        return None;
    }
    let why = judgement.verdict.why();
    match response_to_failure(rollout) {
        FailureResponse::RollBack => {
            Some(NextStep::TurnBack(RollbackCause::Evidence, why.to_owned()))
        }
        FailureResponse::Compare => Some(NextStep::Compare(why.to_owned())),
        FailureResponse::Report => Some(NextStep::ReportFault(format!(
            "{why}; recreate never runs two releases at once, so the cause can't be determined"
        ))),
        FailureResponse::Continue => None,
    }
}

fn end_of_plan(rollout: &Rollout) -> NextStep {
    match rollout.direction {
        PlanDirection::Forward => NextStep::End(
            RolloutOutcome::Promoted,
            None,
            format!("{} serves all traffic", rollout.candidate()),
        ),
        PlanDirection::Back => {
            let now_serves = rollout
                .stable()
                .map(|stable| format!("; {stable} serves all traffic"))
                .unwrap_or_default();
            let (cause, why) = match &rollout.rollback_start {
                Some(turn) => (turn.cause, turn.why.as_str()),
                // A plan back is never written without its cause.
                None => (RollbackCause::FailedAction, "it was rolled back"),
            };
            NextStep::End(cause.outcome(), Some(cause), format!("{why}{now_serves}"))
        }
    }
}

fn hold_step(rollout: &Rollout, why: HoldReason, now: Timestamp) -> Option<NextStep> {
    let index = rollout.cursor;
    let is_skipped = match why {
        // A promotion skips holds; it ends neither the guard nor the instances that a rollback needs.
        HoldReason::KeepWarm | HoldReason::Watch => rollout.keep_ended,
        HoldReason::ReverseCanary => rollout.keep_ended || rollout.holds_skipped,
        HoldReason::Evidence | HoldReason::Time => rollout.holds_skipped,
    };
    if is_skipped {
        return Some(NextStep::Done(index, Some("skipped".to_owned())));
    }
    if now < rollout.hold_due()? {
        let enough = conclusive_pass(rollout)
            .filter(|_| matches!(why, HoldReason::Evidence | HoldReason::ReverseCanary))?;
        if why == HoldReason::ReverseCanary && rollout.unattributed_fault.is_none() {
            return (now >= rollout.hold_earliest()?).then(|| not_this_release(rollout));
        }
        return (now >= rollout.hold_earliest()?)
            .then(|| NextStep::Done(index, Some(format!("enough evidence: {enough}"))));
    }
    if why == HoldReason::ReverseCanary {
        return Some(not_this_release(rollout));
    }
    if matches!(why, HoldReason::KeepWarm | HoldReason::Watch) || !rollout.is_judged() {
        return Some(NextStep::Done(index, None));
    }
    match rollout
        .evidence
        .judgement()
        .map(|judgement| &judgement.verdict)
    {
        Some(verdict) if verdict.is_pass() => {
            Some(NextStep::Done(index, Some(verdict.why().to_owned())))
        }
        Some(verdict) if verdict.is_accepted_at_end() => {
            Some(NextStep::Done(index, Some(verdict.to_string())))
        }
        inconclusive => {
            if now < rollout.hold_deadline()? {
                return None;
            }
            let evidence =
                inconclusive.map_or("nothing could be measured", |verdict| verdict.why());
            let reason = format!("the evidence is inconclusive: {evidence}");
            let holds = rollout.spec.environment.strategy.holds();
            Some(match holds.on_inconclusive {
                OnInconclusive::Pause => NextStep::Pause(reason),
                OnInconclusive::Rollback => NextStep::TurnBack(RollbackCause::Inconclusive, reason),
                OnInconclusive::Promote => NextStep::Done(index, Some(reason)),
            })
        }
    }
}

/// The end of a reverse canary that did not fail: first the fault is reported, then the plan continues.
fn not_this_release(rollout: &Rollout) -> NextStep {
    let evidence =
        (rollout.evidence.judgement()).map_or("nothing could be measured", |it| it.verdict.why());
    if rollout.unattributed_fault.is_some() {
        return NextStep::Done(rollout.cursor, Some(evidence.to_owned()));
    }
    let previous = rollout
        .stable()
        .map_or_else(String::new, |it| it.to_string());
    NextStep::ReportFault(format!(
        "not this release: nothing shows that {} is worse than {previous} at the same time ({evidence})",
        rollout.candidate()
    ))
}

/// Why a hold may end early, once the evidence is conclusive.
pub(super) fn conclusive_pass(rollout: &Rollout) -> Option<&str> {
    let judgement = rollout.evidence.judgement()?;
    let is_enough = rollout.is_judged() && judgement.is_final() && judgement.verdict.is_pass();
    is_enough.then(|| judgement.verdict.why())
}

/// Facts that follow from an input.
pub(super) fn decide(
    state: &RolloutState,
    input: RolloutInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<RolloutEvent>>, RolloutRejection> {
    let mut decider = RolloutDecider::new(state, by, now);
    match (&state.0, input) {
        (None, RolloutInput::Open(spec)) => decider.open(spec),
        (None, _) => return Err(RolloutRejection::NotOpened),
        (Some(rollout), RolloutInput::Open(spec)) if rollout.spec.is_same_order(&spec) => {
            return Ok(Vec::new());
        }
        (Some(rollout), RolloutInput::Open(_)) => {
            return Err(RolloutRejection::OpenedAlready(rollout.spec.id.clone()));
        }
        (Some(rollout), input) => handle_input(&mut decider, rollout, input)?,
    }
    decider.advance();
    Ok(decider.decided())
}

/// One input to an opened rollout: a command of a person or of the service, or a report of a driver.
fn handle_input(
    decider: &mut RolloutDecider,
    rollout: &Rollout,
    input: RolloutInput,
) -> Result<(), RolloutRejection> {
    let running = rollout.ended.is_none();
    match input {
        RolloutInput::Approve {
            groups,
            seen,
            comment,
        } => approve(decider, rollout, (&groups, &seen), comment)?,
        RolloutInput::Reject {
            groups,
            seen,
            reason,
        } => {
            let gate = waiting_gate(rollout, &seen)?;
            let accepted = gate.accept_decider(&ApprovingPerson::new(&decider.by, &groups));
            accepted.map_err(|refused| not_allowed(rollout, refused))?;
            decider.emit(RolloutEvent::Rejected {
                reason: reason.clone(),
            });
            let why = format!("rejected by {}: {reason}", decider.by);
            decider.roll_back(RollbackCause::Rejected, &why);
        }
        RolloutInput::BreakGlass {
            groups,
            seen,
            reason,
        } => decider.break_glass(rollout, &groups, &seen, reason)?,
        RolloutInput::ReviewBreakGlass { comment } => decider.review_glass(rollout, comment)?,
        RolloutInput::Pause { reason } => {
            forward(rollout, "pausing")?;
            if rollout.paused.is_none() {
                let notifies = true;
                decider.emit(RolloutEvent::Paused { reason, notifies });
            }
        }
        RolloutInput::Resume => {
            forward(rollout, "resuming")?;
            if rollout.paused.is_some() {
                decider.emit(RolloutEvent::Resumed);
            }
        }
        RolloutInput::Promote { reason } => {
            forward(rollout, "promoting")?;
            refuse_frozen(decider, rollout)?;
            promote(decider, rollout, reason);
        }
        RolloutInput::EndKeep { next } if running => match rollout.direction {
            PlanDirection::Forward if rollout.keep_ended => {}
            PlanDirection::Forward => decider.emit(RolloutEvent::KeepEnded { next }),
            PlanDirection::Back => decider.prefer_successor(describe_warm_set_end(next)),
        },
        RolloutInput::EndKeep { .. } => {}
        RolloutInput::Abort { cause, reason } => abort(decider, rollout, cause.into(), &reason)?,
        report => handle_report(decider, rollout, report),
    }
    Ok(())
}

/// One report of a driver. A late report of work that no longer counts changes nothing.
fn handle_report(decider: &mut RolloutDecider, rollout: &Rollout, report: RolloutInput) {
    let running = rollout.ended.is_none();
    let forward = running && rollout.direction == PlanDirection::Forward;
    let is_judged = |exposure: u32| exposure == rollout.exposure && rollout.is_judged();
    let at_cursor =
        |plan: u32, index: usize| running && plan == rollout.plan_number && index == rollout.cursor;
    match report {
        RolloutInput::Done {
            plan,
            index,
            note,
            smoke,
        } if at_cursor(plan, index) => {
            decider.emit(RolloutEvent::ActionDone { index, note, smoke });
        }
        RolloutInput::Failed {
            plan,
            index,
            why,
            smoke,
        } if at_cursor(plan, index) => decider.fail_action(RollbackCause::FailedAction, why, smoke),
        RolloutInput::CrashLoop { why } if forward => {
            decider.fail_action(RollbackCause::CrashLoop, why, None);
        }
        RolloutInput::Readiness(report) if running => decider.report_readiness(&report),
        RolloutInput::PeerRolledBack { why } if forward => {
            decider.roll_back_automatically(RollbackCause::PeerRolledBack, &why);
        }
        RolloutInput::Measured { exposure, seen } if is_judged(exposure) => {
            decider.emit(evaluate(rollout, *seen).into());
        }
        RolloutInput::Evaluated {
            exposure,
            evaluation,
        } if is_judged(exposure) => {
            decider.emit((*evaluation).into());
        }
        RolloutInput::ServiceNotified if !rollout.service_notified && !running => {
            decider.emit(RolloutEvent::ServiceNotified)
        }
        RolloutInput::NotificationFinished {
            index,
            destination,
            failed,
        } if rollout.notices_settled.get(destination) == Some(&index) => {
            decider.emit(RolloutEvent::NotificationFinished {
                index,
                destination,
                failed,
            });
        }
        _ => {}
    }
}

/// The judgement of an observation that no live evidence came with.
fn evaluate(rollout: &Rollout, seen: Observation) -> MetricEvaluation {
    let seen = Box::new(rollout.against_before(seen));
    let analysis = &rollout.spec.environment.analysis;
    let mut evidence = rollout.evidence.clone();
    let judgement = evidence.observe(analysis, &seen);
    MetricEvaluation {
        checkpoint: evidence.checkpoint(analysis),
        basis: evidence.failure_basis(),
        seen,
        judgement,
    }
}

fn approve(
    decider: &mut RolloutDecider,
    rollout: &Rollout,
    (groups, seen): (&[String], &SeenSubject),
    comment: Option<String>,
) -> Result<(), RolloutRejection> {
    let gate = waiting_gate(rollout, seen)?;
    let who = ApprovingPerson::new(&decider.by, groups);
    gate.accept_approver(&who)
        .map_err(|refused| not_allowed(rollout, refused))?;
    if !gate.has_decision_by(&who) {
        let plan = rollout.plan.digest();
        let groups = gate.spec.relevant_groups(groups);
        decider.emit(RolloutEvent::Approved {
            plan,
            groups,
            comment,
        });
    }
    Ok(())
}

fn not_allowed(rollout: &Rollout, decider: UnacceptedDecider) -> RolloutRejection {
    RolloutRejection::NotAllowed {
        rollout: rollout.spec.id.clone(),
        decider: Box::new(decider),
    }
}

/// The gate at the cursor, if it guards what the person has seen.
fn waiting_gate<'r>(
    rollout: &'r Rollout,
    seen: &SeenSubject,
) -> Result<&'r GateState, RolloutRejection> {
    running(rollout, "approving or rejecting it")?;
    let id = || rollout.spec.id.clone();
    let is_approval = |gate: &&GateState| gate.spec.approvals().is_some();
    let Some(gate) = rollout.gate.as_ref().filter(is_approval) else {
        let at = rollout.action().map(ToString::to_string);
        return Err(RolloutRejection::NoPendingApproval {
            rollout: id(),
            at: at.unwrap_or_else(|| "the end".to_owned()),
        });
    };
    require_seen(rollout, seen)?;
    Ok(gate)
}

/// Refuses a decision about something else than the rollout brings.
pub(super) fn require_seen(rollout: &Rollout, seen: &SeenSubject) -> Result<(), RolloutRejection> {
    let binding = rollout.approval_binding();
    let changed = seen.outdated_parts(&binding);
    if changed.is_empty() {
        return Ok(());
    }
    Err(RolloutRejection::SubjectChanged {
        rollout: rollout.spec.id.clone(),
        environment: binding.environment,
        changed,
        current: binding.plan,
    })
}

/// Skips the remaining holds and resumes a paused rollout.
fn promote(decider: &mut RolloutDecider, rollout: &Rollout, reason: String) {
    if !rollout.holds_skipped && rollout.guarded_until().is_none() {
        decider.emit(RolloutEvent::HoldsSkipped { reason });
    }
    if rollout.paused.is_some() {
        decider.emit(RolloutEvent::Resumed);
    }
}

/// Idempotent: a rollout that has ended or is being rolled back is left alone. After its promotion a person's abort is refused, because
/// the release stays. Aborting a rollback that keeps failing stops the retries: a person takes over.
fn abort(
    decider: &mut RolloutDecider,
    rollout: &Rollout,
    cause: RollbackCause,
    reason: &str,
) -> Result<(), RolloutRejection> {
    if let Some(end) = &rollout.ended {
        return match (end.outcome, cause) {
            (RolloutOutcome::Promoted, RollbackCause::Person) => {
                Err(RolloutRejection::AbortAfterPromotion {
                    rollout: rollout.spec.id.clone(),
                    environment: rollout.spec.environment.name.clone(),
                    outcome: with_person(&end.why, &end.by),
                })
            }
            _ => Ok(()),
        };
    }
    match rollout.direction {
        PlanDirection::Forward => decider.roll_back(cause, reason),
        PlanDirection::Back if cause == RollbackCause::Superseded => {
            decider.prefer_successor(reason.to_owned());
        }
        // Its rollback is in progress: the retries continue.
        PlanDirection::Back if cause == RollbackCause::Withdrawn => {}
        PlanDirection::Back if rollout.rollback_retry.is_some() => decider.give_rollback_up(reason),
        PlanDirection::Back => {}
    }
    Ok(())
}

/// A person's promotion shifts traffic as a deployment does: a freeze stops it, too.
fn refuse_frozen(decider: &RolloutDecider, rollout: &Rollout) -> Result<(), RolloutRejection> {
    let is_exempt = rollout.spec.kind == RolloutKind::Rollback
        || rollout.broken_glass.is_some()
        || rollout.guarded_until().is_some();
    let calendar = &rollout.spec.environment.rules.freeze;
    match calendar.active(decider.now).filter(|_| !is_exempt) {
        Some(freeze) => Err(RolloutRejection::Frozen {
            rollout: rollout.spec.id.clone(),
            environment: rollout.spec.environment.name.clone(),
            freeze: Box::new(freeze),
        }),
        None => Ok(()),
    }
}

pub(super) fn running(rollout: &Rollout, what: &'static str) -> Result<(), RolloutRejection> {
    match &rollout.ended {
        Some(end) => Err(RolloutRejection::Ended {
            rollout: rollout.spec.id.clone(),
            outcome: with_person(&end.why, &end.by),
            what,
        }),
        None => Ok(()),
    }
}

pub(super) fn forward(rollout: &Rollout, what: &'static str) -> Result<(), RolloutRejection> {
    running(rollout, what)?;
    match rollout.direction {
        PlanDirection::Forward => Ok(()),
        PlanDirection::Back => Err(RolloutRejection::RollingBack {
            rollout: rollout.spec.id.clone(),
            why: rollout
                .rollback_start
                .as_ref()
                .map(|start| with_person(&start.why, &start.by))
                .unwrap_or_default(),
            what,
        }),
    }
}

/// A reason with the person whose it is.
fn with_person(why: &str, by: &Actor) -> String {
    match by {
        Actor::Person { name, .. } => format!("by {name}: {why}"),
        Actor::Shipway(_) | Actor::Workload { .. } | Actor::Push { .. } => why.to_owned(),
    }
}
