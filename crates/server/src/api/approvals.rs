//! Jobs and rollouts that wait for people: listed, and answered.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shipway_api::{JobApproval, JobGateAction, JobGateRequest, Page, PageQuery, PendingApproval};
use shipway_core::{
    access::{Resource, Verb},
    rollout::{self, RolloutView},
    run::{GateInput, RunInput, RunView},
};
use shipway_engine::RowScope;
use shipway_workflow::job::JobKey;

use super::{
    ApiError, Caller,
    json_body::OptionalJson,
    runs,
    services::{LIMIT_MAX, read_page},
};
use crate::{app::App, read_models::run_view};

/// Approves or rejects a job that waits at the gates of its environment. Answers with the run.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}",
    params(("service" = String, Path), ("number" = String, Path), ("job" = String, Path, description = "Its key, such as `deploy`"), ("verb" = JobGateAction, Path)), request_body = JobGateRequest,
    responses((status = 200, body = Value), (status = 403, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn act_on_job_gate(
    State(app): State<Arc<App>>,
    Path((service, number, job, action)): Path<(String, String, String, JobGateAction)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<JobGateRequest>,
) -> Result<Json<RunView>, ApiError> {
    let id = runs::id(&service, &number)?;
    let key: JobKey = job
        .parse()
        .map_err(|error| ApiError::bad_request(format!("{error}")))?;
    let verb = match action {
        JobGateAction::Approve => Verb::Approve,
        JobGateAction::Reject => Verb::Reject,
    };
    caller.require(verb, &Resource::Run(id.clone()))?;
    run_view(&app, &id).await?;
    let groups = verified_groups(&caller, &body.groups)?;
    let input = match action {
        JobGateAction::Approve => GateInput::Approve {
            key,
            groups,
            comment: body.reason,
        },
        JobGateAction::Reject => GateInput::Reject {
            key,
            groups,
            reason: body.reason.unwrap_or_else(|| "no reason given".to_owned()),
        },
    };
    app.runs
        .send(&id.stream(), RunInput::Gate(input), caller.actor())
        .await?;
    Ok(Json(run_view(&app, &id).await?))
}

/// The groups of the caller's principal. This server knows no groups yet, and does not accept the ones that a caller claims.
pub(super) fn verified_groups(
    caller: &Caller,
    claimed: &[String],
) -> Result<Vec<String>, ApiError> {
    if claimed.is_empty() {
        return Ok(caller.groups());
    }
    Err(ApiError::bad_request(format!(
        "groups can't be given in a request ({}): anyone could claim them, and this server knows no groups yet; name people in `approvals: {{ from: [...] }}`",
        claimed.join(", ")
    )))
}

/// Rollouts, and jobs of runs, that wait for people.
#[utoipa::path(get, path = "/api/v1/approvals", responses((status = 200, description = "Rollouts that wait for people; jobs that do have a `job`", body = Value)))]
pub(super) async fn approvals(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Page<PendingApproval>>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let mut items = Vec::new();
    for rollout in live_rows::<RolloutView>(&app, "rollout").await? {
        if rollout.status == rollout::RolloutStatus::Waiting {
            items.push(PendingApproval::Rollout(Box::new(rollout)));
        }
    }
    for run in live_rows::<RunView>(&app, "run").await? {
        for job in run.jobs {
            let Some(approval) = job.approval else {
                continue;
            };
            items.push(PendingApproval::Job(Box::new(JobApproval {
                id: run.id.clone(),
                job: job.key,
                environment: approval.environment.clone(),
                commit: run.commit.clone(),
                subject: run.subject.clone(),
                approval,
                waits_for: job.waits_for,
            })));
        }
    }
    Ok(Json(Page { items, next: None }))
}

/// All rows in progress of a kind; unreadable rows are skipped.
async fn live_rows<T: DeserializeOwned>(app: &App, kind: &str) -> Result<Vec<T>, ApiError> {
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let query = PageQuery {
            limit: Some(LIMIT_MAX),
            cursor,
        };
        let page: Page<Value> = read_page(app, kind, None, RowScope::Live, &query).await?;
        let readable = page.items.into_iter();
        rows.extend(readable.filter_map(|row| serde_json::from_value(row).ok()));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}
