//! Runs: read, cancelled, and run again.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{CancelRunRequest, Page, PageQuery, RerunRequest, RunDetails, RunListQuery};
use shipway_core::{
    access::{JobIdentity, Resource, Verb, VisibleServices},
    ids::{RunId, RunNumber, ServiceName},
    run::{FromStep, LeftoverState, RerunSelection, RunInput, RunView},
};
use shipway_drivers::jobs::{AttemptProgress, JobExecutor};
use shipway_engine::{Clock, RowFacets, RowScope, Store, StoreError};
use shipway_workflow::job::ParseJobKeyError;

use super::{
    ApiError, Caller,
    json_body::OptionalJson,
    lists::{ListConditions, conditional_rows, listed_resource, read_page, status_text},
};
use crate::{
    capabilities::RunFiles,
    delivery_engines::DeliveryEngines,
    read_models::{run_details, run_view},
};

/// Runs, most recently changed first.
#[utoipa::path(get, path = "/api/v1/runs", operation_id = "list_runs", params(RunListQuery), responses((status = 200, description = "A page of runs", body = Value)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    Query(filter): Query<RunListQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(filter.service.as_deref()))?;
    Ok(Json(
        read_runs(&*store, &caller.visible_services(), clock.now(), &filter).await?,
    ))
}

/// A page of the list of runs.
pub(crate) async fn read_runs(
    store: &dyn Store,
    visible: &VisibleServices,
    now: Timestamp,
    filter: &RunListQuery,
) -> Result<Page<Value>, StoreError> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let state = filter.state.as_ref().map(status_text);
    let conditions = ListConditions {
        service: filter.service.as_deref(),
        visible: visible.names(),
        scope: match filter.live {
            true => RowScope::Live,
            false => RowScope::All,
        },
        facets: RowFacets {
            state: state.as_deref(),
            branch: filter.branch.as_deref(),
            person: filter.person.as_deref(),
            environment: None,
        },
        since: filter.since,
        until: filter.until,
    };
    let rows = conditional_rows(store, now, "run", conditions).await?;
    read_page(store, rows, &query).await
}

/// One run: its jobs and steps with their results.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}", operation_id = "show_run", params(("service" = String, Path), ("number" = String, Path, description = "`12` or `r12`")),
    responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(job_executor): State<Arc<dyn JobExecutor>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<RunDetails>, ApiError> {
    let id = id(&service, &number)?;
    caller.require(Verb::Read, &Resource::Run(id.clone()))?;
    Ok(Json(run_details(&*store, &*job_executor, &id).await?))
}

/// Cancels a run. Running jobs get time to clean up.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/cancel", operation_id = "cancel_run", params(("service" = String, Path), ("number" = String, Path)), request_body = CancelRunRequest,
    responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn cancel(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<CancelRunRequest>,
) -> Result<Json<RunView>, ApiError> {
    let id = id(&service, &number)?;
    caller.require(Verb::CancelRun, &Resource::Run(id.clone()))?;
    run_view(&*store, &id).await?;
    let reason = body
        .reason
        .unwrap_or_else(|| format!("cancelled by {}", caller.name()));
    engines
        .runs
        .send(&id.stream(), RunInput::Cancel { reason }, caller.actor())
        .await?;
    Ok(Json(run_view(&*store, &id).await?))
}

