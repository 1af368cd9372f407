//! What may happen next in a rollout, and what the world still owes it. Every rule of "what a correct executor does" that a
//! rollout can keep by itself is kept here.

use super::{
    FailureBasis, Rollouts,
    capacity::{CapacityStep, SetReadiness, assess},
    event::{Body, Direction, Effect, Input, Rejection, Spec},
    look::Look,
    outcome::{Cause, Outcome, Pace},
    plan::{Action, HoldReason, Plan, Span},
    state::{Rollout, State},
    strategy::{
        Observed, OnInconclusive, Strategy, compile,
        reverse_canary::ReverseCanary,
        straight,
        way_back::{self, Urgency},
    },
};
use crate::aggregate::{self, Actor, EffectKey, Event, Pending};
use jiff::Timestamp;
use std::time::Duration;

type Decider = aggregate::Decider<Rollouts>;

/// Before the second attempt of a rollback; doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest time between two attempts of a rollback.
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Decider {
    /// What follows by itself is Shipway's doing, whoever caused it.
    fn emit_because(&mut self, why: &str, body: Body) {
        let by = std::mem::replace(&mut self.by, Actor::Shipway(why.to_owned()));
        self.emit(body);
        self.by = by;
    }

    fn rollout(&self) -> Option<&Rollout> {
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

    /// Back to stable, or a stop where there is nothing to go back to.
    fn turn_back(&mut self, cause: Cause, why: &str) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let stable = rollout
            .spec
            .stable
            .as_ref()
            .map(|stable| (stable.release.number, stable.instances))
            .filter(|(stable, _)| *stable != rollout.candidate());
        match way_back::compile(
            rollout.candidate(),
            stable,
            &at_worst(rollout),
            rollout.spec.environment.drain,
            urgency(rollout),
        ) {
            Some(plan) => self.emit(Body::Planned {
                direction: Direction::Back,
                plan,
                cause: Some(cause),
                why: why.to_owned(),
            }),
            None => self.emit(Body::Ended {
                outcome: Outcome::Failed,
                cause: Some(cause),
                why: format!(
                    "{why}; there is no earlier release to go back to, so {} stays",
                    rollout.candidate()
                ),
            }),
        }
    }

    fn fail_action(&mut self, cause: Cause, why: String, smoke: Option<crate::check::SmokeReport>) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let (index, direction) = (rollout.cursor, rollout.direction);
        self.emit(Body::ActionFailed {
            index,
            why: why.clone(),
            smoke,
        });
        match direction {
            Direction::Forward if self.cancel_reverse_canary(&why) => {}
            Direction::Forward => self.turn_back(cause, &why),
            Direction::Back => self.delay_rollback(),
        }
    }

    /// A rollback never gives up by itself: it is retried with backoff until it succeeds or a person stops it.
    fn delay_rollback(&mut self) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let attempt = rollout.rollback_retry.map_or(1, |retry| retry.attempt + 1);
        let doublings = attempt.saturating_sub(1).min(10);
        let wait = (RETRY_FIRST * 2_u32.pow(doublings)).min(RETRY_MAX);
        let until = self.now + wait;
        self.emit_because(
            "the rollback failed",
            Body::RollbackDelayed { attempt, until },
        );
    }

    /// A previous release that can't be started says nothing about the new one: the interrupted plan continues. False when
    /// no reverse canary is being prepared.
    fn cancel_reverse_canary(&mut self, why: &str) -> bool {
        let Some(rollout) = self.rollout().filter(|it| it.is_reverse_canary()) else {
            return false;
        };
        let actions = &rollout.plan.actions;
        let hold = (actions.iter()).position(|action| action.holds_for(HoldReason::ReverseCanary));
        let Some(hold) = hold.filter(|hold| rollout.cursor < *hold) else {
            return false;
        };
        let plan = Plan {
            actions: actions[hold + 1..].to_vec(),
            notes: Vec::new(),
        };
        let why = format!("the previous release can't be compared with: {why}");
        let planned = Body::Planned {
            direction: Direction::Forward,
            cause: None,
            plan,
            why: why.clone(),
        };
        self.emit_because("watch", Body::FaultNotAttributed { why });
        self.emit_because("watch", planned);
        true
    }

    /// Brings the previous release back to half of the users: the fault may not be the new release's.
    fn start_reverse_canary(&mut self, why: &str) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let Some(stable) = &rollout.spec.stable else {
            return;
        };
        let reverse = ReverseCanary {
            candidate: rollout.candidate(),
            previous: stable.release.number,
            instances: stable.instances,
            drain: rollout.spec.environment.drain,
        };
        let plan = reverse.compile(&at_worst(rollout), remaining_actions(rollout, self.now));
        let why = format!("{why}; comparing with {} side by side", reverse.previous);
        let planned = Body::Planned {
            direction: Direction::Forward,
            cause: None,
            plan,
            why: why.clone(),
        };
        self.emit_because("watch", planned);
    }

    fn report_readiness(&mut self, report: &[SetReadiness]) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        for step in assess(rollout, report, self.now) {
            match step {
                CapacityStep::Record(body) => self.emit_because("instances", body),
                CapacityStep::RollBack(why) => {
                    self.turn_back_because(Cause::NoReadyInstance, &why);
                }
            }
        }
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

    fn turn_back_because(&mut self, cause: Cause, why: &str) {
        let by = std::mem::replace(&mut self.by, Actor::Shipway(why.to_owned()));
        self.turn_back(cause, why);
        self.by = by;
    }
}

