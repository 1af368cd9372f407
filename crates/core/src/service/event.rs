//! What can be said to a service, what it says happened, and what it asks of the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use shipway_workflow::job::Conclusion;

use super::{
    health::{HealthNotice, HealthReport},
    hold::EnvironmentHold,
    standing::Standing,
};
use crate::{
    address::claims::AskedAddresses,
    aggregate::Actor,
    config::{Config, Reports},
    ids::{
        CommitId, Digest, EnvironmentName, ReleaseNumber, RolloutNumber, RunNumber, ServiceName,
    },
    release::{Commit, Release, WorkflowFile},
    rollout::{Cause, End, Kind, Outcome, Pace, Spec, strategy::Observed},
    run::Rules,
    testing::{self, TestId},
};

/// A commit that came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The full name of the ref: `refs/heads/main`.
    pub reference: String,
    /// Where the ref was before; none for a new one.
    pub before: Option<CommitId>,
    /// Where it is now.
    pub commit: Commit,
    /// `shipway.yaml` as of the commit; none when there is no such file or it has mistakes.
    pub config: Option<Box<Config>>,
    /// Why there is no configuration, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfigured: Option<String>,
    /// The workflows that the configuration names as tests of an environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<WorkflowFile>,
    /// The commit's own tree as an artifact, where the configuration says that it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
}

impl Push {
    /// The branch, when the ref is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.reference.strip_prefix("refs/heads/")
    }

    /// Whether its green runs make a release.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.config
            .as_ref()
            .is_some_and(|config| self.branch() == Some(config.branch.as_str()))
    }
}

/// What a run is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum Purpose {
    /// It was started by a push; its artifacts may become a release.
    Push {
        /// The push.
        sequence: u64,
    },
    /// Somebody started it by hand.
    Dispatch,
    /// A schedule has started it, or another run that was over.
    ByItself,
    /// It tests an environment just deployed; green lets the release go on.
    Tests {
        /// The environment.
        environment: EnvironmentName,
        /// The release.
        release: ReleaseNumber,
    },
}

/// A run that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOrder {
    /// Its number.
    pub number: RunNumber,
    /// What it is for.
    pub purpose: Purpose,
    /// What runs.
    pub workflow: WorkflowFile,
    /// Of which commit.
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
    /// Where its tests report, and what is asked of them.
    #[serde(default, skip_serializing_if = "Reports::is_default")]
    pub reports: Reports,
    /// The environments that are known, with what must hold before a job goes there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Rules>,
    /// More of `github.event` than what all events have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<serde_json::Value>,
    /// How many runs led to it, each by being over.
    #[serde(default)]
    pub chain: u8,
}

/// An artifact that a run stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub digest: Digest,
}

/// A run that deploys by a step. It may be over for the service: jobs of it are run again.
#[derive(Clone, Debug)]
pub struct Deploying {
    /// Its number.
    pub number: RunNumber,
    /// What it is for.
    pub purpose: Purpose,
    /// Of which commit.
    pub commit: Commit,
    /// What steps of it have made before, the latest last.
    pub made: Vec<Arc<Release>>,
}

/// A rollout that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What it is for.
    pub kind: Kind,
    /// How fast its release goes in.
    #[serde(default)]
    pub pace: Pace,
    /// Whether a person asked for exactly this.
    #[serde(default)]
    pub trigger: Trigger,
    /// The ended rollout whose release it rolls out once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RolloutNumber>,
    /// What goes in.
    pub release: Arc<Release>,
    /// Where.
    pub environment: EnvironmentName,
    /// Whether it goes on to the next environment when it is promoted.
    pub onward: Onward,
    /// Why, in words.
    pub why: String,
    /// Who asked, or pushed what goes in; none in logs of before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
}

/// Who or what sets off a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person asked for exactly this rollout.
    Person,
    /// A push, a schedule, a step of a run, or the environment before.
    #[default]
    Automation,
}

