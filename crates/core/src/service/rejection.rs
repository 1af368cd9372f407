//! Why a service refuses an input.

use super::rejected_release::RejectedRelease;
use crate::{
    ids::{
        EnvironmentName, ReleaseNumber, RolloutId, RolloutNumber, RunId, RunNumber, ServiceName,
    },
    repository::ServiceLocation,
    rollout::RolloutOutcome,
    testing,
};

/// Why an input is refused, with what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceRejection {
    /// Nothing was ever pushed.
    #[error("no such service yet: push a commit with a shipway.yaml first")]
    NoService,
    /// A push from another repository than the service's.
    #[error(
        "the service {service} is in {owner}: push to /git/{}, or give this service another name", .owner.repository
    )]
    OtherRepository {
        service: ServiceName,
        owner: ServiceLocation,
    },
    /// The release has no such environment.
    #[error("release {release} has no environment {environment:?}; its shipway.yaml names {known}")]
    UnknownEnvironment {
        release: ReleaseNumber,
        environment: String,
        known: String,
    },
    /// The environment accepts only releases of other branches.
    #[error(
        "{environment} accepts only releases of {accepted}, and {release} is of {}: merge it into one of them, or change `branches` in shipway.yaml",
        branch.as_deref().unwrap_or("an unknown branch")
    )]
    BranchNotAccepted {
        release: ReleaseNumber,
        branch: Option<String>,
        environment: EnvironmentName,
        accepted: String,
    },
    /// What a pull request proposes is not released.
    #[error(
        "this run is for pull request {0}, and pull requests are not released: merge it, and its commits are released from the branch"
    )]
    PullRequest(u64),
    /// There is nothing to go back from.
    #[error("{release} is already stable in {environment}: nothing to roll back")]
    StableAlready {
        release: ReleaseNumber,
        environment: EnvironmentName,
    },
    /// A person rejected it.
    #[error(
        "{release} was rejected by {}: {}; no environment accepts it, also not by force. Take the rejection back: shipway reject {service} --release {} --undo",
        rejected.by, rejected.reason, release.0
    )]
    ReleaseRejected {
        service: ServiceName,
        release: ReleaseNumber,
        rejected: Box<RejectedRelease>,
    },
    #[error("{0} is rejected for a reason only: say why with --reason")]
    NoRejectionReason(ReleaseNumber),
    /// It was rolled back there.
    #[error(
        "{release} was {outcome} in {environment} before; use --force to deploy it there again"
    )]
    MarkedBad {
        release: ReleaseNumber,
        /// How its last rollout there ended.
        outcome: RolloutOutcome,
        environment: EnvironmentName,
    },
    /// Another rollout is running, and this environment refuses a second.
    #[error(
        "{environment} is busy with rollout {running} and refuses others until it ends (when_busy: refuse)"
    )]
    Busy {
        environment: EnvironmentName,
        running: RolloutNumber,
    },
    /// No earlier release is known.
    #[error(
        "there is no earlier release in {environment} to roll back to; name one with --release"
    )]
    NothingBefore { environment: EnvironmentName },
    /// The run isn't one of this service.
    #[error("no such run: {0}")]
    UnknownRun(RunNumber),
    /// A test can't be quarantined, or released.
    #[error(transparent)]
    Testing(#[from] testing::QuarantineRejection),
    /// A deletion needs an environment without a rollout in progress.
    #[error("rollout {0} is in progress; abort it first: shipway abort {0}")]
    RolloutInProgress(RolloutId),
    /// A deletion needs a service without a run in progress.
    #[error("run {0} is in progress; cancel it first: shipway cancel {0}")]
    RunInProgress(RunId),
    #[error("{0} is being deleted; try again in a moment")]
    EnvironmentDeleted(EnvironmentName),
    #[error("the service is being deleted; try again in a moment")]
    ServiceDeleted,
    /// The run's commit has no configuration to release by.
    #[error("run {0} can't deploy: its commit has no shipway.yaml")]
    NoConfig(RunNumber),
}
