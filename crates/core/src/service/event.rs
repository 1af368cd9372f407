//! Inputs, events and effects of a service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use shipway_workflow::job::Conclusion;

use super::{
    health::{HealthNotice, HealthReport},
    hold::EnvironmentHold,
    push::Push,
    requested_deletion::{DeletionScope, RepositoryRemoval},
    schedules::ScheduledWorkflow,
};
use crate::{
    address::claims::AskedAddresses,
    aggregate::Actor,
    config::ReportsConfig,
    forge::PullRequestOrigin,
    gate::EnvironmentRules,
    ids::{
        CommitId, Digest, EnvironmentName, ReleaseNumber, RolloutNumber, RunNumber, ServiceName,
    },
    release::{Commit, Release, WorkflowFile},
    repository::ServiceLocation,
    rollout::{
        RollbackCause, RolloutEnd, RolloutKind, RolloutOutcome, RolloutPace, RolloutSpec,
        strategy::ObservedState,
    },
    source_repository::SourceRepository,
    testing::{self, TestId},
};

/// How a release was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOrigin {
    /// By a push whose runs are green; it goes through the environments in order.
    Push,
    /// By a step of a run, which names its environment.
    DeployStep,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum RunPurpose {
    /// It was started by a push; its artifacts may become a release.
    Push { sequence: u64 },
    /// A person started it (`workflow_dispatch`).
    Dispatch,
    /// A schedule has started it, or another run that was over.
    ByItself,
    /// A pull request was opened or changed at a forge. It is never released.
    PullRequest {
        number: u64,
        /// The head commit, which the forge shows the result at; the run is of its merge.
        head: CommitId,
        origin: PullRequestOrigin,
        /// The number of the webhook that reported it.
        delivery: u64,
    },
    /// Tests an environment after a deployment; the release is promoted further only if it succeeds.
    Tests {
        environment: EnvironmentName,
        release: ReleaseNumber,
    },
}

/// A run to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOrder {
    pub number: RunNumber,
    pub purpose: RunPurpose,
    pub workflow: WorkflowFile,
    pub commit: Commit,
    /// The full name of the ref.
    pub reference: String,
    /// The commit before, for a push.
    pub before: Option<CommitId>,
    /// `push`, `workflow_dispatch`, `deployment`.
    pub event: String,
    /// Who pushed it or asked for it; none in logs of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// The inputs given by hand, or what the tests need to know (`SHIPWAY_URL` and the like come from the environment).
    pub inputs: BTreeMap<String, String>,
    /// Paths of test reports and the requirements on them.
    #[serde(default, skip_serializing_if = "ReportsConfig::is_default")]
    pub reports: ReportsConfig,
    /// The environments that are known, with what must hold before a job goes there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentRules>,
    /// More of `github.event` than what all events have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_payload: Option<serde_json::Value>,
    /// The repository on a forge that the commit comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<SourceRepository>,
    /// The branch whose commits are released; `None` in logs from before this was recorded, and without a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// Where the service is, if not at the root of the repository of its name. None in logs of before there were others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<ServiceLocation>,
    /// How many runs led to it, each by being over.
    pub chain: u8,
}

/// The runs that a pull request asks for.
#[derive(Clone, Debug)]
pub struct PullRequestRuns {
    pub number: u64,
    pub head: CommitId,
    pub origin: PullRequestOrigin,
    /// The number of the webhook that reported it: the runs of one start once.
    pub delivery: u64,
    /// The merge of the head into the base branch.
    pub commit: Commit,
    /// `refs/pull/7/merge`
    pub reference: String,
    pub workflows: Vec<WorkflowFile>,
    /// `github.event`
    pub payload: serde_json::Value,
}

/// An artifact that a run stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunArtifact {
    pub name: String,
    pub digest: Digest,
}

/// A run that deploys by a step. It may be over for the service: jobs of it are run again.
#[derive(Clone, Debug)]
pub struct DeployingRun {
    pub number: RunNumber,
    pub purpose: RunPurpose,
    pub commit: Commit,
    /// What steps of it have made before, the latest last.
    pub made: Vec<Arc<Release>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutRequest {
    pub kind: RolloutKind,
    /// How fast its release goes in.
    pub pace: RolloutPace,
    /// Whether a person asked for exactly this.
    pub trigger: RolloutTrigger,
    /// The ended rollout whose release it rolls out once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RolloutNumber>,
    pub release: Arc<Release>,
    pub environment: EnvironmentName,
    /// Whether it is promoted to the next environment afterwards.
    pub auto_promotion: AutoPromotion,
    pub why: String,
    /// The requester, or the pusher of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
}

/// Who or what sets off a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutTrigger {
    /// A person asked for exactly this rollout.
    Person,
    /// A push, a schedule, a step of a run, or the environment before.
    #[default]
    Automation,
}

