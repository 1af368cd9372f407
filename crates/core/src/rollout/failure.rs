//! Reactions to a failure: a rollback, which is retried until it succeeds, or first a reverse canary that shows which release
//! is at fault.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    FailureBasis, RolloutDecider,
    capacity::{CapacityStep, assess},
    event::{PlanDirection, RolloutEvent},
    outcome::{RollbackCause, RolloutOutcome},
    plan::{HoldReason, PlanAction, RolloutPlan},
    readiness::SetReadiness,
    state::Rollout,
    strategy::{
        ObservedState, RolloutVariant, Strategy,
        reverse_canary::ReverseCanary,
        rollback_plan::{self, RollbackReadiness},
    },
};
use crate::aggregate::Actor;

/// Before the second attempt of a rollback; doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest time between two attempts of a rollback.
const RETRY_MAX: Duration = Duration::from_secs(60);

impl RolloutDecider {
    /// Back to stable, or a stop where there is nothing to go back to.
    pub(super) fn roll_back(&mut self, cause: RollbackCause, why: &str) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let stable = rollout
            .spec
            .stable()
            .map(|stable| (stable.release.number, stable.instances))
            .filter(|(stable, _)| *stable != rollout.candidate());
        if has_only_waited(rollout) {
            // Nothing to undo: the environment is free at once.
            self.emit(RolloutEvent::Planned {
                direction: PlanDirection::Back,
                plan: RolloutPlan::default(),
                cause: Some(cause),
                why: why.to_owned(),
            });
            return;
        }
        match rollback_plan::compile(
            rollout.candidate(),
            stable,
            &at_worst(rollout),
            rollout.spec.environment.drain,
            urgency(rollout),
        ) {
            Some(plan) => self.emit(RolloutEvent::Planned {
                direction: PlanDirection::Back,
                plan,
                cause: Some(cause),
                why: why.to_owned(),
            }),
            None => self.emit(RolloutEvent::Ended {
                outcome: RolloutOutcome::Failed,
                cause: Some(cause),
                why: format!(
                    "{why}; there is no earlier release to roll back to, so {} stays",
                    rollout.candidate()
                ),
            }),
        }
    }

    pub(super) fn fail_action(
        &mut self,
        cause: RollbackCause,
        why: String,
        smoke: Option<crate::check::SmokeReport>,
    ) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let (index, direction) = (rollout.cursor, rollout.direction);
        self.emit(RolloutEvent::ActionFailed {
            index,
            why: why.clone(),
            smoke,
        });
        match direction {
            PlanDirection::Forward if self.cancel_reverse_canary(&why) => {}
            PlanDirection::Forward => self.roll_back(cause, &why),
            PlanDirection::Back => self.delay_rollback(),
        }
    }

    /// A release that waits may be the fix: a rollback that fails makes room for it instead of being retried. One that a
    /// person asked for does not.
    pub(super) fn prefer_successor(&mut self, why: String) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let turn = rollout.rollback_start.as_ref();
        if turn.is_some_and(|turn| turn.cause == RollbackCause::Person) {
            return;
        }
        if rollout.rollback_retry.is_some() {
            self.give_rollback_up(&why);
        } else if rollout.successor.is_none() {
            self.emit(RolloutEvent::SuccessorWaiting { why });
        }
    }

    pub(super) fn give_rollback_up(&mut self, reason: &str) {
        let turn = self
            .rollout()
            .and_then(|rollout| rollout.rollback_start.as_ref());
        let cause = turn.map(|turn| turn.cause);
        self.emit(RolloutEvent::Ended {
            outcome: RolloutOutcome::Failed,
            cause,
            why: format!("the rollback was not completed; {reason}"),
        });
    }

    /// A rollback is retried with backoff until it succeeds, a person stops it, or another release waits.
    pub(super) fn delay_rollback(&mut self) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        if let Some(why) = rollout.successor.clone() {
            self.give_rollback_up(&why);
            return;
        }
        let attempt = rollout.rollback_retry.map_or(1, |retry| retry.attempt + 1);
        let doublings = attempt.saturating_sub(1).min(10);
        let wait = (RETRY_FIRST * 2_u32.pow(doublings)).min(RETRY_MAX);
        let until = self.now + wait;
        self.emit_because(
            "the rollback failed",
            RolloutEvent::RollbackDelayed { attempt, until },
        );
    }

    /// A previous release that fails to start is no evidence about the new one: the interrupted plan continues. Returns false
    /// when no reverse canary is being prepared.
    pub(super) fn cancel_reverse_canary(&mut self, why: &str) -> bool {
        let Some(rollout) = self.rollout().filter(|it| it.is_reverse_canary()) else {
            return false;
        };
        let actions = &rollout.plan.actions;
        let hold = (actions.iter()).position(|action| action.holds_for(HoldReason::ReverseCanary));
        let Some(hold) = hold.filter(|hold| rollout.cursor < *hold) else {
            return false;
        };
        let plan = RolloutPlan {
            actions: actions[hold + 1..].to_vec(),
            notes: Vec::new(),
        };
        let why = format!("the previous release can't be compared with: {why}");
        let planned = RolloutEvent::Planned {
            direction: PlanDirection::Forward,
            cause: None,
            plan,
            why: why.clone(),
        };
        self.emit_because("watch", RolloutEvent::FaultNotAttributed { why });
        self.emit_because("watch", planned);
        true
    }

    /// Brings the previous release back to half of the users: the fault may not be the new release's.
    pub(super) fn start_reverse_canary(&mut self, why: &str) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        let Some(stable) = rollout.spec.stable() else {
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
        let planned = RolloutEvent::Planned {
            direction: PlanDirection::Forward,
            cause: None,
            plan,
            why: why.clone(),
        };
        self.emit_because("watch", planned);
    }

    pub(super) fn report_readiness(&mut self, report: &[SetReadiness]) {
        let Some(rollout) = self.rollout() else {
            return;
        };
        for step in assess(rollout, report, self.now) {
            match step {
                CapacityStep::Record(body) => self.emit_because("instances", body),
                CapacityStep::RollBack(why) => {
                    self.roll_back_automatically(RollbackCause::NoReadyInstance, &why);
                }
            }
        }
    }

    pub(super) fn roll_back_automatically(&mut self, cause: RollbackCause, why: &str) {
        let by = std::mem::replace(&mut self.by, Actor::Shipway(why.to_owned()));
        self.roll_back(cause, why);
        self.by = by;
    }
}

