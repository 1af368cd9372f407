//! What the facts of a rollout add up to.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_analysis::Observation;

use super::{
    event::{PlanDirection, RolloutEvent, RolloutNotice, RolloutSpec},
    evidence::RolloutEvidence,
    outcome::{RollbackCause, RolloutEnd, RolloutPace, UserExposure},
    plan::{HoldReason, PlanAction, RolloutPlan},
    readiness::CapacityShortage,
    status::RolloutStatus,
    strategy::{ObservedState, RolloutVariant},
};
use crate::{
    aggregate::{Actor, Event},
    check::SmokeReport,
    gate::{ApprovalBinding, BrokenGlass, GateState},
    ids::{ReleaseNumber, RolloutId},
    target::RouterKind,
};

/// Time after a deadline in which the driver's own answer may still arrive: its message is more precise than "timed out".
const ANSWER: Duration = Duration::from_secs(2);

/// The state of a rollout; `None` inside before it is opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RolloutState(pub Option<Box<Rollout>>);

/// A rollout that has been opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rollout {
    pub spec: Arc<RolloutSpec>,
    pub by: Actor,
    pub opened_at: Timestamp,
    pub direction: PlanDirection,
    /// The plan in execution.
    pub plan: RolloutPlan,
    /// Number of the plan: 1 for the first, 2 for the rollback.
    pub plan_number: u32,
    /// Why it goes back, when it does.
    pub rollback_start: Option<RollbackStart>,
    /// The action under way.
    pub cursor: usize,
    /// When that action began, or was resumed.
    pub action_since: Timestamp,
    /// How much of the hold under the cursor was over before the last pause.
    pub hold_spent: Duration,
    /// Completed actions, in order.
    pub notes: Vec<TimelineNote>,
    /// Running instances and traffic split.
    pub observed: ObservedState,
    /// The number of shifts so far; the evidence belongs to the last.
    pub exposure: u32,
    /// Whether the new release ever got traffic.
    pub served: bool,
    pub served_at: Option<Timestamp>,
    /// When all traffic was on stable again.
    pub rolled_back_at: Option<Timestamp>,
    /// The evidence since the last shift, as far as it is recorded.
    pub evidence: RolloutEvidence,
    /// Readings of the metrics that were recorded.
    pub looks: u32,
    /// When traffic was last shifted.
    pub exposed_at: Option<Timestamp>,
    /// When what the judges remember was last recorded, since then.
    pub checkpointed_at: Option<Timestamp>,
    /// The last smoke tests.
    pub smoke: Option<SmokeReport>,
    /// The gate at the cursor.
    pub gate: Option<GateState>,
    /// Whether all its gates were opened in an emergency.
    #[serde(default)]
    pub broken_glass: Option<BrokenGlass>,
    /// Since when fewer instances of the new release are ready than its weight needs.
    pub shortage: Option<CapacityShortage>,
    /// What speaks against the release only in comparison with the past, once a reverse canary has shown that it is not its
    /// fault, or can't show whose it is. From then on comparisons with the past no longer count.
    pub unattributed_fault: Option<String>,
    /// Attempts of the rollback that failed, and when the next one begins.
    pub rollback_retry: Option<RollbackRetry>,
    /// Since when and why it stands still.
    pub paused: Option<RolloutPause>,
    /// Whether holds are skipped.
    pub holds_skipped: bool,
    /// Whether the previous instances are no longer kept warm, because another release waits.
    pub keep_ended: bool,
    /// Why its rollback is not retried once an attempt fails: another release waits.
    pub successor: Option<String>,
    pub ended: Option<RolloutEnd>,
    /// Whether the service knows.
    pub service_notified: bool,
    pub notices: Vec<RolloutNotice>,
    /// How many of the notices are settled for each destination in `notify` of the environment: a destination gets them in order,
    /// and none waits for another destination.
    pub notices_settled: Vec<usize>,
}

/// The moment a rollout turned back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackStart {
    pub at: Timestamp,
    /// What made it leave its release.
    pub cause: RollbackCause,
    pub by: Actor,
    pub why: String,
}

/// A rollback whose last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackRetry {
    pub attempt: u32,
    /// When the next attempt begins; `None` while it is under way.
    pub until: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPause {
    pub since: Timestamp,
    pub reason: String,
    pub by: String,
}

impl RolloutPause {
    /// The commands that end the pause of `rollout`, each complete.
    #[must_use]
    pub fn commands(rollout: &RolloutId) -> String {
        format!(
            "continue: shipway resume {rollout}; skip the remaining holds: shipway promote {rollout}; roll back: shipway abort {rollout}"
        )
    }
}

/// One line of a rollout's story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineNote {
    pub at: Timestamp,
    pub by: String,
    pub text: String,
}