/// The reason why a requested rollout has not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The end of another rollout.
    Rollout {
        number: RolloutNumber,
        kind: RolloutKind,
        release: ReleaseNumber,
    },
    /// A person, who holds the environment.
    Hold(EnvironmentHold),
}

/// The release of an ended rollout once more.
#[derive(Clone, Debug)]
pub struct RetryRequest {
    pub rollout: RolloutNumber,
    pub kind: RolloutKind,
    pub release: Arc<Release>,
    pub environment: EnvironmentName,
    pub why: String,
}

/// How a running rollout is preempted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preemption {
    /// Back to stable in favour of this release; the one that goes was not found bad.
    Supersede {
        /// The release to roll out instead.
        by: ReleaseNumber,
    },
    /// Back to stable, because a person asked for a rollback.
    RollBack { by: Actor, reason: String },
    /// Back to stable, because the release was rolled back in an earlier environment.
    Withdraw {
        release: ReleaseNumber,
        /// Where it was rolled back.
        environment: EnvironmentName,
    },
    /// It is promoted already: stop keeping the previous set warm.
    Finish {
        /// The release that waits; none when the environment is being deleted.
        next: Option<ReleaseNumber>,
    },
}

/// Where a release goes after an environment has taken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoPromotion {
    /// To the next environment, in order.
    Next,
    Stay,
}

/// Services that are rolled out together, by environment.
pub type RolloutGroups = BTreeMap<EnvironmentName, Vec<ServiceName>>;