/// Whether the rollout has done nothing but wait at its first gates.
fn has_only_waited(rollout: &Rollout) -> bool {
    let passed = &rollout.plan.actions[..rollout.cursor.min(rollout.plan.actions.len())];
    let is_gate = |action: &PlanAction| matches!(action, PlanAction::Ask { .. });
    rollout.plan_number == 1
        && rollout.action().is_some_and(is_gate)
        && passed.iter().all(is_gate)
        && rollout.observed == rollout.spec.observed
}

/// The state to go back from, with what the action in progress may have done before its report: instances that are being stopped
/// may be gone, and the service may know the candidate as its stable release already.
fn at_worst(rollout: &Rollout) -> ObservedState {
    let mut observed = rollout.observed.clone();
    match rollout.action() {
        Some(PlanAction::Drain { release, keep, .. } | PlanAction::Stop { release, keep }) => {
            observed.done(&PlanAction::Stop {
                release: *release,
                keep: *keep,
            });
        }
        Some(promotion @ PlanAction::Promote { variant })
            if *variant == RolloutVariant::Release(rollout.candidate()) =>
        {
            observed.done(promotion);
        }
        _ => {}
    }
    observed
}

/// The reaction to a failed judgement.
pub(super) enum FailureResponse {
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
pub(super) fn response_to_failure(rollout: &Rollout) -> FailureResponse {
    let is_promoted = rollout.observed.promoted == Some(rollout.candidate());
    let is_against_past = is_promoted
        && rollout.has_all_traffic()
        && rollout.evidence.failure_basis() == Some(FailureBasis::Comparison);
    if !is_against_past {
        return FailureResponse::RollBack;
    }
    if rollout.unattributed_fault.is_some() {
        return FailureResponse::Continue;
    }
    if rollout.is_reverse_canary() {
        // The previous release is being brought back, or is leaving again.
        return FailureResponse::Continue;
    }
    match rollout.spec.environment.strategy {
        Strategy::Recreate(_) => FailureResponse::Report,
        Strategy::Rolling(_) | Strategy::BlueGreen(_) | Strategy::Canary(_) => {
            FailureResponse::Compare
        }
    }
}

/// The plan from the cursor on, with the remaining time of a hold.
fn remaining_actions(rollout: &Rollout, now: Timestamp) -> Vec<PlanAction> {
    let mut remaining = rollout.plan.actions[rollout.cursor..].to_vec();
    if let (Some(PlanAction::Hold { duration, .. }), Some(due)) =
        (remaining.first_mut(), rollout.hold_due())
    {
        *duration = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    }
    remaining
}

/// What stable must have before it gets the traffic back.
fn urgency(rollout: &Rollout) -> RollbackReadiness {
    let serves_nobody = rollout.shortage.as_ref().is_some_and(|it| it.ready == 0);
    if serves_nobody || rollout.rollback_retry.is_some() {
        RollbackReadiness::AnyInstance
    } else {
        RollbackReadiness::FullCapacity
    }
}
