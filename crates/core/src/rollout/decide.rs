//! What may happen next in a rollout, and what the world still owes it. Every rule of "what a correct executor does" that a
//! rollout can keep by itself is kept here.

use super::{
    Rollouts,
    event::{Body, Direction, Input, Rejection, Spec},
    failure::{Response, response_to_failure},
    look::Look,
    outcome::{Cause, Outcome, Pace},
    plan::{Action, HoldReason, Span},
    state::{Rollout, State},
    strategy::{OnInconclusive, compile, straight},
};
use crate::aggregate::{self, Actor, Event};
use jiff::Timestamp;

pub(super) type Decider = aggregate::Decider<Rollouts>;

impl Decider {
    /// What follows by itself is Shipway's doing, whoever caused it.
    pub(super) fn emit_because(&mut self, why: &str, body: Body) {
        let by = std::mem::replace(&mut self.by, Actor::Shipway(why.to_owned()));
        self.emit(body);
        self.by = by;
    }

    pub(super) fn rollout(&self) -> Option<&Rollout> {
        self.state.0.as_deref()
    }

    fn open(&mut self, spec: Box<Spec>) {
        let brief = Rollout::brief(&spec);
        let plan = match spec.pace {
            Pace::ByStrategy => compile(&spec.environment.strategy, &brief),
            Pace::Direct => straight(&brief),
        };
        let why = spec.why.clone();
        self.emit(Body::Opened { spec });
        self.emit(Body::Planned {
            direction: Direction::Forward,
            plan,
            cause: None,
            why,
        });
    }

    /// Everything that follows from the state and the time alone.
    fn settle(&mut self) {
        while let Some(step) = self
            .rollout()
            .and_then(|rollout| next_step(rollout, self.now))
        {
            match step {
                Step::Done(index, note) => self.emit_because(
                    "the plan goes on",
                    Body::ActionDone {
                        index,
                        note,
                        smoke: None,
                    },
                ),
                Step::TurnBack(cause, why) => self.turn_back_because(cause, &why),
                Step::Compare(why) => self.start_reverse_canary(&why),
                Step::ReportFault(why) => {
                    self.emit_because("watch", Body::FaultNotAttributed { why });
                }
                Step::RetryRollback(cause, why) => self.turn_back_because(cause, &why),
                Step::FailAction(cause, why) => {
                    self.by = Actor::Shipway("no progress".to_owned());
                    self.fail_action(cause, why, None);
                }
                Step::Pause(reason) => self.emit_because("inconclusive", Body::Paused { reason }),
                Step::End(outcome, cause, why) => self.emit_because(
                    "the plan is done",
                    Body::Ended {
                        outcome,
                        cause,
                        why,
                    },
                ),
            }
        }
    }
}

pub(super) enum Step {
    Done(usize, Option<String>),
    TurnBack(Cause, String),
    FailAction(Cause, String),
    RetryRollback(Cause, String),
    Compare(String),
    ReportFault(String),
    Pause(String),
    End(Outcome, Option<Cause>, String),
}

