//! Reports to a forge: statuses of commits, deployments, and one comment on each pull request.

use serde::{Deserialize, Serialize};
use shipway_workflow::job::Conclusion;

use crate::{
    ids::{CommitId, EnvironmentName, ReleaseNumber, RolloutNumber, ServiceName},
    rollout::RolloutOutcome,
};

/// Something to write to the forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeReport {
    Status(CommitStatusReport),
    Deployment(DeploymentReport),
    /// Creates or edits the comment on a pull request; its text is that of the moment of delivery.
    Comment {
        pull_request: u64,
    },
}

/// The state of a run, at its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatusReport {
    pub commit: CommitId,
    /// Which check it is: a later report of the same one replaces it.
    pub context: String,
    pub progress: ReportedProgress,
    pub description: String,
    /// The page of the run.
    pub url: String,
    /// The pull request that the run is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
}

/// The state of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentReport {
    pub service: ServiceName,
    pub rollout: RolloutNumber,
    pub release: ReleaseNumber,
    pub commit: CommitId,
    pub environment: EnvironmentName,
    pub progress: ReportedProgress,
    pub description: String,
    /// The page of the rollout.
    pub url: String,
    /// Where users reach the environment, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_url: Option<String>,
    /// Merged pull requests whose commits are in the release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_requests: Vec<u64>,
}

impl DeploymentReport {
    /// The name of the rollout across the services of a repository.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.service, self.rollout.0)
    }

    /// The name of its check, where it is reported as the status of a commit.
    #[must_use]
    pub fn context(&self) -> String {
        format!("shipway/{}/{}", self.service, self.environment)
    }
}

/// How far a run or a rollout is, as all forges can show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedProgress {
    Queued,
    Running,
    Success,
    Failure,
    /// Ended without a result: cancelled, superseded, or not carried out by the machine.
    Stopped,
}

impl ReportedProgress {
    /// How a run with this conclusion ended.
    #[must_use]
    pub const fn from_conclusion(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::Success | Conclusion::Skipped => Self::Success,
            Conclusion::Failure => Self::Failure,
            Conclusion::Cancelled | Conclusion::Incomplete => Self::Stopped,
        }
    }

    /// How a rollout with this outcome ended.
    #[must_use]
    pub const fn from_outcome(outcome: RolloutOutcome) -> Self {
        match outcome {
            RolloutOutcome::Promoted => Self::Success,
            RolloutOutcome::Superseded => Self::Stopped,
            RolloutOutcome::RolledBack
            | RolloutOutcome::Aborted
            | RolloutOutcome::Rejected
            | RolloutOutcome::Failed => Self::Failure,
        }
    }

    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Stopped)
    }
}

/// The name of the check of a workflow: `shipway/shop/ci (pull_request)`.
#[must_use]
pub fn workflow_context(service: &ServiceName, workflow: &str, event: &str) -> String {
    let file = workflow.rsplit('/').next().unwrap_or(workflow);
    let stem = file
        .strip_suffix(".yml")
        .or_else(|| file.strip_suffix(".yaml"));
    format!("shipway/{service}/{} ({event})", stem.unwrap_or(file))
}
