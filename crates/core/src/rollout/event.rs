//! Inputs, events, effects and rejections of a rollout.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shipway_analysis::{AnalysisCheckpoint, Judgement, Observation};

use super::{
    FailureBasis,
    metric_evaluation::MetricEvaluation,
    outcome::{AbortCause, RollbackCause, RolloutEnd, RolloutKind, RolloutOutcome, RolloutPace},
    plan::{PlanAction, RolloutPlan},
    readiness::SetReadiness,
    strategy::{ObservedState, RolloutVariant, StableTraffic},
    subject::{RolloutSubject, StableRelease},
};
use crate::{
    aggregate::Actor,
    check::SmokeReport,
    config::EnvironmentConfig,
    gate::{ActiveFreeze, BoundPart, ChangePeople, SeenSubject, UnacceptedDecider, describe_parts},
    ids::{Digest, EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, ServiceName},
    release::Release,
};

/// All that a rollout is about; fixed when it is opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSpec {
    pub id: RolloutId,
    pub kind: RolloutKind,
    /// How fast its release goes in.
    pub pace: RolloutPace,
    /// The ended rollout whose release it rolls out once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RolloutNumber>,
    /// What it brings to users.
    #[serde(flatten)]
    pub subject: RolloutSubject,
    /// Where it goes, as configured by the release itself.
    pub environment: EnvironmentConfig,
    /// Running instances and traffic split at the start.
    pub observed: ObservedState,
    /// What stable answered in the last hour, measured when the rollout is opened; the rules have their limits from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_traffic: Option<StableTraffic>,
    /// Whether the limit of a slow rate was taken from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_slow_limit_measured: bool,
    /// Why, in words: "push of main by ada", "rollback asked by bob".
    pub why: String,
    /// The person who requested it or pushed the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Services whose rollouts are promoted together with this one or go back with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<ServiceName>,
}

impl RolloutSpec {
    /// The release that goes in.
    #[must_use]
    pub const fn release(&self) -> &Arc<Release> {
        let RolloutSubject::Release { release, .. } = &self.subject;
        release
    }

    /// The release that served before.
    #[must_use]
    pub const fn stable(&self) -> Option<&StableRelease> {
        let RolloutSubject::Release { stable, .. } = &self.subject;
        stable.as_ref()
    }

    /// The people of the change, whom approval rules may exclude.
    #[must_use]
    pub fn change_people(&self) -> ChangePeople {
        let release = self.release();
        let mut people = ChangePeople {
            author: Some(release.commit.author.clone()),
            committer: release.commit.committer.clone(),
            triggerers: Vec::new(),
        };
        for actor in self.by.iter().chain(&release.by) {
            people.add_triggerer(actor);
        }
        people
    }

    /// The same with what stable answered lately: the limits that are measured (`over: auto`) are fixed from here on.
    #[must_use]
    pub fn with_stable_traffic(mut self, traffic: StableTraffic) -> Self {
        let analysis = std::mem::take(&mut self.environment.analysis);
        self.is_slow_limit_measured = analysis.needs_slow_limit();
        self.environment.analysis = traffic.resolve(analysis);
        self.stable_traffic = Some(traffic);
        self
    }

    /// Whether both order the same rollout, whatever was measured when each was sent.
    #[must_use]
    pub fn is_same_order(&self, other: &Self) -> bool {
        self.id == other.id
            && self.kind == other.kind
            && self.subject.candidate() == other.subject.candidate()
            && self.environment.name == other.environment.name
    }
}

/// Forward to the new release, or back to the stable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanDirection {
    /// To the new release.
    Forward,
    /// To the stable one.
    Back,
}