/// What a rollout that was asked for waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The end of another rollout.
    Rollout {
        /// Which.
        number: RolloutNumber,
        /// What that one is for.
        kind: Kind,
        /// What goes in by it.
        release: ReleaseNumber,
    },
    /// A person, who holds the environment.
    Hold(EnvironmentHold),
}

/// The release of an ended rollout once more.
#[derive(Clone, Debug)]
pub struct RetryRequest {
    /// The ended rollout.
    pub rollout: RolloutNumber,
    /// What that one was for.
    pub kind: Kind,
    /// Its release.
    pub release: Arc<Release>,
    /// Where it went.
    pub environment: EnvironmentName,
    /// Why, in words.
    pub why: String,
}

/// How a running rollout makes way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Back to stable in favour of this release; the one that goes was not found bad.
    Supersede {
        /// What is to be rolled out instead.
        by: ReleaseNumber,
    },
    /// Back to stable, because a person asked for a rollback.
    Back {
        /// Who.
        by: Actor,
        /// Why, in words.
        reason: String,
    },
    /// It is promoted already: stop keeping the previous set warm, because this release waits.
    Finish {
        /// What waits.
        next: ReleaseNumber,
    },
}

/// Where a release goes after an environment has taken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Onward {
    /// To the next environment, in order.
    Next,
    /// Nowhere.
    Stay,
}

/// Services that are rolled out together, by environment.
pub type Groups = BTreeMap<EnvironmentName, Vec<ServiceName>>;