impl Rollout {
    pub(super) fn open(spec: &RolloutSpec, event: &Event<RolloutEvent>) -> Self {
        Self {
            spec: Arc::new(spec.clone()),
            by: event.by.clone(),
            opened_at: event.at,
            direction: PlanDirection::Forward,
            plan: RolloutPlan::default(),
            plan_number: 0,
            rollback_start: None,
            cursor: 0,
            action_since: event.at,
            hold_spent: Duration::ZERO,
            notes: Vec::new(),
            observed: spec.observed.clone(),
            exposure: 0,
            served: false,
            served_at: None,
            rolled_back_at: None,
            evidence: RolloutEvidence::default(),
            looks: 0,
            exposed_at: None,
            checkpointed_at: None,
            smoke: None,
            gate: None,
            broken_glass: None,
            shortage: None,
            unattributed_fault: None,
            rollback_retry: None,
            paused: None,
            holds_skipped: false,
            keep_ended: false,
            successor: None,
            ended: None,
            service_notified: false,
            notices: Vec::new(),
            notices_settled: vec![0; spec.environment.notify.len()],
        }
    }

    /// The release that goes in.
    #[must_use]
    pub fn candidate(&self) -> ReleaseNumber {
        self.spec.release().number
    }

    /// The release it would go back to.
    #[must_use]
    pub fn stable(&self) -> Option<ReleaseNumber> {
        self.spec
            .stable()
            .map(|stable| stable.release.number)
            .filter(|stable| *stable != self.candidate())
    }

    /// What an approval of the plan in execution is for.
    #[must_use]
    pub fn approval_binding(&self) -> ApprovalBinding {
        let release = self.spec.release();
        ApprovalBinding {
            artifact: release.artifact.clone(),
            configuration: release.config.digest(),
            plan: self.plan.digest(),
            environment: self.spec.environment.name.clone(),
        }
    }

    /// The router that has the traffic: the one that the new release names, or stable's once the rollout goes back.
    #[must_use]
    pub fn router(&self) -> RouterKind {
        let spec = &self.spec;
        let stable = spec.stable().filter(|_| match self.direction {
            PlanDirection::Forward => false,
            PlanDirection::Back => true,
        });
        let environment = stable.and_then(|it| it.release.environment(&spec.environment.name));
        environment.unwrap_or(&spec.environment).router
    }

    /// Whether the release that goes in is the stable one.
    #[must_use]
    pub fn is_stable_already(&self) -> bool {
        let stable = self.spec.stable();
        stable.is_some_and(|stable| stable.release.number == self.candidate())
    }

    /// The action under the cursor; `None` at the end of the plan.
    #[must_use]
    pub fn action(&self) -> Option<&PlanAction> {
        self.plan.actions.get(self.cursor)
    }