/// The facts of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutEvent {
    Opened {
        spec: Box<RolloutSpec>,
    },
    /// What will be done from here on.
    Planned {
        direction: PlanDirection,
        plan: RolloutPlan,
        /// What made it leave its release; none for the plan forward.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<RollbackCause>,
        why: String,
    },
    /// The action under the cursor is done; the next begins.
    ActionDone {
        /// Its place in the plan, from 0.
        index: usize,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// What the smoke tests found, when they were the action.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        smoke: Option<SmokeReport>,
    },
    /// The action under the cursor can't be done.
    ActionFailed {
        /// Its place in the plan, from 0.
        index: usize,
        why: String,
        /// What the smoke tests found, when they were the action.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        smoke: Option<SmokeReport>,
    },
    /// What the metrics showed since the last reading, and what the judge makes of all of it.
    Measured {
        seen: Box<Observation>,
        /// What all of it adds up to, with the readings between two that are recorded.
        judgement: Judgement,
        /// State of the judges that can't be derived from the counts.
        #[serde(default, skip_serializing_if = "AnalysisCheckpoint::is_empty")]
        checkpoint: AnalysisCheckpoint,
        /// What a failed judgement rests on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<FailureBasis>,
    },
    /// Fewer instances of the new release are ready than its weight needs.
    CapacityLost {
        release: ReleaseNumber,
        ready: u32,
        /// Instances that the weight needs.
        needed: u32,
        /// What an instance that is not ready reports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// As many instances as needed are ready again.
    CapacityRestored {
        release: ReleaseNumber,
        ready: u32,
    },
    /// The release lacks ready instances, and no other release can take its traffic over: people are notified.
    RollbackBlocked {
        why: String,
    },
    /// What speaks against the release shows only in comparison with the past, and is not its fault, or can't be attributed to
    /// it: the release stays, people are notified.
    FaultNotAttributed {
        /// The observation, and why it isn't attributed to the release.
        why: String,
    },
    /// An action of the rollback failed and is tried again: a rollback never gives up by itself.
    RollbackDelayed {
        /// Failed attempts so far.
        attempt: u32,
        until: jiff::Timestamp,
    },
    /// A person has approved the gate at the cursor.
    Approved {
        /// The digest of the plan that was approved.
        plan: Digest,
        /// The groups of the person at that moment, as far as the rules name them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    Rejected {
        reason: String,
    },
    /// A person has opened all gates of the rollout in an emergency.
    GlassBroken {
        /// The digest of the plan at that moment.
        plan: Digest,
        reason: String,
    },
    /// A second person has looked at the emergency.
    GlassReviewed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// Nothing more is shifted until it is resumed.
    Paused {
        reason: String,
        /// Whether people are notified. Where older logs lack it, pauses by Shipway and by jobs notify.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        notifies: bool,
    },
    Resumed,
    /// Remaining holds are skipped.
    HoldsSkipped {
        reason: String,
    },
    /// The previous instances are no longer kept warm, and nothing is watched any more.
    KeepEnded {
        /// The release that waits; none when the environment is being deleted.
        next: Option<ReleaseNumber>,
    },
    /// Another release waits while this one is rolled back: an attempt that fails is the last one.
    SuccessorWaiting {
        why: String,
    },
    Ended {
        outcome: RolloutOutcome,
        /// What made it leave its release; none when it was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<RollbackCause>,
        why: String,
    },
    /// The service knows how it ended.
    ServiceNotified,
    /// A notification was delivered to one destination, or given up for that destination alone.
    NotificationFinished {
        /// Its place among the notices, from 0.
        index: usize,
        /// The destination's place in `notify` of the environment, from 0.
        destination: usize,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
}

/// Commands of people and reports of drivers.
#[derive(Clone, Debug)]
pub enum RolloutInput {
    Open(Box<RolloutSpec>),
    /// The effect of this plan and action is done.
    Done {
        /// The number of the plan, from 1.
        plan: u32,
        /// The action's place in it.
        index: usize,
        note: Option<String>,
        smoke: Option<SmokeReport>,
    },
    /// The effect of this plan and action can't be done.
    Failed {
        /// The number of the plan, from 1.
        plan: u32,
        /// The action's place in it.
        index: usize,
        why: String,
        smoke: Option<SmokeReport>,
    },
    /// The new release crashes again and again.
    CrashLoop {
        why: String,
    },
    /// Instances of the rollout's releases, as the target sees them now.
    Readiness(Vec<SetReadiness>),
    /// The rollout of a tied service went back.
    PeerRolledBack {
        why: String,
    },
    /// A reading of the metrics.
    Measured {
        /// The exposure it belongs to: the number of the shift, so that a late reading is not counted for the next step.
        exposure: u32,
        seen: Box<Observation>,
    },
    /// A reading that was judged together with those before it, and must be recorded ([`Rollout::observe`](super::Rollout::observe)).
    Evaluated {
        /// The exposure it belongs to.
        exposure: u32,
        /// The reading and the judgement of it.
        evaluation: Box<MetricEvaluation>,
    },
    /// Approves the gate at the cursor.
    Approve {
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        /// What the person has seen: an approval for anything else is refused.
        seen: SeenSubject,
        comment: Option<String>,
    },
    /// Rejects at the gate at the cursor.
    Reject {
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        /// What the person has seen: a rejection of anything else is refused.
        seen: SeenSubject,
        reason: String,
    },
    /// Opens all gates of the rollout in an emergency.
    BreakGlass {
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        /// What the person has seen.
        seen: SeenSubject,
        reason: String,
    },
    /// Confirms that a second person has looked at the emergency.
    ReviewBreakGlass {
        comment: Option<String>,
    },
    Pause {
        reason: String,
    },
    Resume,
    /// Skip the remaining holds.
    Promote {
        reason: String,
    },
    /// Keep the previous instances warm no longer.
    EndKeep {
        /// The release that waits; none when the environment is being deleted.
        next: Option<ReleaseNumber>,
    },
    Abort {
        cause: AbortCause,
        reason: String,
    },
    /// The service has been notified of the outcome.
    ServiceNotified,
    /// A notification was delivered to one destination (`None`) or given up.
    NotificationFinished {
        /// Its place among the notices, from 0.
        index: usize,
        /// The destination's place in `notify` of the environment, from 0.
        destination: usize,
        failed: Option<String>,
    },
    /// The time has come.
    TimerFired,
}

/// What a rollout asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum RolloutEffect {
    /// Carry out an action of the plan; answer with [`RolloutInput::Done`] or [`RolloutInput::Failed`].
    ExecuteAction {
        /// The number of the plan, from 1.
        plan: u32,
        /// The action's place in it.
        index: usize,
        action: PlanAction,
    },
    /// Read the metrics of both sides at each interval and report them, until cancelled.
    Measure {
        /// The number of the shift.
        exposure: u32,
        candidate: RolloutVariant,
        stable: Option<RolloutVariant>,
    },
    /// Watch the rollouts of tied services and report one that goes back, until cancelled.
    WatchPeers { with: Vec<ServiceName> },
    /// Watch the instances of both releases: report readiness and a crash loop of the new one, until cancelled.
    WatchInstances {
        release: ReleaseNumber,
        /// The release that takes over when the new one fails.
        stable: Option<ReleaseNumber>,
    },
    /// Tell the service how it ended.
    NotifyService {
        end: RolloutEnd,
        /// Remaining instances and traffic split.
        observed: ObservedState,
    },
    /// Deliver a notification to one destination; answer with [`RolloutInput::NotificationFinished`].
    Notify {
        /// Its place among the notices, from 0.
        index: usize,
        /// The destination's place in `notify` of the environment, from 0.
        destination: usize,
        notice: RolloutNotice,
    },
}