/// The facts of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A commit came in.
    Pushed {
        /// Its place in the order of pushes, from 1.
        sequence: u64,
        /// What came.
        push: Box<Push>,
    },
    /// A branch or tag is gone; releases made of it stay.
    ReferenceDeleted {
        /// Its full name.
        reference: String,
    },
    /// The workflows that start by themselves are these.
    TimetableSet {
        /// Of which branch, at which commit.
        head: Option<(String, Commit)>,
        /// Which.
        workflows: Vec<Standing>,
    },
    /// The time of a schedule has come, or is over for good.
    ScheduleCame {
        /// Its file, times and zone.
        schedule: String,
        /// The time.
        at: jiff::Timestamp,
    },
    /// A run was asked for.
    RunOrdered {
        /// The run.
        order: Box<RunOrder>,
    },
    /// The run's stream exists.
    RunOpened {
        /// Which.
        number: RunNumber,
    },
    /// A run is over.
    RunEnded {
        /// Which.
        number: RunNumber,
        /// Whether it was green.
        green: bool,
        /// What it stored.
        artifacts: Vec<Artifact>,
    },
    /// All runs of a push are over and no release was made of it.
    PushSettled {
        /// Which push.
        sequence: u64,
        /// Why there is no release.
        why: String,
    },
    /// There is something to roll out.
    ReleaseMade {
        /// What.
        release: Arc<Release>,
        /// Whether a step of the run says where it goes, instead of the usual order.
        #[serde(default)]
        by_step: bool,
    },
    /// A rollout was asked for and has its place in the queue.
    RolloutRequested {
        /// What.
        request: Box<Request>,
        /// What it waits for; none when it starts at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<WaitsFor>,
    },
    /// A rollout that was asked for will not be: a newer one took its place, or the order of pushes forbids it.
    RequestDropped {
        /// Where.
        environment: EnvironmentName,
        /// What.
        release: ReleaseNumber,
        /// What it was for.
        kind: Kind,
        /// The release of the request that takes its place; the same one where it was asked for again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced_by: Option<ReleaseNumber>,
        /// Why.
        why: String,
    },
    /// A rollout has its turn.
    RolloutOrdered {
        /// The rollout.
        spec: Box<Spec>,
        /// Where the release goes afterwards.
        onward: Onward,
    },
    /// The rollout's stream exists.
    RolloutOpened {
        /// Which.
        number: RolloutNumber,
    },
    /// A running rollout was asked to make way.
    WayAsked {
        /// Which.
        number: RolloutNumber,
        /// How, and why.
        way: Way,
    },
    /// The running rollout has heard that it should make way.
    WayAnswered {
        /// Which.
        number: RolloutNumber,
    },
    /// A release is the stable one of an environment.
    Promoted {
        /// Where.
        environment: EnvironmentName,
        /// By which rollout.
        rollout: RolloutNumber,
        /// What.
        release: Arc<Release>,
    },
    /// A release has passed the tests of an environment, or has none to pass, and goes on.
    Passed {
        /// Where.
        environment: EnvironmentName,
        /// What.
        release: ReleaseNumber,
    },
    /// A release stays where it is: the tests of the environment are red.
    Held {
        /// Where.
        environment: EnvironmentName,
        /// What.
        release: ReleaseNumber,
        /// Why.
        why: String,
    },
    /// Automatic promotion into an environment stops until a person resumes it.
    EnvironmentHeld {
        /// Where.
        environment: EnvironmentName,
        /// Why, in words.
        reason: String,
    },
    /// Automatic promotion into an environment continues.
    EnvironmentResumed {
        /// Where.
        environment: EnvironmentName,
        /// Why, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// No rollout guards the environment, and its stable release lacks ready instances.
    EnvironmentDegraded {
        /// The environment.
        environment: EnvironmentName,
        /// The stable release.
        release: ReleaseNumber,
        /// Ready instances.
        ready: u32,
        /// Instances that the configuration asks for.
        needed: u32,
        /// What an instance that is not ready reports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// All instances of the stable release are ready again.
    EnvironmentRecovered {
        /// The environment.
        environment: EnvironmentName,
        /// The stable release.
        release: ReleaseNumber,
    },
    /// A notice of an environment's health was delivered to one destination, or given up for that destination alone.
    HealthNoticeSettled {
        /// The notice.
        number: u64,
        /// The destination's index in `notify` of the environment.
        destination: usize,
        /// Why it was given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
    /// Another service names this one in its `with`, or no longer does.
    Tied {
        /// Who.
        leader: ServiceName,
        /// The whole group, by environment.
        groups: Groups,
    },
    /// The services that this one names know of it.
    FellowsTold {
        /// What they were told.
        groups: Groups,
    },
    /// The claims of addresses follow what this service asks for.
    AddressesReported {
        /// What it asked for.
        asked: AskedAddresses,
    },
    /// Something about its tests.
    Tests(Box<testing::Fact>),
    /// A rollout is over.
    RolloutEnded {
        /// Which.
        number: RolloutNumber,
        /// Where it went.
        environment: EnvironmentName,
        /// What went.
        release: ReleaseNumber,
        /// How it ended.
        outcome: Outcome,
        /// What made it leave its release; none when it was promoted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// Why, in words.
        why: String,
        /// What it left running, and who gets traffic.
        observed: Observed,
    },
}

/// What people and drivers say to a service.
#[derive(Clone, Debug)]
pub enum Input {
    /// A commit came in, with the workflow files that match it.
    Pushed {
        /// The service, by name: the first push makes it.
        service: ServiceName,
        /// What came.
        push: Box<Push>,
        /// What runs.
        workflows: Vec<WorkflowFile>,
        /// What starts by itself from now on, when it is the branch whose workflows do.
        standing: Option<Vec<Standing>>,
    },
    /// A branch or tag is gone.
    Deleted {
        /// Its full name.
        reference: String,
    },
    /// A run that is over has shown something of its tests; said before [`Input::RunEnded`].
    TestsSeen(Box<testing::Seen>),
    /// A test should not block for a while.
    Quarantine(Box<testing::Request>),
    /// A test in quarantine should block again.
    ReleaseTest(TestId),
    /// Start a workflow by hand.
    Dispatch {
        /// What runs.
        workflow: WorkflowFile,
        /// Of which commit.
        commit: Commit,
        /// The full name of the ref.
        reference: String,
        /// Its inputs.
        inputs: BTreeMap<String, String>,
    },
    /// The run's stream exists.
    RunOpened(RunNumber),
    /// A run is over.
    RunEnded {
        /// Which.
        number: RunNumber,
        /// Whether it was green.
        green: bool,
        /// How it ended.
        conclusion: Conclusion,
        /// What it stored.
        artifacts: Vec<Artifact>,
    },
    /// A step of a run deploys.
    DeployStep {
        /// Of which run.
        run: Box<Deploying>,
        /// What it has stored.
        artifact: Artifact,
        /// Where to.
        environment: EnvironmentName,
    },
    /// Somebody asks for a rollout.
    Deploy {
        /// What.
        release: Arc<Release>,
        /// Where; from the first environment on when not said.
        environment: Option<EnvironmentName>,
        /// Even if it was rolled back there before.
        force: Force,
        /// Why.
        why: String,
    },
    /// Somebody asks to go back.
    Rollback {
        /// Where.
        environment: EnvironmentName,
        /// To what; the release before the stable one when not said.
        to: Option<Arc<Release>>,
        /// Even if that was rolled back there before.
        force: Force,
        /// Why.
        why: String,
    },
    /// Roll the release of an ended rollout out once more.
    Retry(Box<RetryRequest>),
    /// Continue automatic promotion into an environment.
    ResumeEnvironment {
        /// Where.
        environment: EnvironmentName,
        /// Why, in words.
        reason: Option<String>,
    },
    /// Instances of a release, as the target sees them now.
    HealthReported(HealthReport),
    /// A notice of an environment's health was delivered to one destination, or given up there.
    HealthNoticeSettled {
        /// The notice.
        number: u64,
        /// The destination's index in `notify`.
        destination: usize,
        /// Why it was given up.
        failed: Option<String>,
    },
    /// Another service names this one in its `with`, or no longer does.
    Tied {
        /// Who.
        leader: ServiceName,
        /// The whole group, by environment.
        groups: Groups,
    },
    /// The services that this one names know of it.
    FellowsTold(Groups),
    /// The claims of addresses follow this report.
    AddressesReported(AskedAddresses),
    /// The rollout's stream exists.
    RolloutOpened(RolloutNumber),
    /// The running rollout has heard that it should make way.
    WayAnswered(RolloutNumber),
    /// A rollout declares its release stable.
    Promoted {
        /// Which rollout.
        rollout: RolloutNumber,
        /// Which release: the new one, or on the way back the old one.
        release: ReleaseNumber,
    },
    /// A rollout is over.
    RolloutEnded {
        /// Which.
        number: RolloutNumber,
        /// How.
        end: End,
        /// What it left running, and who gets traffic.
        observed: Observed,
    },
    /// The time has come.
    Woken,
}

/// Whether a release that was rolled back may be offered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// No.
    No,
    /// Yes.
    Yes,
}

/// What a service asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open the stream of this run; answer with [`Input::RunOpened`].
    OpenRun(Box<RunOrder>),
    /// Open the stream of this rollout; answer with [`Input::RolloutOpened`].
    OpenRollout(Box<Spec>),
    /// Tell these services that they are rolled out together with this one, or no longer; answer with [`Input::FellowsTold`].
    TellFellows {
        /// Who is to know.
        fellows: BTreeSet<ServiceName>,
        /// The groups.
        groups: Groups,
    },
    /// Report which addresses this service asks for; answer with [`Input::AddressesReported`].
    ReportAddresses(AskedAddresses),
    /// Deliver a notice of an environment's health; answer with [`Input::HealthNoticeSettled`].
    NotifyHealth {
        /// The notice.
        notice: Box<HealthNotice>,
        /// The destination's index in its `destinations`.
        destination: usize,
    },
    /// Tell a rollout to make way; answer with [`Input::WayAnswered`].
    AskWay {
        /// Which.
        number: RolloutNumber,
        /// How, and why.
        way: Way,
    },
}