/// The next thing that follows by itself, if any.
pub(super) fn next_step(rollout: &Rollout, now: Timestamp) -> Option<Step> {
    if rollout.ended.is_some() {
        return None;
    }
    if let (Direction::Forward, Some(judgement)) = (rollout.direction, rollout.evidence.judgement())
        && judgement.verdict.is_fail()
    {
        let why = judgement.verdict.why();
        match response_to_failure(rollout) {
            Response::RollBack => return Some(Step::TurnBack(Cause::Evidence, why.to_owned())),
            Response::Compare => return Some(Step::Compare(why.to_owned())),
            Response::Report => {
                let why = format!(
                    "{why}; recreate never runs two releases, so it can't be told whether it is the fault of the release"
                );
                return Some(Step::ReportFault(why));
            }
            Response::Continue => {}
        }
    }
    if let Some(until) = rollout.rollback_retry.and_then(|retry| retry.until) {
        let turn = rollout.turned_back.as_ref().filter(|_| now >= until)?;
        return Some(Step::RetryRollback(turn.cause, turn.why.clone()));
    }
    let Some(action) = rollout.action() else {
        return Some(end_of_plan(rollout));
    };
    if rollout.paused.is_some() {
        return None;
    }
    match action {
        Action::Hold { why, .. } => hold_step(rollout, *why, now),
        Action::Ask { gate } => (rollout.approvals.len() >= gate.count as usize).then(|| {
            Step::Done(
                rollout.cursor,
                Some(format!("approved by {}", rollout.approvals.join(", "))),
            )
        }),
        Action::Meet { .. } if rollout.hurried => Some(Step::Done(
            rollout.cursor,
            Some("not waited for".to_owned()),
        )),
        Action::ClaimAddresses { .. }
        | Action::Start { .. }
        | Action::Await { .. }
        | Action::Smoke { .. }
        | Action::Shift { .. }
        | Action::Meet { .. }
        | Action::Drain { .. }
        | Action::Stop { .. }
        | Action::Promote { .. } => {
            let deadline = rollout.progress_deadline()?;
            (now >= deadline).then(|| {
                let allowed = Span(rollout.spec.environment.progress_deadline);
                Step::FailAction(Cause::NoProgress, format!("no progress for {allowed}"))
            })
        }
    }
}

fn end_of_plan(rollout: &Rollout) -> Step {
    match rollout.direction {
        Direction::Forward => Step::End(
            Outcome::Promoted,
            None,
            format!("{} serves all traffic", rollout.candidate()),
        ),
        Direction::Back => {
            let now_serves = rollout
                .stable()
                .map(|stable| format!("; {stable} serves all traffic"))
                .unwrap_or_default();
            let (cause, why) = match &rollout.turned_back {
                Some(turn) => (turn.cause, turn.why.as_str()),
                // A plan back is never written without its cause.
                None => (Cause::FailedAction, "it was rolled back"),
            };
            Step::End(cause.outcome(), Some(cause), format!("{why}{now_serves}"))
        }
    }
}

fn hold_step(rollout: &Rollout, why: HoldReason, now: Timestamp) -> Option<Step> {
    let index = rollout.cursor;
    let is_skipped = match why {
        // A promotion skips holds; it ends neither the guard nor the instances that a rollback needs.
        HoldReason::KeepWarm | HoldReason::Watch => rollout.keep_ended,
        HoldReason::ReverseCanary => rollout.keep_ended || rollout.hurried,
        HoldReason::Evidence | HoldReason::Time => rollout.hurried,
    };
    if is_skipped {
        return Some(Step::Done(index, Some("skipped".to_owned())));
    }
    if now < rollout.hold_due()? {
        let enough = settled_pass(rollout)
            .filter(|_| matches!(why, HoldReason::Evidence | HoldReason::ReverseCanary))?;
        if why == HoldReason::ReverseCanary && rollout.unattributed_fault.is_none() {
            return (now >= rollout.hold_earliest()?).then(|| not_this_release(rollout));
        }
        return (now >= rollout.hold_earliest()?)
            .then(|| Step::Done(index, Some(format!("enough evidence: {enough}"))));
    }
    if why == HoldReason::ReverseCanary {
        return Some(not_this_release(rollout));
    }
    if matches!(why, HoldReason::KeepWarm | HoldReason::Watch) || !rollout.is_judged() {
        return Some(Step::Done(index, None));
    }
    match rollout
        .evidence
        .judgement()
        .map(|judgement| &judgement.verdict)
    {
        Some(verdict) if verdict.is_pass() => {
            Some(Step::Done(index, Some(verdict.why().to_owned())))
        }
        Some(verdict) if verdict.is_accepted_at_end() => {
            Some(Step::Done(index, Some(verdict.to_string())))
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
                OnInconclusive::Pause => Step::Pause(reason),
                OnInconclusive::Rollback => Step::TurnBack(Cause::Inconclusive, reason),
                OnInconclusive::Promote => Step::Done(index, Some(reason)),
            })
        }
    }
}

