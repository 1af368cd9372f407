//! What expressions of jobs see of a run: the contexts `github`, `inputs` and `vars`.

use serde_json::json;
use shipway_workflow::{
    expr::ExprValue,
    graph::RunContexts,
    model::{InputError, Workflow},
};

use super::{event_refs::pull_request_branches, spec::RunSpec, state::Run};
use crate::{ids::CommitId, source_repository::SourceRepository};

/// The id of all repositories and people: Shipway knows none, and scripts fail on a variable that is not set.
const UNKNOWN_ID: &str = "0";

/// Days that GitHub keeps artifacts by default.
const RETENTION_DAYS: &str = "90";

impl RunSpec {
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
        let own = || SourceRepository::on_github(format!("shipway/{}", self.location().repository));
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
