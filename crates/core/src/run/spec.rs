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

use super::{gate::EnvironmentRules, state::Run};
use crate::{
    ids::{CommitId, RunId, RunUid},
    release::{Commit, WorkflowFile},
    service::{RunOrder, RunPurpose},
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
}

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
        }
    }

    /// The ref without `refs/heads/` or `refs/tags/`.
    #[must_use]
    pub fn ref_name(&self) -> &str {
        let short = ["refs/heads/", "refs/tags/"]
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
        let repository = format!("shipway/{}", self.id.service);
        let name = workflow.name.as_deref().unwrap_or(&self.workflow.path);
        let text = |text: &str| ExprValue::from(text);
        ExprValue::object([
            ("event_name", text(&self.event)),
            (
                "event",
                ExprValue::from(
                    &self
                        .payload
                        .clone()
                        .unwrap_or_else(|| self.made_up_payload(&repository, actor)),
                ),
            ),
            ("ref", text(&self.reference)),
            ("ref_name", text(self.ref_name())),
            (
                "ref_type",
                text(if self.reference.starts_with("refs/tags/") {
                    "tag"
                } else {
                    "branch"
                }),
            ),
            ("ref_protected", ExprValue::Bool(false)),
            ("base_ref", text("")),
            ("head_ref", text("")),
            ("sha", text(self.commit.id.as_str())),
            ("repository", text(&repository)),
            ("repository_owner", text("shipway")),
            ("actor", text(actor)),
            (
                "triggering_actor",
                text(run.rerun_by.as_deref().unwrap_or(actor)),
            ),
            ("run_id", text(&self.id.number.0.to_string())),
            ("run_number", text(&self.id.number.0.to_string())),
            ("run_attempt", text(&run.attempt.to_string())),
            ("workflow", text(name)),
            (
                "workflow_ref",
                text(&format!(
                    "{repository}/{}@{}",
                    self.workflow.path, self.reference
                )),
            ),
            ("workflow_sha", text(self.commit.id.as_str())),
        ])
    }

    fn made_up_payload(&self, repository: &str, actor: &str) -> serde_json::Value {
        let (name, email) = self
            .commit
            .author
            .split_once(" <")
            .unwrap_or((&self.commit.author, ""));
        let id = self.commit.id.as_str();
        let commit = json!({
            "id": id,
            "message": self.commit.subject,
            "timestamp": self.commit.at.to_string(),
            "author": { "name": name, "email": email.trim_end_matches('>') },
        });
        let mut payload = json!({
            "ref": self.reference,
            "repository": { "name": self.id.service.as_str(), "full_name": repository },
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
