//! What can be said to a rollout, what it says happened, what it asks of the world, and why it refuses.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shipway_analysis::{AnalysisCheckpoint, Judgement, Observation};

use super::{
    FailureBasis,
    capacity::SetReadiness,
    look::Look,
    outcome::{AbortCause, Cause, Kind, Outcome, Pace},
    plan::{Action, Plan},
    stable_traffic::StableTraffic,
    state::End,
    strategy::Observed,
};
use crate::{
    aggregate::Actor,
    check::SmokeReport,
    config::Environment,
    ids::{ReleaseNumber, RolloutId, RolloutNumber, ServiceName},
    release::Release,
};

/// All that a rollout is about; fixed when it is opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its id.
    pub id: RolloutId,
    /// What it is for.
    pub kind: Kind,
    /// How fast its release goes in.
    #[serde(default)]
    pub pace: Pace,
    /// The ended rollout whose release it rolls out once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RolloutNumber>,
    /// What goes in.
    pub release: Arc<Release>,
    /// Where it goes, as configured by the release itself.
    pub environment: Environment,
    /// What is there now.
    pub stable: Option<Stable>,
    /// What runs and who gets traffic when it begins.
    pub observed: Observed,
    /// What stable answered in the last hour, measured when the rollout is opened; the rules have their limits from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_traffic: Option<StableTraffic>,
    /// Whether the limit of a slow rate was taken from it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_slow_limit_measured: bool,
    /// Why, in words: "push of main by ada", "rollback asked by bob".
    pub why: String,
    /// Who asked for it, or pushed what goes in; none in logs of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Services whose rollouts are promoted together with this one or go back with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tied: Vec<ServiceName>,
}

impl Spec {
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
            && self.release.number == other.release.number
            && self.environment.name == other.environment.name
    }
}

/// The release that serves an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stable {
    /// Which.
    pub release: Arc<Release>,
    /// How many instances it needs to carry all traffic.
    pub instances: u32,
}

/// Forward to the new release, or back to the stable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the new release.
    Forward,
    /// To the stable one.
    Back,
}

