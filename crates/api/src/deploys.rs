//! Deploys, rollbacks and retries, and what a deploy would do.

use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::{Digest, EnvironmentName, ReleaseNumber, ServiceName},
    release::Commit,
    rollout::RolloutKind,
    service::{EnvironmentHold, WaitsFor},
};
use utoipa::{IntoParams, ToSchema};

/// Which deploy to plan.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PlanQuery {
    /// The environment.
    pub to: String,
    /// The release (default: the newest).
    pub release: Option<String>,
}

/// What a deploy would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeployPlan {
    pub release: ReleaseNumber,
    pub commit: Commit,
    pub environment: EnvironmentName,
    /// `canary`, `recreate`, …
    pub strategy: String,
    /// In words, in the order of their execution.
    pub actions: Vec<String>,
    pub notes: Vec<String>,
    /// Identifies what the actions do: an approval with `--plan-digest` is for exactly this.
    pub digest: Digest,
    /// The release that serves now.
    pub stable: Option<ReleaseNumber>,
}

/// A release to deploy, and into which environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The newest release if neither this nor `commit` is given.
    pub release: Option<u32>,
    /// Deploy the release of this commit, by a prefix of its id.
    pub commit: Option<String>,
    /// From a step of a run: the artifact's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// From a step of a run: the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Deploy only to this environment; by default to all in order.
    pub environment: Option<String>,
    /// Deploy it even if it was rolled back there before.
    #[serde(default)]
    pub force: bool,
    pub reason: Option<String>,
}

/// An environment to roll back, and to which release.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    pub environment: String,
    /// The previous release by default.
    pub release: Option<u32>,
    /// Roll back to it even if it was rolled back there before.
    #[serde(default)]
    pub force: bool,
    pub reason: Option<String>,
}

/// What a deploy, a rollback, a retry or the end of a hold led to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DeployOutcome {
    #[schema(value_type = Option<String>)]
    pub service: Option<ServiceName>,
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentName>,
    /// `deploy`, `rollback` or `retry`.
    #[schema(value_type = Option<String>)]
    pub kind: Option<RolloutKind>,
    /// The release that is rolled out.
    #[schema(value_type = Option<u32>)]
    pub release: Option<ReleaseNumber>,
    /// The release that it replaces.
    #[schema(value_type = Option<u32>)]
    pub replaces: Option<ReleaseNumber>,
    /// Rollouts that have started.
    pub rollouts: Vec<String>,
    /// Whether the request waits in the queue of its environment.
    pub queued: bool,
    #[schema(value_type = Option<Object>)]
    pub waits_for: Option<WaitsFor>,
    /// A rollout in progress that has been requested to end early.
    pub making_way: Option<String>,
    /// Rollouts of later environments that are rolled back too: automatic promotion had brought the release there.
    pub withdrawn: Vec<String>,
    /// Set while automatic promotion into the environment is stopped.
    #[schema(value_type = Option<Object>)]
    pub hold: Option<EnvironmentHold>,
    /// Whether the same was requested before, so that nothing has changed.
    pub unchanged: bool,
    /// Why the request was dropped.
    pub dropped: Option<String>,
}