/// What may be left: of what is being taken down, instances may be gone although nobody has said so yet.
fn at_worst(rollout: &Rollout) -> Observed {
    let mut observed = rollout.observed.clone();
    if let Some(Action::Drain { release, keep, .. } | Action::Stop { release, keep }) =
        rollout.action()
    {
        observed.done(&Action::Stop {
            release: *release,
            keep: *keep,
        });
    }
    observed
}

/// What follows from a failed judgement.
enum Response {
    RollBack,
    /// The previous release is brought back to be compared with.
    Compare,
    /// People are notified: this strategy can't compare.
    Report,
    /// It is known already whose fault it is not.
    Continue,
}

/// After the promotion, what shows only in comparison with the past may not be the fault of the release. Before it (`bake`),
/// a rollback costs the release nothing but another try.
fn response_to_failure(rollout: &Rollout) -> Response {
    let is_promoted = rollout.observed.promoted == Some(rollout.candidate());
    let is_against_past = is_promoted
        && rollout.stands_alone()
        && rollout.evidence.failure_basis() == Some(FailureBasis::Comparison);
    if !is_against_past {
        return Response::RollBack;
    }
    if rollout.past_is_settled {
        return Response::Continue;
    }
    if rollout.is_reverse_canary() {
        // The previous release is being brought back, or is leaving again.
        return Response::Continue;
    }
    match rollout.spec.environment.strategy {
        Strategy::Recreate(_) => Response::Report,
        Strategy::Rolling(_) | Strategy::BlueGreen(_) | Strategy::Canary(_) => Response::Compare,
    }
}

/// The plan from the cursor on, with what is left of a hold.
fn remaining_actions(rollout: &Rollout, now: Timestamp) -> Vec<Action> {
    let mut remaining = rollout.plan.actions[rollout.cursor..].to_vec();
    if let (Some(Action::Hold { duration, .. }), Some(due)) =
        (remaining.first_mut(), rollout.hold_due())
    {
        *duration = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    }
    remaining
}

/// What stable must have before it gets the traffic back.
fn urgency(rollout: &Rollout) -> Urgency {
    let serves_nobody = rollout.shortage.as_ref().is_some_and(|it| it.ready == 0);
    if serves_nobody || rollout.rollback_retry.is_some() {
        Urgency::AnyInstance
    } else {
        Urgency::FullCapacity
    }
}

