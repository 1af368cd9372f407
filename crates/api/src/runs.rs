//! Runs, their jobs, gates and logs.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;
use shipway_core::{
    ids::Digest,
    rollout::RolloutView,
    run::{JobApproval, RunStatus, RunView},
};
use utoipa::{IntoParams, ToSchema};

use crate::TimeBound;

/// Which runs to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunListQuery {
    /// Only of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only those with this status.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunStatus>,
    /// Only those of this branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Only those that this person pushed or asked for; upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Only those whose last change is at this time or later: `2026-11-30T12:00:00Z`, `2026-11-30`, or `24h` and `7d` before now.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<TimeBound>,
    /// Only those whose last change is before this time.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<TimeBound>,
    /// Only those in progress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// How many entries; 50 by default, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// A run with the summaries that its steps wrote into `$GITHUB_STEP_SUMMARY`. On the wire each is a field `summary` of its job.
#[derive(Clone, Debug)]
pub struct RunDetails {
    pub run: RunView,
    /// By the key of the job.
    pub summaries: BTreeMap<String, String>,
}

impl Serialize for RunDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut document = serde_json::to_value(&self.run).map_err(ser::Error::custom)?;
        let jobs = document["jobs"].as_array_mut().into_iter().flatten();
        for (job, view) in jobs.zip(&self.run.jobs) {
            if let Some(summary) = self.summaries.get(&view.key) {
                job["summary"] = Value::String(summary.clone());
            }
        }
        document.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RunDetails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        let jobs = document["jobs"].as_array().into_iter().flatten();
        let summary = |job: &Value| {
            let summary = job["summary"].as_str()?.to_owned();
            Some((job["key"].as_str()?.to_owned(), summary))
        };
        Ok(Self {
            summaries: jobs.filter_map(summary).collect(),
            run: serde_json::from_value(document).map_err(de::Error::custom)?,
        })
    }
}

/// Why a run is cancelled.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRunRequest {
    pub reason: Option<String>,
}

/// Which jobs of a run are run again; all of them by default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunRequest {
    /// Only those that failed or were cancelled, and those that need them.
    #[serde(default)]
    pub failed: bool,
    /// Only the job with this key, and those that need it.
    pub job: Option<String>,
    /// Failed jobs resume in the workspace of their last attempt at the failed step; earlier steps are not run again.
    /// Without `job` it implies `failed`.
    #[serde(default)]
    pub from_failed_step: bool,
    /// Resume at the step with this id instead; of one job only.
    pub step: Option<String>,
}

/// A workflow to start manually (`workflow_dispatch`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DispatchRequest {
    /// The path of the workflow; by default the only one with `workflow_dispatch`.
    pub workflow: Option<String>,
    /// The branch or tag to run on, the branch where both have the name; the released branch by default.
    pub r#ref: Option<String>,
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
}

/// The run of a workflow that was started manually.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DispatchedRun {
    /// `shop/r12`.
    pub run: Option<String>,
}

/// Why a run failed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FailureSummary {
    /// Three lines; none unless the run has failed.
    pub lines: Vec<String>,
}

/// How to read a log.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Continue as long as the log grows.
    #[serde(default)]
    pub follow: bool,
    /// The attempt at the job, from 1; the last one by default.
    pub attempt: Option<u32>,
    /// The first byte; a reader that reconnects need not read the earlier ones again.
    #[serde(default)]
    pub offset: u64,
}

/// The data of a server-sent event of a log: whole lines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogChunk {
    pub text: String,
}

/// What a person can do to a job that waits at the gate of its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobGateAction {
    /// Start the job.
    Approve,
    /// Fail the job, with the reason.
    Reject,
    /// Open all gates of the job in an emergency.
    BreakGlass,
    /// Confirm, as another person, that an emergency was looked at.
    Review,
}

impl JobGateAction {
    /// The last segment of its address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::BreakGlass => "break_glass",
            Self::Review => "review",
        }
    }
}

/// Details of an approval or rejection.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobGateRequest {
    pub reason: Option<String>,
    /// For a decision: `approval.subject` of the job as it was seen. The decision is refused if the job brings something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub seen: Option<Digest>,
    /// Refused unless empty: the server knows the groups of the caller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// Which approvals to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ApprovalListQuery {
    /// Only of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only of this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Only rollouts that this person pushed or asked for; upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Only those whose last change is at this time or later: `2026-11-30T12:00:00Z`, `2026-11-30`, or `24h` and `7d` before now.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<TimeBound>,
    /// Only those whose last change is before this time.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<TimeBound>,
    /// How many entries; 50 by default, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// A job or a rollout that is waiting for approval.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PendingApproval {
    Job(Box<JobApproval>),
    Rollout(Box<RolloutView>),
}