    /// Whether the new release gets traffic and is judged: on the way forward, also while paused or kept warm.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.ended.is_none()
            && self.direction == PlanDirection::Forward
            && match self.spec.pace {
                RolloutPace::ByStrategy => true,
                RolloutPace::Direct => false,
            }
            && !self.spec.environment.analysis.is_empty()
            && !self.is_stable_already()
            && self.observed.split.shows(self.spec.subject.candidate())
    }

    /// Whose counters the new release's are compared with: those of fresh instances of stable where they have their share.
    #[must_use]
    pub fn compared_with(&self) -> Option<RolloutVariant> {
        let stable = self.stable()?;
        let baseline = stable.baseline();
        let is_baseline = !self.observed.split.weight_of(baseline).is_zero();
        Some(if is_baseline { baseline } else { stable }.into())
    }

    /// Whether stable has no traffic any more, so that the new release is compared with what stable was before the switch.
    #[must_use]
    pub fn has_all_traffic(&self) -> bool {
        let weight = self.observed.split.weight_of(self.spec.subject.candidate());
        weight == crate::weight::Weight::FULL && self.stable().is_some()
    }

    /// What the exposure that has just begun starts with, after one with `evidence`. Evidence against the past doesn't count
    /// while both releases serve side by side in a reverse canary.
    #[must_use]
    pub fn evidence_after_shift(&self, evidence: RolloutEvidence) -> RolloutEvidence {
        if self.is_reverse_canary() {
            RolloutEvidence::default()
        } else {
            evidence.after_shift()
        }
    }

    /// A reading with stable's side as it was before the switch, where stable has no traffic any more.
    #[must_use]
    pub fn against_before(&self, seen: Observation) -> Observation {
        if self.has_all_traffic() {
            self.evidence.against_before(seen)
        } else {
            seen
        }
    }

    /// When the hold at the cursor ends, unless paused.
    #[must_use]
    pub fn hold_due(&self) -> Option<Timestamp> {
        match self.action() {
            Some(PlanAction::Hold { duration, .. }) => {
                Some(self.action_since + duration.saturating_sub(self.hold_spent))
            }
            _ => None,
        }
    }

    /// Whether the previous release was brought back to be compared with.
    #[must_use]
    pub fn is_reverse_canary(&self) -> bool {
        let mut actions = self.plan.actions.iter();
        self.direction == PlanDirection::Forward
            && actions.any(|it| it.holds_for(HoldReason::ReverseCanary))
    }

    /// Until when the promoted release is guarded; `None` before its promotion and after the guard has ended.
    #[must_use]
    pub fn guarded_until(&self) -> Option<Timestamp> {
        match self.action() {
            Some(PlanAction::Hold {
                why: HoldReason::KeepWarm | HoldReason::Watch,
                ..
            }) if self.ended.is_none() => self.hold_due(),
            _ => None,
        }
    }

    /// When the hold under the cursor may end because the evidence is enough.
    #[must_use]
    pub fn hold_earliest(&self) -> Option<Timestamp> {
        match self.action() {
            Some(PlanAction::Hold { duration, .. }) => {
                let least = self.spec.environment.strategy.holds().min.min(*duration);
                Some(self.action_since + least.saturating_sub(self.hold_spent))
            }
            _ => None,
        }
    }

    /// Until when a hold whose evidence is inconclusive may last: as long again, at least a minute more.
    #[must_use]
    pub fn hold_deadline(&self) -> Option<Timestamp> {
        match self.action() {
            Some(PlanAction::Hold { duration, .. }) => {
                Some(self.hold_due()? + (*duration).max(Duration::from_secs(60)))
            }
            _ => None,
        }
    }

    /// When the action under the cursor has made no progress for too long. Waiting for people or for time has no such deadline.
    #[must_use]
    pub fn progress_deadline(&self) -> Option<Timestamp> {
        let allowed = self.spec.environment.progress_deadline;
        match self.action()? {
            PlanAction::Hold { .. } | PlanAction::Ask { .. } | PlanAction::Barrier { .. } => None,
            PlanAction::Drain { grace, .. } => Some(self.action_since + *grace + allowed),
            // Await has the same timeout and a better message, which names what each instance lacks: give it a head start.
            PlanAction::Await { .. } => Some(self.action_since + allowed + ANSWER),
            PlanAction::ClaimAddresses { .. }
            | PlanAction::Start { .. }
            | PlanAction::Smoke { .. }
            | PlanAction::Shift { .. }
            | PlanAction::Stop { .. }
            | PlanAction::Promote { .. } => Some(self.action_since + allowed),
        }
    }

    /// Whether a pause keeps the action at the cursor from running. Starting instances continues.
    #[must_use]
    pub fn is_held_by_pause(&self) -> bool {
        self.paused.is_some()
            && !matches!(
                self.action(),
                Some(
                    PlanAction::Start { .. } | PlanAction::Await { .. } | PlanAction::Smoke { .. }
                )
            )
            && self.direction == PlanDirection::Forward
    }

    /// Whether it waits for people: at a gate, or for the review of a break-glass.
    #[must_use]
    pub fn needs_people(&self) -> bool {
        let gate = self.gate.as_ref();
        let is_asking = self.status() == RolloutStatus::Waiting
            && gate.is_some_and(|gate| gate.spec.approvals().is_some());
        is_asking || (self.broken_glass.as_ref()).is_some_and(|it| it.review.is_none())
    }

    /// One word for lists.
    #[must_use]
    pub fn status(&self) -> RolloutStatus {
        match (&self.ended, self.direction, self.action()) {
            (Some(end), ..) => RolloutStatus::from(end.outcome),
            (None, PlanDirection::Back, _) => RolloutStatus::RollingBack,
            _ if self.paused.is_some() => RolloutStatus::Paused,
            (None, _, Some(PlanAction::Ask { .. })) => RolloutStatus::Waiting,
            (None, _, Some(PlanAction::Barrier { .. })) => RolloutStatus::WaitingForPeers,
            (
                None,
                _,
                Some(PlanAction::Hold {
                    why: HoldReason::Evidence | HoldReason::Time | HoldReason::ReverseCanary,
                    ..
                }),
            ) => RolloutStatus::Holding,
            (
                None,
                _,
                Some(PlanAction::Hold {
                    why: HoldReason::KeepWarm,
                    ..
                }),
            ) => RolloutStatus::KeptWarm,
            (
                None,
                _,
                Some(PlanAction::Hold {
                    why: HoldReason::Watch,
                    ..
                }),
            ) => RolloutStatus::Promoted,
            (None, ..) => RolloutStatus::Moving,
        }
    }

    /// `shop #4 → production`.
    #[must_use]
    pub fn headline(&self) -> String {
        format!(
            "{} {} → {}",
            self.spec.id.service,
            self.candidate(),
            self.spec.environment.name
        )
    }

    /// Whether it counts as a change failure (DORA).
    #[must_use]
    pub fn is_change_failure(&self) -> bool {
        let exposed = if self.served {
            UserExposure::Yes
        } else {
            UserExposure::Never
        };
        (self.ended.as_ref()).is_some_and(|end| end.outcome.is_change_failure(exposed))
    }
}
