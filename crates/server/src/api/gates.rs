//! Jobs and rollouts that wait for people: listed, and answered.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_core::{
    rollout::{self, RolloutView},
    run::{GateInput, RunInput, RunView},
};
use shipway_workflow::job::JobKey;
use utoipa::ToSchema;

use super::{Caller, Problem, json_body::OptionalJson, runs, services::Page};
use crate::{app::App, read_models::run_view};

/// An answer to a gate.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    /// Why.
    reason: Option<String>,
    /// Refused when any are given: this server knows no groups yet.
    #[serde(default)]
    groups: Vec<String>,
}

/// What can be said to a job that waits.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    /// It may go there.
    Approve,
    /// It fails, with the reason.
    Reject,
}

/// Says yes or no to a job that waits at the gates of its environment. Answers with the run.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}",
    params(("service" = String, Path), ("number" = String, Path), ("job" = String, Path, description = "Its key, such as `deploy`"), ("verb" = Verb, Path)), request_body = Answer,
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn answer(
    State(app): State<Arc<App>>,
    Path((service, number, job, verb)): Path<(String, String, String, Verb)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<Answer>,
) -> Result<Json<RunView>, Problem> {
    let id = runs::id(&service, &number)?;
    let key: JobKey = job
        .parse()
        .map_err(|error| Problem::bad_request(format!("{error}")))?;
    run_view(&app, &id).await?;
    let said = body;
    let groups = known_groups(&said.groups)?;
    let input = match verb {
        Verb::Approve => GateInput::Approve {
            key,
            groups,
            comment: said.reason,
        },
        Verb::Reject => GateInput::Reject {
            key,
            groups,
            reason: said.reason.unwrap_or_else(|| "no reason given".to_owned()),
        },
    };
    app.runs
        .send(&id.stream(), RunInput::Gate(input), caller.actor())
        .await?;
    Ok(Json(run_view(&app, &id).await?))
}

/// The groups of the person who asks. This server knows none yet, and whoever asks is not believed about their own.
pub(super) fn known_groups(claimed: &[String]) -> Result<Vec<String>, Problem> {
    if claimed.is_empty() {
        return Ok(Vec::new());
    }
    Err(Problem::bad_request(format!(
        "groups can't be given in a request ({}): anyone could claim them, and this server knows no groups yet; name people in `approvals: {{ from: [...] }}`",
        claimed.join(", ")
    )))
}

/// Rollouts, and jobs of runs, that wait for people.
#[utoipa::path(get, path = "/api/v1/approvals", responses((status = 200, description = "Rollouts that wait for people; jobs that do have a `job`", body = Value)))]
pub(super) async fn approvals(State(app): State<Arc<App>>) -> Result<Json<Page<Value>>, Problem> {
    let rollouts: Page<Value> = Page::of(&app, "rollout", None, true, None, Some(200)).await?;
    let mut items: Vec<Value> = rollouts
        .items
        .into_iter()
        .filter(|doc| {
            serde_json::from_value::<RolloutView>(doc.clone())
                .is_ok_and(|view| view.status == rollout::RolloutStatus::Waiting)
        })
        .collect();
    let runs: Page<Value> = Page::of(&app, "run", None, true, None, Some(200)).await?;
    for doc in runs.items {
        let Ok(view) = serde_json::from_value::<RunView>(doc) else {
            continue;
        };
        for job in &view.jobs {
            if let Some(approval) = &job.approval {
                items.push(json!({
                    "id": view.id, "job": job.key, "environment": approval.environment, "commit": view.commit,
                    "subject": view.subject, "approval": approval, "waits_for": job.waits_for,
                }));
            }
        }
    }
    Ok(Json(Page { items, next: None }))
}