/// The end of a reverse canary that did not fail: first the fault is reported, then the plan continues.
fn not_this_release(rollout: &Rollout) -> Step {
    let evidence =
        (rollout.evidence.judgement()).map_or("nothing could be measured", |it| it.verdict.why());
    if rollout.unattributed_fault.is_some() {
        return Step::Done(rollout.cursor, Some(evidence.to_owned()));
    }
    let previous = rollout
        .stable()
        .map_or_else(String::new, |it| it.to_string());
    Step::ReportFault(format!(
        "not this release: nothing shows that {} is worse than {previous} at the same time ({evidence})",
        rollout.candidate()
    ))
}

/// Why nothing is gained by holding on, once the evidence says so.
pub(super) fn settled_pass(rollout: &Rollout) -> Option<&str> {
    let judgement = rollout.evidence.judgement()?;
    let is_enough = rollout.is_judged() && judgement.is_final() && judgement.verdict.is_pass();
    is_enough.then(|| judgement.verdict.why())
}

/// Facts that follow from an input.
pub(super) fn decide(
    state: &State,
    input: Input,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<Body>>, Rejection> {
    let mut decider = Decider::new(state, by, now);
    match (&state.0, input) {
        (None, Input::Open(spec)) => decider.open(spec),
        (None, _) => return Err(Rejection::NotOpened),
        (Some(rollout), Input::Open(spec)) if rollout.spec.is_same_order(&spec) => {
            return Ok(Vec::new());
        }
        (Some(rollout), Input::Open(_)) => {
            return Err(Rejection::OpenedAlready(rollout.spec.id.clone()));
        }
        (Some(rollout), input) => hear(&mut decider, rollout, input)?,
    }
    decider.settle();
    Ok(decider.decided())
}

/// One input to an opened rollout.
fn hear(decider: &mut Decider, rollout: &Rollout, input: Input) -> Result<(), Rejection> {
    let running = rollout.ended.is_none();
    let at_cursor =
        |plan: u32, index: usize| running && plan == rollout.plan_number && index == rollout.cursor;
    match input {
        // A late answer of work that no longer counts changes nothing.
        Input::Done {
            plan,
            index,
            note,
            smoke,
        } if at_cursor(plan, index) => decider.emit(Body::ActionDone { index, note, smoke }),
        Input::Failed {
            plan,
            index,
            why,
            smoke,
        } if at_cursor(plan, index) => decider.fail_action(Cause::FailedAction, why, smoke),
        Input::CrashLoop { why } if running && rollout.direction == Direction::Forward => {
            decider.fail_action(Cause::CrashLoop, why, None)
        }
        Input::Readiness(report) if running => decider.report_readiness(&report),
        Input::FellowBack { why } if running && rollout.direction == Direction::Forward => {
            decider.turn_back_because(Cause::PeerRolledBack, &why);
        }
        Input::Measured { exposure, seen }
            if exposure == rollout.exposure && rollout.is_judged() =>
        {
            let seen = Box::new(rollout.against_before(*seen));
            let analysis = &rollout.spec.environment.analysis;
            let mut evidence = rollout.evidence.clone();
            let judgement = evidence.observe(analysis, &seen);
            let checkpoint = evidence.checkpoint(analysis);
            decider.emit(Body::Measured {
                seen,
                judgement,
                checkpoint,
                basis: evidence.failure_basis(),
            });
        }
        Input::Looked { exposure, look } if exposure == rollout.exposure && rollout.is_judged() => {
            let Look {
                seen,
                judgement,
                checkpoint,
                basis,
            } = *look;
            decider.emit(Body::Measured {
                seen,
                judgement,
                checkpoint,
                basis,
            });
        }
        Input::Done { .. }
        | Input::Failed { .. }
        | Input::CrashLoop { .. }
        | Input::Readiness(_)
        | Input::FellowBack { .. }
        | Input::Measured { .. }
        | Input::Looked { .. }
        | Input::Open(_)
        | Input::Woken => {}
        Input::Told if !rollout.told && !running => decider.emit(Body::ServiceTold),
        Input::Noticed {
            index,
            destination,
            failed,
        } if rollout.notices_settled.get(destination) == Some(&index) => {
            decider.emit(Body::NoticeSettled {
                index,
                destination,
                failed,
            })
        }
        Input::Told | Input::Noticed { .. } => {}
        Input::Approve { groups, comment } => approve(decider, rollout, &groups, comment)?,
        Input::Reject { reason } => {
            gate(rollout)?;
            decider.emit(Body::Rejected {
                reason: reason.clone(),
            });
            let why = format!("rejected by {}: {reason}", decider.by);
            decider.turn_back(Cause::Rejected, &why);
        }
        Input::Pause { reason } => {
            forward(rollout, "pausing")?;
            if rollout.paused.is_none() {
                decider.emit(Body::Paused { reason });
            }
        }
        Input::Resume => {
            forward(rollout, "resuming")?;
            if rollout.paused.is_some() {
                decider.emit(Body::Resumed);
            }
        }
        Input::Promote { reason } => {
            forward(rollout, "promoting")?;
            promote(decider, rollout, reason);
        }
        Input::EndKeep { next } if running => match rollout.direction {
            Direction::Forward if rollout.keep_ended => {}
            Direction::Forward => decider.emit(Body::KeepEnded { next }),
            Direction::Back => decider.prefer_successor(format!("{next} is waiting")),
        },
        Input::EndKeep { .. } => {}
        Input::Abort { cause, reason } => abort(decider, rollout, cause.into(), &reason),
    }
    Ok(())
}

fn approve(
    decider: &mut Decider,
    rollout: &Rollout,
    groups: &[String],
    comment: Option<String>,
) -> Result<(), Rejection> {
    let asked = gate(rollout)?;
    let who = decider.by.to_string();
    let allowed = asked.from.is_empty()
        || asked
            .from
            .iter()
            .any(|from| *from == who || groups.contains(from));
    if !allowed {
        return Err(Rejection::NotAllowed {
            rollout: rollout.spec.id.clone(),
            who,
            from: asked.from.join(", "),
        });
    }
    if !rollout.approvals.contains(&who) {
        decider.emit(Body::Approved { comment });
    }
    Ok(())
}

/// Skips the remaining holds, and goes on if it stood still.
fn promote(decider: &mut Decider, rollout: &Rollout, reason: String) {
    if !rollout.hurried && rollout.guarded_until().is_none() {
        decider.emit(Body::Hurried { reason });
    }
    if rollout.paused.is_some() {
        decider.emit(Body::Resumed);
    }
}

/// Idempotent: a rollout that has ended or is being rolled back is left alone. Aborting a rollback that keeps failing stops
/// the retries: a person takes over.
fn abort(decider: &mut Decider, rollout: &Rollout, cause: Cause, reason: &str) {
    if rollout.ended.is_some() {
        return;
    }
    match rollout.direction {
        Direction::Forward => decider.turn_back(cause, reason),
        Direction::Back if cause == Cause::Superseded => {
            decider.prefer_successor(reason.to_owned());
        }
        Direction::Back if rollout.rollback_retry.is_some() => decider.give_rollback_up(reason),
        Direction::Back => {}
    }
}

fn gate(rollout: &Rollout) -> Result<&crate::config::Approvals, Rejection> {
    running(rollout, "answering the gate")?;
    match rollout.action() {
        Some(Action::Ask { gate }) => Ok(gate),
        other => Err(Rejection::NotAsked {
            rollout: rollout.spec.id.clone(),
            at: other.map_or_else(|| "the end".to_owned(), ToString::to_string),
        }),
    }
}

fn running(rollout: &Rollout, what: &'static str) -> Result<(), Rejection> {
    match &rollout.ended {
        Some(end) => Err(Rejection::Ended {
            rollout: rollout.spec.id.clone(),
            outcome: end.why.clone(),
            what,
        }),
        None => Ok(()),
    }
}

fn forward(rollout: &Rollout, what: &'static str) -> Result<(), Rejection> {
    running(rollout, what)?;
    match rollout.direction {
        Direction::Forward => Ok(()),
        Direction::Back => Err(Rejection::GoingBack {
            rollout: rollout.spec.id.clone(),
            what,
        }),
    }
}
