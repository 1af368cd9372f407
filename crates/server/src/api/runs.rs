//! Runs: read, cancelled, and run again.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::Value;
use shipway_api::RunDetails;
use shipway_core::{
    ids::{RunId, RunNumber, ServiceName},
    run::{FromStep, Input, Left, RerunSelection, RunView},
};
use shipway_drivers::jobs::{AttemptProgress, read_attempt_progress};
use shipway_workflow::job::ParseJobKeyError;
use utoipa::{IntoParams, ToSchema};

use super::{Caller, Problem, json_body::OptionalJson, services::Page};
use crate::{
    app::App,
    read_models::{run_details, run_view},
};

/// Which runs to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only of this service.
    service: Option<String>,
    /// Only those that are not over.
    #[serde(default)]
    live: bool,
    /// At most so many; 50 when not said, 200 at most.
    limit: Option<u32>,
    /// Where the page before ended.
    cursor: Option<u64>,
}

/// Why a run is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    /// Why.
    reason: Option<String>,
}

/// Runs, the newest change first.
#[utoipa::path(get, path = "/api/v1/runs", params(Filter), responses((status = 200, description = "A page of runs", body = Value)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Value>>, Problem> {
    Page::of(
        &app,
        "run",
        filter.service.as_deref(),
        filter.live,
        filter.cursor,
        filter.limit,
    )
    .await
    .map(Json)
}

/// One run: its jobs and steps with how they ended.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}", params(("service" = String, Path), ("number" = String, Path, description = "`12` or `r12`")),
    responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Result<Json<RunDetails>, Problem> {
    Ok(Json(run_details(&app, &id(&service, &number)?).await?))
}

/// Cancels a run. What is under way gets the time to clean up.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/cancel", params(("service" = String, Path), ("number" = String, Path)), request_body = Cancel,
    responses((status = 200, body = Value), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<Cancel>,
) -> Result<Json<RunView>, Problem> {
    let id = id(&service, &number)?;
    run_view(&app, &id).await?;
    let reason = body
        .reason
        .unwrap_or_else(|| format!("cancelled by {}", caller.name));
    app.runs
        .send(&id.stream(), Input::Cancel { reason }, caller.actor())
        .await?;
    Ok(Json(run_view(&app, &id).await?))
}

/// Which jobs of a run are run again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rerun {
    /// Only those that failed or were cancelled, and those after them.
    #[serde(default)]
    failed: bool,
    /// Only this job, by its key, and those after it.
    job: Option<String>,
    /// Failed jobs go on in the workspace of their last attempt, at the step that failed; what was done before is not run again.
    /// Without `job` as with `failed`.
    #[serde(default)]
    from_failed_step: bool,
    /// The same, at the step of this id; of one job only.
    step: Option<String>,
}

/// Runs jobs of a run again that is over: all of them, the failed ones or one; those after them as well. Green jobs that are not
/// run again keep their results and outputs. With `from_failed_step` or `step` a job goes on in the workspace that it failed in.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/rerun", params(("service" = String, Path), ("number" = String, Path)), request_body = Rerun,
    responses((status = 200, body = Value), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn rerun(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<Rerun>,
) -> Result<Json<RunView>, Problem> {
    let id = id(&service, &number)?;
    run_view(&app, &id).await?;
    let Rerun {
        failed,
        job,
        from_failed_step,
        step,
    } = body;
    let goes_on = from_failed_step || step.is_some();
    let again = match job {
        Some(_) if failed => {
            let why = "`failed` and `job` exclude each other: give one of them";
            return Err(Problem::bad_request(why.to_owned()));
        }
        Some(key) => RerunSelection::Job(
            key.parse()
                .map_err(|error: ParseJobKeyError| Problem::bad_request(error.to_string()))?,
        ),
        None if failed || goes_on => RerunSelection::Failed,
        None => RerunSelection::All,
    };
    let from = match goes_on {
        true => Some(from_step(&app, &id, &again, step).await?),
        false => None,
    };
    let input = Input::RunAgain { again, from };
    app.runs.send(&id.stream(), input, caller.actor()).await?;
    Ok(Json(run_view(&app, &id).await?))
}

/// What is left of the jobs that would go on.
async fn from_step(
    app: &App,
    id: &RunId,
    again: &RerunSelection,
    step: Option<String>,
) -> Result<FromStep, Problem> {
    let state = app.runs.state(&id.stream()).await?;
    let run = state.as_deref().and_then(|state| state.0.as_deref());
    let mut left = BTreeMap::new();
    for (key, attempt) in run.map(|run| run.may_go_on(again)).unwrap_or_default() {
        let found = run.and_then(|run| run.cell(&key));
        let Some((found, _)) = found else { continue };
        let steps = found.workflow.jobs[found.job].steps.clone();
        let folder = app.jobs.attempt_folder(id, &key, attempt);
        let read =
            tokio::task::spawn_blocking(move || read_attempt_progress(&folder, &steps)).await;
        left.insert(
            key,
            match read {
                Ok(Ok(AttemptProgress { failed, steps })) => Left::Workspace { failed, steps },
                Ok(Err(lost)) => Left::Nothing(lost.to_string()),
                Err(error) => Left::Nothing(error.to_string()),
            },
        );
    }
    Ok(FromStep { step, left })
}

pub(super) fn id(service: &str, number: &str) -> Result<RunId, Problem> {
    let bad = |error: &dyn std::fmt::Display| Problem::bad_request(error.to_string());
    Ok(RunId {
        service: service
            .parse::<ServiceName>()
            .map_err(|error| bad(&error))?,
        number: number.parse::<RunNumber>().map_err(|error| bad(&error))?,
    })
}