/// Why the previous instances are no longer kept warm, and nothing is watched any more.
#[must_use]
pub fn describe_warm_set_end(next: Option<ReleaseNumber>) -> String {
    match next {
        Some(next) => format!("{next} is waiting"),
        None => "the environment is being deleted".to_owned(),
    }
}

/// A notification for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutNotice {
    pub tone: NoticeTone,
    pub title: String,
    /// The sentence behind it.
    pub text: String,
    pub at: jiff::Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeTone {
    Good,
    /// For the record: a person decided it, or another release is rolled out instead.
    Neutral,
    /// Asks for a decision.
    Asking,
    Bad,
}

/// Why an input is refused, with the state that refused it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutRejection {
    /// The stream has no rollout.
    #[error("there is no such rollout")]
    NotOpened,
    /// A second one under the same id.
    #[error("rollout {0} already exists")]
    OpenedAlready(RolloutId),
    #[error("{rollout} has already finished ({outcome}): {what} is no longer possible")]
    Ended {
        rollout: RolloutId,
        outcome: String,
        what: &'static str,
    },
    /// A promoted release is taken back by a rollback.
    #[error(
        "{rollout} has already finished ({outcome}): aborting is no longer possible; to roll back: shipway rollback {} --env {environment}",
        rollout.service
    )]
    AbortAfterPromotion {
        rollout: RolloutId,
        environment: EnvironmentName,
        outcome: String,
    },
    /// No gate is waiting.
    #[error("{rollout} is not waiting for an approval: it is at \"{at}\"")]
    NoPendingApproval {
        rollout: RolloutId,
        /// The action under the cursor.
        at: String,
    },
    /// This person may not say yes.
    #[error("{} may not approve or reject {rollout}: {decider}", decider.who)]
    NotAllowed {
        rollout: RolloutId,
        decider: Box<UnacceptedDecider>,
    },
    /// The decision is for another subject than the gate's.
    #[error(
        "{} of {rollout} {} not what you saw: look at it again with `shipway plan {} --env {environment}` and `shipway status {}`, then decide again with --plan-digest {current}",
        describe_parts(changed),
        if changed.len() == 1 { "is" } else { "are" },
        rollout.service,
        rollout.service
    )]
    SubjectChanged {
        rollout: RolloutId,
        environment: EnvironmentName,
        changed: Vec<BoundPart>,
        /// The digest of the plan that waits now.
        current: Digest,
    },
    #[error(
        "{rollout} can't be promoted: {environment} is {freeze}; wait for the opening, or in an emergency: shipway break-glass {rollout} --reason …"
    )]
    Frozen {
        rollout: RolloutId,
        environment: EnvironmentName,
        freeze: Box<ActiveFreeze>,
    },
    #[error(
        "{} may not break the glass of {rollout}: {}",
        decider.who,
        match decider.accepted.as_str() {
            "" => format!("{environment} names no one in `break_glass`"),
            named => format!("{environment} allows it to {named}"),
        }
    )]
    NoBreakGlass {
        rollout: RolloutId,
        environment: EnvironmentName,
        decider: Box<UnacceptedDecider>,
    },
    #[error("break-glass needs a reason: shipway break-glass {0} --reason …")]
    NoReason(RolloutId),
    #[error("the glass of {0} was not broken: there is nothing to review")]
    NoGlassBroken(RolloutId),
    #[error(
        "{who} broke the glass of {rollout}: another person must review it: shipway review {rollout}"
    )]
    OwnReview { rollout: RolloutId, who: String },
    /// It goes back already.
    #[error("{rollout} is rolling back to stable ({why}): {what} is no longer possible")]
    RollingBack {
        rollout: RolloutId,
        /// What made it go back, and the person who asked for it.
        why: String,
        what: &'static str,
    },
}