/// The facts of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// It exists.
    Opened {
        /// What it is about.
        spec: Box<Spec>,
    },
    /// What will be done from here on.
    Planned {
        /// Forward or back.
        direction: Direction,
        /// The actions.
        plan: Plan,
        /// What made it leave its release; none for the plan forward.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Why this plan, now.
        why: String,
    },
    /// The action under the cursor is done; the next begins.
    ActionDone {
        /// Its place in the plan, from 0.
        index: usize,
        /// What there is to say of it.
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
        /// Why.
        why: String,
        /// What the smoke tests found, when they were the action.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        smoke: Option<SmokeReport>,
    },
    /// What the metrics showed since the last reading, and what the judge makes of all of it.
    Measured {
        /// The reading.
        seen: Box<Observation>,
        /// What all of it adds up to, with the readings between two that are recorded.
        judgement: Judgement,
        /// What the judges remember beside the counts.
        #[serde(default, skip_serializing_if = "AnalysisCheckpoint::is_empty")]
        checkpoint: AnalysisCheckpoint,
        /// What a failed judgement rests on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<FailureBasis>,
    },
    /// Fewer instances of the new release are ready than its weight needs.
    CapacityLost {
        /// The release.
        release: ReleaseNumber,
        /// Ready instances.
        ready: u32,
        /// Instances that the weight needs.
        needed: u32,
        /// What an instance that is not ready reports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// As many instances as needed are ready again.
    CapacityRestored {
        /// The release.
        release: ReleaseNumber,
        /// Ready instances.
        ready: u32,
    },
    /// The release lacks ready instances, and no other release can take its traffic over: people are notified.
    RollbackBlocked {
        /// What was seen.
        why: String,
    },
    /// What speaks against the release shows only in comparison with the past, and is not its fault, or can't be attributed to
    /// it: the release stays, people are notified.
    FaultNotAttributed {
        /// What was seen, and why it is not attributed to the release.
        why: String,
    },
    /// An action of the rollback failed and is tried again: a rollback never gives up by itself.
    RollbackDelayed {
        /// Failed attempts so far.
        attempt: u32,
        /// When it is tried again.
        until: jiff::Timestamp,
    },
    /// Somebody said yes to the gate under the cursor.
    Approved {
        /// What they added.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// Somebody said no.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Nothing more is shifted until it is resumed.
    Paused {
        /// Why.
        reason: String,
    },
    /// It goes on.
    Resumed,
    /// Remaining holds are skipped.
    Hurried {
        /// Why.
        reason: String,
    },
    /// Another release waits: the previous instances are no longer kept warm.
    KeepEnded {
        /// What waits.
        next: ReleaseNumber,
    },
    /// Another release waits while this one is rolled back: an attempt that fails is the last one.
    SuccessorWaiting {
        /// Which, in words.
        why: String,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// What made it leave its release; none when it was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Why, in words.
        why: String,
    },
    /// The service knows how it ended.
    ServiceTold,
    /// A notification was delivered to one destination, or given up for that destination alone.
    NoticeSettled {
        /// Its place among the notices, from 0.
        index: usize,
        /// The destination's place in `notify` of the environment, from 0.
        destination: usize,
        /// Why it was given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
}

/// What people and drivers say to a rollout.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin.
    Open(Box<Spec>),
    /// The effect of this plan and action is done.
    Done {
        /// The number of the plan, from 1.
        plan: u32,
        /// The action's place in it.
        index: usize,
        /// What there is to say.
        note: Option<String>,
        /// What the smoke tests found.
        smoke: Option<SmokeReport>,
    },
    /// The effect of this plan and action can't be done.
    Failed {
        /// The number of the plan, from 1.
        plan: u32,
        /// The action's place in it.
        index: usize,
        /// Why.
        why: String,
        /// What the smoke tests found.
        smoke: Option<SmokeReport>,
    },
    /// The new release crashes again and again.
    CrashLoop {
        /// What was seen.
        why: String,
    },
    /// Instances of the rollout's releases, as the target sees them now.
    Readiness(Vec<SetReadiness>),
    /// The rollout of a tied service went back.
    FellowBack {
        /// Which, and why.
        why: String,
    },
    /// A reading of the metrics.
    Measured {
        /// The exposure it belongs to: the number of the shift, so that a late reading is not counted for the next step.
        exposure: u32,
        /// The reading.
        seen: Box<Observation>,
    },
    /// A reading that was judged together with those before it, and must be recorded ([`Rollout::look`](super::Rollout::look)).
    Looked {
        /// The exposure it belongs to.
        exposure: u32,
        /// The reading, and what is made of it.
        look: Box<Look>,
    },
    /// Yes, by somebody with these groups.
    Approve {
        /// Groups of the person, each as `@name`.
        groups: Vec<String>,
        /// What they add.
        comment: Option<String>,
    },
    /// No.
    Reject {
        /// Why.
        reason: String,
    },
    /// Stop shifting.
    Pause {
        /// Why.
        reason: String,
    },
    /// Go on.
    Resume,
    /// Skip the remaining holds.
    Promote {
        /// Why.
        reason: String,
    },
    /// Another release waits: keep the previous instances warm no longer.
    EndKeep {
        /// What waits.
        next: ReleaseNumber,
    },
    /// Back to stable.
    Abort {
        /// Who or what wants it.
        cause: AbortCause,
        /// Why, in words.
        reason: String,
    },
    /// The service was told how it ended.
    Told,
    /// A notification was delivered to one destination (`None`) or given up.
    Noticed {
        /// Its place among the notices, from 0.
        index: usize,
        /// The destination's place in `notify` of the environment, from 0.
        destination: usize,
        /// Why it was given up.
        failed: Option<String>,
    },
    /// The time has come.
    Woken,
}

/// What a rollout asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Carry out an action of the plan; answer with [`Input::Done`] or [`Input::Failed`].
    Carry {
        /// The number of the plan, from 1.
        plan: u32,
        /// The action's place in it.
        index: usize,
        /// What to do.
        action: Action,
    },
    /// Read the metrics of both sides at each interval and report them, until cancelled.
    Measure {
        /// The number of the shift.
        exposure: u32,
        /// The newcomer.
        candidate: ReleaseNumber,
        /// What it is compared with.
        stable: Option<ReleaseNumber>,
    },
    /// Watch the rollouts of tied services and report one that goes back, until cancelled.
    Fellows {
        /// The services.
        with: Vec<ServiceName>,
    },
    /// Watch the instances of both releases: report readiness and a crash loop of the new one, until cancelled.
    Guard {
        /// The new release.
        release: ReleaseNumber,
        /// The release that takes over when the new one fails.
        stable: Option<ReleaseNumber>,
    },
    /// Tell the service how it ended.
    TellService {
        /// How.
        end: End,
        /// What it leaves running, and who gets traffic.
        observed: Observed,
    },
    /// Deliver a notification to one destination; answer with [`Input::Noticed`].
    Notify {
        /// Its place among the notices, from 0.
        index: usize,
        /// The destination's place in `notify` of the environment, from 0.
        destination: usize,
        /// What to say.
        notice: Notice,
    },
}

/// Something people want to hear of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How it should look.
    pub tone: Tone,
    /// One line.
    pub title: String,
    /// The sentence behind it.
    pub text: String,
    /// When it happened.
    pub at: jiff::Timestamp,
}

/// How a notice should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// All is well.
    Good,
    /// For the record: a person decided it, or another release is rolled out instead.
    Neutral,
    /// Somebody is asked for something.
    Asking,
    /// Something went wrong.
    Bad,
}

/// Why an input is refused, with the state that refused it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The stream has no rollout.
    #[error("there is no such rollout")]
    NotOpened,
    /// A second one under the same id.
    #[error("rollout {0} exists already")]
    OpenedAlready(RolloutId),
    /// It is over.
    #[error("{rollout} has ended ({outcome}): {what} is no longer possible")]
    Ended {
        /// Which.
        rollout: RolloutId,
        /// How it ended.
        outcome: String,
        /// What was asked.
        what: &'static str,
    },
    /// No gate is waiting.
    #[error("{rollout} is not waiting for an approval: it is at \"{at}\"")]
    NotAsked {
        /// Which.
        rollout: RolloutId,
        /// The action under the cursor.
        at: String,
    },
    /// This person may not say yes.
    #[error("{who} may not approve {rollout}: approvals are accepted from {from}")]
    NotAllowed {
        /// Which.
        rollout: RolloutId,
        /// The person.
        who: String,
        /// Who may.
        from: String,
    },
    /// It goes back already.
    #[error("{rollout} is on its way back to stable: {what} is no longer possible")]
    GoingBack {
        /// Which.
        rollout: RolloutId,
        /// What was asked.
        what: &'static str,
    },
}