/// The facts of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceEvent {
    /// A commit came in.
    Pushed {
        /// Its place in the order of pushes, from 1.
        sequence: u64,
        push: Box<Push>,
    },
    /// A branch or tag was moved, and changed nothing of the service.
    ReferenceMoved {
        reference: String,
        commit: CommitId,
        /// As that of a push.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        location: Option<ServiceLocation>,
    },
    /// A branch or tag is gone; releases made of it stay.
    ReferenceDeleted { reference: String },
    /// The workflows that start by themselves are these.
    SchedulesSet {
        head: Option<(String, Commit)>,
        workflows: Vec<ScheduledWorkflow>,
    },
    /// The time of a schedule has come, or the schedule has ended.
    ScheduleFired {
        /// Its file, times and zone.
        schedule: String,
        at: jiff::Timestamp,
    },
    /// A run was requested.
    RunOrdered { order: Box<RunOrder> },
    /// The run's stream exists.
    RunOpened { number: RunNumber },
    /// A run has ended.
    RunEnded {
        number: RunNumber,
        conclusion: Conclusion,
        artifacts: Vec<RunArtifact>,
    },
    /// All runs of a push have ended without a release.
    PushNotReleased { sequence: u64, why: String },
    /// There is something to roll out.
    ReleaseCreated {
        release: Arc<Release>,
        origin: ReleaseOrigin,
    },
    /// A person rejected a release: no environment accepts it.
    ReleaseRejected {
        release: ReleaseNumber,
        reason: String,
    },
    /// A person took the rejection of a release back.
    ReleaseRejectionUndone {
        release: ReleaseNumber,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A rollout was requested and queued.
    RolloutRequested {
        request: Box<RolloutRequest>,
        /// What it waits for; none when it starts at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<WaitsFor>,
    },
    /// A requested rollout was dropped: a newer one replaced it, or the order of pushes forbids it.
    RequestDropped {
        environment: EnvironmentName,
        release: ReleaseNumber,
        kind: RolloutKind,
        /// The release of the request that replaces it; the same release if it was requested again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced_by: Option<ReleaseNumber>,
        why: String,
    },
    /// A rollout was started.
    RolloutOrdered {
        spec: Box<RolloutSpec>,
        /// Where the release goes afterwards.
        auto_promotion: AutoPromotion,
    },
    /// The rollout's stream exists.
    RolloutOpened { number: RolloutNumber },
    /// The running rollout was requested to end early.
    PreemptionRequested {
        number: RolloutNumber,
        preemption: Preemption,
    },
    /// The running rollout has received the preemption.
    PreemptionDelivered { number: RolloutNumber },
    /// A release is the stable one of an environment.
    Promoted {
        environment: EnvironmentName,
        rollout: RolloutNumber,
        release: Arc<Release>,
    },
    /// A release has passed the tests of an environment, or there are none, and is promoted further.
    TestsPassed {
        environment: EnvironmentName,
        release: ReleaseNumber,
    },
    /// A release stays where it is: the tests of the environment are red.
    PromotionBlocked {
        environment: EnvironmentName,
        release: ReleaseNumber,
        why: String,
    },
    /// Automatic promotion into an environment stops until a person resumes it.
    EnvironmentHeld {
        environment: EnvironmentName,
        reason: String,
    },
    /// Automatic promotion into an environment continues.
    EnvironmentResumed {
        environment: EnvironmentName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// No rollout guards the environment, and its stable release lacks ready instances.
    EnvironmentDegraded {
        environment: EnvironmentName,
        release: ReleaseNumber,
        ready: u32,
        /// Instances that the configuration asks for.
        needed: u32,
        /// What an instance that is not ready reports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// All instances of the stable release are ready again.
    EnvironmentRecovered {
        environment: EnvironmentName,
        release: ReleaseNumber,
    },
    /// A notice of an environment's health was delivered to one destination, or given up for that destination alone.
    HealthNotificationFinished {
        number: u64,
        /// The destination's index in `notify` of the environment.
        destination: usize,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// Another service names this one in its `promote_with`, or no longer does.
    PromotionGroupChanged {
        leader: ServiceName,
        /// The whole group, by environment.
        groups: RolloutGroups,
    },
    /// The services that this one names know of it.
    PeersNotified { groups: RolloutGroups },
    /// The claims of addresses follow what this service asks for.
    AddressesReported { asked: AskedAddresses },
    /// Something about its tests.
    Tests(Box<testing::TestingEvent>),
    /// The service is to be deleted, and so are all its environments.
    DeletionRequested {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An environment is to be deleted.
    EnvironmentDeletionRequested {
        environment: EnvironmentName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The instances and routes of an environment are gone.
    EnvironmentDeleted { environment: EnvironmentName },
    /// The service is gone; a push creates it again.
    Deleted { service: ServiceName },
    /// A rollout has ended.
    RolloutEnded {
        number: RolloutNumber,
        environment: EnvironmentName,
        release: ReleaseNumber,
        outcome: RolloutOutcome,
        /// What made it leave its release; none when it was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<RollbackCause>,
        why: String,
        /// Remaining instances and traffic split.
        observed: ObservedState,
    },
}

/// Commands of people and reports of drivers.
#[derive(Clone, Debug)]
pub enum ServiceInput {
    /// A commit came in, with the workflow files that match it.
    Pushed {
        /// The service, by name: the first push makes it.
        service: ServiceName,
        push: Box<Push>,
        workflows: Vec<WorkflowFile>,
        /// What starts by itself from now on, when it is the branch whose workflows do.
        standing: Option<Vec<ScheduledWorkflow>>,
    },
    /// A branch or tag was moved, and changed nothing of the service: nothing runs, and nothing is released.
    ReferenceMoved {
        /// The service; of a repository without a service of its name that name.
        service: ServiceName,
        location: ServiceLocation,
        reference: String,
        commit: Commit,
        /// What starts by itself from now on, when it is the branch whose workflows do.
        standing: Option<Vec<ScheduledWorkflow>>,
    },
    /// A branch or tag is gone.
    Deleted { reference: String },
    /// Test results of an ended run; sent before [`ServiceInput::RunEnded`].
    TestsSeen(Box<testing::TestResults>),
    /// A test should not block for a while.
    Quarantine(Box<testing::QuarantineTerms>),
    /// A test in quarantine should block again.
    ReleaseTest(TestId),
    /// Start a workflow by hand.
    Dispatch {
        workflow: WorkflowFile,
        commit: Commit,
        /// The full name of the ref.
        reference: String,
        inputs: BTreeMap<String, String>,
    },
    /// Start workflows for a pull request.
    PullRequest(Box<PullRequestRuns>),
    /// The run's stream exists.
    RunOpened(RunNumber),
    /// A run has ended.
    RunEnded {
        number: RunNumber,
        conclusion: Conclusion,
        artifacts: Vec<RunArtifact>,
    },
    /// A step of a run deploys.
    DeployStep {
        run: Box<DeployingRun>,
        artifact: RunArtifact,
        environment: EnvironmentName,
    },
    Deploy {
        release: Arc<Release>,
        /// Where; from the first environment on when not said.
        environment: Option<EnvironmentName>,
        /// Deploy even a release that was rolled back there before.
        force: Override,
        why: String,
    },
    Rollback {
        environment: EnvironmentName,
        /// To what; the release before the stable one when not said.
        to: Option<Arc<Release>>,
        /// Even if that was rolled back there before.
        force: Override,
        why: String,
    },
    /// Roll the release of an ended rollout out once more.
    Retry(Box<RetryRequest>),
    /// Accept a release in no environment any more, and stop its rollouts.
    RejectRelease {
        release: Arc<Release>,
        reason: String,
    },
    /// Accept a rejected release again.
    UndoReleaseRejection {
        release: ReleaseNumber,
        reason: Option<String>,
    },
    /// Continue automatic promotion into an environment.
    ResumeEnvironment {
        environment: EnvironmentName,
        reason: Option<String>,
    },
    /// Delete the service or an environment.
    Delete {
        scope: DeletionScope,
        reason: Option<String>,
    },
    /// The instances and routes of an environment are gone.
    EnvironmentRemoved(EnvironmentName),
    /// A deleted service is out of its repository.
    ServiceRemoved(RepositoryRemoval),
    /// Instances of a release, as the target sees them now.
    HealthReported(HealthReport),
    /// A notice of an environment's health was delivered to one destination, or given up there.
    HealthNotificationFinished {
        number: u64,
        /// The destination's index in `notify`.
        destination: usize,
        failed: Option<String>,
    },
    /// Another service names this one in its `promote_with`, or no longer does.
    PromotionGroupChanged {
        leader: ServiceName,
        /// The whole group, by environment.
        groups: RolloutGroups,
    },
    /// The services that this one names know of it.
    PeersNotified(RolloutGroups),
    /// The claims of addresses follow this report.
    AddressesReported(AskedAddresses),
    /// The rollout's stream exists.
    RolloutOpened(RolloutNumber),
    /// The running rollout has received the preemption.
    PreemptionDelivered(RolloutNumber),
    /// A rollout declares its release stable.
    Promoted {
        rollout: RolloutNumber,
        /// The release that now serves: the new one, or after a rollback the previous one.
        release: ReleaseNumber,
    },
    /// A rollout has ended.
    RolloutEnded {
        number: RolloutNumber,
        end: RolloutEnd,
        /// Remaining instances and traffic split.
        observed: ObservedState,
    },
    /// The time has come.
    TimerFired,
}

/// Whether a release that was rolled back may be offered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    No,
    Yes,
}

/// What a service asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceEffect {
    /// Open the stream of this run; answer with [`ServiceInput::RunOpened`].
    OpenRun(Box<RunOrder>),
    /// Open the stream of this rollout; answer with [`ServiceInput::RolloutOpened`].
    OpenRollout(Box<RolloutSpec>),
    /// Tell these services that they are rolled out together with this one, or no longer; answer with [`ServiceInput::PeersNotified`].
    NotifyPeers {
        peers: BTreeSet<ServiceName>,
        groups: RolloutGroups,
    },
    /// Report which addresses this service asks for; answer with [`ServiceInput::AddressesReported`].
    ReportAddresses(AskedAddresses),
    /// Deliver a notice of an environment's health; answer with [`ServiceInput::HealthNotificationFinished`].
    NotifyHealth {
        notice: Box<HealthNotice>,
        /// The destination's index in its `destinations`.
        destination: usize,
    },
    /// Stop the instances of a deleted environment and remove its routes; answer with [`ServiceInput::EnvironmentRemoved`].
    RemoveEnvironment(EnvironmentName),
    /// Remove the repository of a deleted service; answer with [`ServiceInput::ServiceRemoved`].
    RemoveService,
    /// Send the preemption to the rollout; answer with [`ServiceInput::PreemptionDelivered`].
    SendPreemption {
        number: RolloutNumber,
        preemption: Preemption,
    },
}
