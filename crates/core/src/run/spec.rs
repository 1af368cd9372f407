//! What a run is of: a workflow, a commit, an event; and how expressions see that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use shipway_workflow::{
    expr::ExprValue,
    graph::RunContexts,
    model::{InputError, Workflow},
    report::ReportPaths,
};

use super::{event_refs::pull_request_branches, state::Run};
use crate::{
    gate::EnvironmentRules,
    ids::{CommitId, RunId, RunUid},
    release::{Commit, WorkflowFile},
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
}

/// The id of all repositories and people: Shipway knows none, and scripts fail on a variable that is not set.
const UNKNOWN_ID: &str = "0";

/// Days that GitHub keeps artifacts by default.
const RETENTION_DAYS: &str = "90";

impl RunSpec {
    /// The run that a service ordered.
    #[must_use]
    pub fn from_order(id: RunId, uid: RunUid, order: RunOrder) -> Self {
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
            payload: None,
            vars: BTreeMap::new(),
            actor: None,
            reports: order.reports.paths,
            coverage_min: order.reports.minimum,
            environments: order.environments,
            event_payload: order.event_payload,
            repository: order.repository,
            default_branch: order.default_branch,
        }
    }

    /// The ref without `refs/heads/`, `refs/tags/` or `refs/pull/`.
    #[must_use]
    pub fn ref_name(&self) -> &str {
        let short = ["refs/heads/", "refs/tags/", "refs/pull/"]
            .into_iter()
            .find_map(|prefix| self.reference.strip_prefix(prefix));
        short.unwrap_or(&self.reference)
    }

    /// What expressions of jobs see of it, in the attempt that `run` is at.
    pub(super) fn ground(&self, workflow: &Workflow, run: &Run) -> Result<RunContexts, InputError> {
        let vars = self
            .vars
            .iter()
            .map(|(name, value)| (name.as_str(), ExprValue::from(value.as_str())));
        Ok(RunContexts {
            github: self.github(workflow, run),
            inputs: self.typed_inputs(workflow)?,
            vars: ExprValue::object(vars),
        })
    }

    fn typed_inputs(&self, workflow: &Workflow) -> Result<ExprValue, InputError> {
        match &workflow.on.workflow_dispatch {
            Some(dispatch) if self.event == "workflow_dispatch" => dispatch.inputs(
                self.inputs
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            ),
            _ => Ok(ExprValue::object(self.inputs.iter().map(
                |(name, value)| (name.as_str(), ExprValue::from(value.as_str())),
            ))),
        }
    }

    /// The `github` context, but for what only a job or its worker knows.
    fn github(&self, workflow: &Workflow, run: &Run) -> ExprValue {
        let actor = self.actor.as_deref().unwrap_or(&run.by);
        let own = || SourceRepository::on_github(format!("shipway/{}", self.id.service));
        let repository = self.repository.clone().unwrap_or_else(own);
        let payload = self.complete_payload(&repository, actor);
        let (base_ref, head_ref) = pull_request_branches(&self.event, &payload);
        let name = workflow.name.as_deref().unwrap_or(&self.workflow.path);
        let ref_type = match self.reference.starts_with("refs/tags/") {
            true => "tag",
            false => "branch",
        };
        let (path, repository_name) = (&self.workflow.path, &repository.name);
        let workflow_ref = format!("{repository_name}/{path}@{}", self.reference);
        let number = self.id.number.0.to_string();
        let id = |pointer: &str| {
            let id = payload.pointer(pointer).filter(|id| !id.is_object());
            id.map_or_else(
                || UNKNOWN_ID.to_owned(),
                |id| ExprValue::from(id).to_text().to_string(),
            )
        };
        let mut entries = vec![
            ("event_name", self.event.clone()),
            ("ref", self.reference.clone()),
            ("ref_name", self.ref_name().to_owned()),
            ("ref_type", ref_type.to_owned()),
            ("base_ref", base_ref.to_owned()),
            ("head_ref", head_ref.to_owned()),
            ("sha", self.commit.id.as_str().to_owned()),
            ("repository", repository_name.clone()),
            ("repository_id", id("/repository/id")),
            ("repository_owner", repository.owner().to_owned()),
            ("repository_owner_id", id("/repository/owner/id")),
            ("actor", actor.to_owned()),
            ("actor_id", id("/sender/id")),
            (
                "triggering_actor",
                run.rerun_by.as_deref().unwrap_or(actor).to_owned(),
            ),
            ("run_id", number.clone()),
            ("run_number", number),
            ("run_attempt", run.attempt.to_string()),
            ("retention_days", RETENTION_DAYS.to_owned()),
            ("workflow", name.to_owned()),
            ("workflow_ref", workflow_ref),
            ("workflow_sha", self.commit.id.as_str().to_owned()),
            ("api_url", repository.api_url()),
            ("graphql_url", repository.graphql_url()),
        ];
        // Without a repository the worker sets the address of Shipway's own server, if there is one.
        if self.repository.is_some() {
            entries.push(("server_url", repository.server_url.clone()));
        }
        let texts = entries.into_iter();
        let texts = texts.map(|(name, text)| (name, ExprValue::from(text)));
        ExprValue::object(texts.chain([
            ("event", ExprValue::from(&payload)),
            ("ref_protected", ExprValue::Bool(false)),
        ]))
    }

    /// `github.event`: what the sender described, with the parts that every event has.
    fn complete_payload(&self, repository: &SourceRepository, actor: &str) -> serde_json::Value {
        let made_up = self.made_up_payload(repository, actor);
        let Some(mut payload) = self.payload.clone() else {
            return made_up;
        };
        let is_dispatch = self.event == "workflow_dispatch";
        for key in ["repository", "sender", "inputs"] {
            let is_used = key != "inputs" || is_dispatch;
            if is_used && let Some(value) = made_up.get(key) {
                let is_missing = payload.get(key).is_none();
                // Inputs of the payload are among the run's.
                if is_missing || key == "inputs" {
                    payload[key] = value.clone();
                }
            }
        }
        payload
    }

    fn made_up_payload(&self, repository: &SourceRepository, actor: &str) -> serde_json::Value {
        let (author, email) = self
            .commit
            .author
            .split_once(" <")
            .unwrap_or((&self.commit.author, ""));
        let id = self.commit.id.as_str();
        let commit = json!({
            "id": id,
            "message": self.commit.subject,
            "timestamp": self.commit.at.to_string(),
            "author": { "name": author, "email": email.trim_end_matches('>') },
        });
        let name_alone = repository.name.rsplit('/').next().unwrap_or_default();
        let mut payload = json!({
            "ref": self.reference,
            "repository": {
                "name": name_alone,
                "full_name": repository.name,
                "owner": { "login": repository.owner(), "name": repository.owner() },
                "html_url": format!("{}/{}", repository.server_url, repository.name),
                "default_branch": self.default_branch.as_deref().unwrap_or("main"),
            },
            "sender": { "login": actor },
        });
        if self.event == "push" {
            let none = "0".repeat(id.len());
            payload["before"] = json!(self.before.as_ref().map_or(none.as_str(), CommitId::as_str));
            payload["after"] = json!(id);
            payload["created"] = json!(self.before.is_none());
            payload["deleted"] = json!(false);
            payload["pusher"] = json!({ "name": actor });
            payload["commits"] = json!([commit]);
            payload["head_commit"] = commit;
        } else if let Some(serde_json::Value::Object(event_payload)) = &self.event_payload {
            for (name, value) in event_payload {
                payload[name] = value.clone();
            }
        } else {
            payload["inputs"] = json!(self.inputs);
        }
        payload
    }
}
