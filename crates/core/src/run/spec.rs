//! What a run is of: a workflow, a commit, an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shipway_workflow::report::ReportPaths;

use crate::{
    forge::PullRequestOrigin,
    gate::EnvironmentRules,
    ids::{CommitId, RunId, RunUid},
    release::{Commit, WorkflowFile},
    repository::ServiceLocation,
    service::{RunOrder, RunPurpose},
    source_repository::SourceRepository,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    pub id: RunId,
    /// Its files belong to it by this; none: nothing of it is kept (`shipway run`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<RunUid>,
    pub purpose: RunPurpose,
    pub workflow: WorkflowFile,
    pub commit: Commit,
    /// The full name of the ref: `refs/heads/main`.
    pub reference: String,
    /// The commit before, for a push.
    pub before: Option<CommitId>,
    /// `push`, `workflow_dispatch`, `deployment`.
    pub event: String,
    /// The inputs given by hand.
    pub inputs: BTreeMap<String, String>,
    /// The event as its sender described it; made up from the rest when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<serde_json::Value>,
    /// The `vars` context.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
    /// `github.actor`; by default the person who started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(default, skip_serializing_if = "ReportPaths::is_default")]
    pub reports: ReportPaths,
    /// How much of the lines must be covered, in hundredths of a percent, where a job reports coverage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_min: Option<u32>,
    /// The environments that are known, with what must hold before a job goes there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentRules>,
    /// More of `github.event` than what all events have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_payload: Option<serde_json::Value>,
    /// The repository on a forge that the commit comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<SourceRepository>,
    /// `github.event.repository.default_branch`; `main` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// Where the service is, if not at the root of the repository of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<ServiceLocation>,
}

impl RunSpec {
    /// The run that a service ordered.
    #[must_use]
    pub fn from_order(id: RunId, uid: RunUid, order: RunOrder) -> Self {
        let (payload, event_payload) = match &order.purpose {
            RunPurpose::PullRequest { .. } => (order.event_payload, None),
            _ => (None, order.event_payload),
        };
        Self {
            id,
            uid: Some(uid),
            purpose: order.purpose,
            workflow: order.workflow,
            commit: order.commit,
            reference: order.reference,
            before: order.before,
            event: order.event,
            inputs: order.inputs,
            payload,
            vars: BTreeMap::new(),
            actor: None,
            reports: order.reports.paths,
            coverage_min: order.reports.minimum,
            environments: order.environments,
            event_payload,
            repository: order.repository,
            default_branch: order.default_branch,
            location: order.location,
        }
    }

    /// Whether strangers may have written what it runs: it gets no secrets.
    #[must_use]
    pub const fn is_from_fork(&self) -> bool {
        let RunPurpose::PullRequest { origin, .. } = &self.purpose else {
            return false;
        };
        matches!(origin, PullRequestOrigin::Fork)
    }

    /// Where the service is.
    #[must_use]
    pub fn location(&self) -> ServiceLocation {
        let root = || ServiceLocation::root(self.id.service.clone());
        self.location.clone().unwrap_or_else(root)
    }

    /// The ref without `refs/heads/`, `refs/tags/` or `refs/pull/`.
    #[must_use]
    pub fn ref_name(&self) -> &str {
        let short = ["refs/heads/", "refs/tags/", "refs/pull/"]
            .into_iter()
            .find_map(|prefix| self.reference.strip_prefix(prefix));
        short.unwrap_or(&self.reference)
    }
}