/// Re-runs jobs of a finished run: all, the failed ones or one, and the jobs that need them. Successful jobs that are not re-run keep
/// their results and outputs. With `from_failed_step` or `step` a job resumes in the workspace in which it failed.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/rerun", operation_id = "rerun_run", params(("service" = String, Path), ("number" = String, Path)), request_body = RerunRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn rerun(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(files): State<RunFiles>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<RerunRequest>,
) -> Result<Json<RunView>, ApiError> {
    let id = id(&service, &number)?;
    caller.require(Verb::Rerun, &Resource::Run(id.clone()))?;
    let run = run_view(&*store, &id).await?;
    let RerunRequest {
        failed,
        job,
        from_failed_step,
        step,
    } = body;
    let goes_on = from_failed_step || step.is_some();
    let again = match job {
        Some(_) if failed => {
            let why = "`failed` and `job` exclude each other: give one of them";
            return Err(ApiError::bad_request(why.to_owned()));
        }
        Some(key) => RerunSelection::Job(
            key.parse()
                .map_err(|error: ParseJobKeyError| ApiError::bad_request(error.to_string()))?,
        ),
        None if failed || goes_on => RerunSelection::Failed,
        None => RerunSelection::All,
    };
    let from = match goes_on {
        true => Some(from_step(&engines, &*files.job_executor, &id, &again, step).await?),
        false => None,
    };
    let state = engines.runs.state(&id.stream()).await?;
    let state = state.as_ref().and_then(|state| state.0.as_deref());
    let repository = state.map_or_else(|| id.service.clone(), |it| it.spec.location().repository);
    require_run_inputs(&files, &repository, &run, &again).await?;
    let input = RunInput::Rerun { again, from };
    engines
        .runs
        .send(&id.stream(), input, caller.actor())
        .await?;
    Ok(Json(run_view(&*store, &id).await?))
}

/// Before a re-run is recorded: its commit is there, and what the jobs that are not re-run have stored stays.
async fn require_run_inputs(
    files: &RunFiles,
    repository: &ServiceName,
    run: &RunView,
    again: &RerunSelection,
) -> Result<(), ApiError> {
    let commit = match files.repositories.get(repository) {
        Some(repository) => repository.resolve(run.commit.as_str()).await.ok().flatten(),
        None => None,
    };
    if commit.is_none() {
        return Err(ApiError::conflict(format!(
            "{} can't be re-run: its commit {} is no longer in the repository; push it again",
            run.id,
            run.commit.short()
        )));
    }
    for artifact in &run.artifacts {
        let renewed = files.blobs.renew(&artifact.digest).await;
        let is_there = renewed.map_err(|error| ApiError::conflict(error.to_string()))?;
        if !is_there && *again != RerunSelection::All {
            return Err(ApiError::conflict(format!(
                "single jobs of {id} can't be re-run: the artifact {} was removed by the retention rule; re-run all jobs: shipway retry {id}",
                artifact.name,
                id = run.id
            )));
        }
    }
    Ok(())
}

/// The workspaces of the jobs that are resumed from a step.
async fn from_step(
    engines: &DeliveryEngines,
    job_executor: &dyn JobExecutor,
    id: &RunId,
    again: &RerunSelection,
    step: Option<String>,
) -> Result<FromStep, ApiError> {
    let state = engines.runs.state(&id.stream()).await?;
    let run = state.as_deref().and_then(|state| state.0.as_deref());
    let mut left = BTreeMap::new();
    for (key, attempt) in run.map(|run| run.may_go_on(again)).unwrap_or_default() {
        let found = run.and_then(|run| run.cell(&key));
        let Some((found, _)) = found else { continue };
        let steps = found.workflow.jobs[found.job].steps.clone();
        let job = JobIdentity {
            run: id.clone(),
            key: key.clone(),
            attempt,
        };
        left.insert(
            key,
            match job_executor.read_progress(&job, &steps).await {
                Ok(AttemptProgress { failed, steps }) => LeftoverState::Workspace { failed, steps },
                Err(lost) => LeftoverState::Nothing(lost.to_string()),
            },
        );
    }
    Ok(FromStep { step, left })
}

pub(super) fn id(service: &str, number: &str) -> Result<RunId, ApiError> {
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    Ok(RunId {
        service: service
            .parse::<ServiceName>()
            .map_err(|error| bad(&error))?,
        number: number.parse::<RunNumber>().map_err(|error| bad(&error))?,
    })
}