enum Step {
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
fn next_step(rollout: &Rollout, now: Timestamp) -> Option<Step> {
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
        if why == HoldReason::ReverseCanary && !rollout.past_is_settled {
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
    if rollout.past_is_settled {
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
fn settled_pass(rollout: &Rollout) -> Option<&str> {
    let judgement = rollout.evidence.judgement()?;
    let is_enough = rollout.is_judged() && judgement.is_settled() && judgement.verdict.is_pass();
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
        Input::EndKeep { next } if running && !rollout.keep_ended => {
            if rollout.direction == Direction::Forward {
                decider.emit(Body::KeepEnded { next });
            }
        }
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
        Direction::Back if rollout.rollback_retry.is_some() => decider.emit(Body::Ended {
            outcome: Outcome::Failed,
            cause: rollout.turned_back.as_ref().map(|turn| turn.cause),
            why: format!("the rollback was not completed; {reason}"),
        }),
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

/// What the world still owes the rollout.
pub(super) fn pending(state: &State, now: Timestamp) -> Pending<Effect> {
    let Some(rollout) = &state.0 else {
        return Pending::nothing();
    };
    let mut effects = undelivered_notices(rollout);
    if let Some(end) = &rollout.ended {
        if !rollout.told {
            effects.push((
                "tell-service".into(),
                Effect::TellService {
                    end: end.clone(),
                    observed: rollout.observed.clone(),
                },
            ));
        }
        return Pending {
            live: !effects.is_empty(),
            effects,
            wake_at: None,
        };
    }
    let (plan, index) = (rollout.plan_number, rollout.cursor);
    if let Some(action) = rollout
        .action()
        .filter(|action| !matches!(action, Action::Hold { .. } | Action::Ask { .. }))
        && !rollout.stands_still()
        && rollout
            .rollback_retry
            .is_none_or(|retry| retry.until.is_none())
    {
        effects.push((
            format!("action-{plan}-{index}").into(),
            Effect::Carry {
                plan,
                index,
                action: action.clone(),
            },
        ));
    }
    if rollout.is_judged() {
        let exposure = rollout.exposure;
        effects.push((
            format!("measure-{exposure}").into(),
            Effect::Measure {
                exposure,
                candidate: rollout.candidate(),
                stable: rollout.compared_with(),
            },
        ));
    }
    if rollout.direction == Direction::Forward && !rollout.spec.tied.is_empty() {
        let with = rollout.spec.tied.clone();
        effects.push(("fellows".into(), Effect::Fellows { with }));
    }
    if rollout.direction == Direction::Forward && rollout.observed.count(rollout.candidate()) > 0 {
        effects.push((
            "guard".into(),
            Effect::Guard {
                release: rollout.candidate(),
                stable: rollout.stable(),
            },
        ));
    }
    Pending {
        effects,
        wake_at: wake_at(rollout, now),
        live: true,
    }
}

/// The oldest notice that each destination has not settled, independent of the other destinations.
fn undelivered_notices(rollout: &Rollout) -> Vec<(EffectKey, Effect)> {
    let undelivered = |(destination, index): (usize, &usize)| {
        let notice = rollout.notices.get(*index)?.clone();
        let effect = Effect::Notify {
            index: *index,
            destination,
            notice,
        };
        Some((format!("notice-{index}-{destination}").into(), effect))
    };
    let settled = rollout.notices_settled.iter().enumerate();
    settled.filter_map(undelivered).collect()
}

/// The next moment at which time alone changes something.
fn wake_at(rollout: &Rollout, now: Timestamp) -> Option<Timestamp> {
    if rollout.paused.is_some() {
        return None;
    }
    if let Some(until) = rollout.rollback_retry.and_then(|retry| retry.until) {
        return Some(until);
    }
    if next_step(rollout, now).is_some() {
        return Some(now);
    }
    // A hold that is due but inconclusive lasts until its deadline, or until a measurement ends it.
    let hold = rollout.hold_due().and_then(|due| {
        if now < due {
            let enough = settled_pass(rollout).and(rollout.hold_earliest());
            Some(enough.unwrap_or(due))
        } else {
            rollout.hold_deadline()
        }
    });
    hold.into_iter().chain(rollout.progress_deadline()).min()
}
