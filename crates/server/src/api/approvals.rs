//! Jobs and rollouts that wait for people: listed, and answered.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{ApprovalListQuery, JobGateAction, JobGateRequest, Page, PageQuery};
use shipway_core::{
    access::{Resource, Verb, VisibleServices},
    rollout::ROLLOUT_APPROVAL_ROWS,
    run::{GateInput, JOB_APPROVAL_ROWS, RunInput, RunView},
};
use shipway_engine::{Clock, RowFacets, RowScope, Store, StoreError};
use shipway_workflow::job::JobKey;

use super::{
    ApiError, Caller,
    json_body::OptionalJson,
    lists::{ListConditions, conditional_rows, listed_resource, read_joined_page},
    runs,
};
use crate::{delivery_engines::DeliveryEngines, read_models::run_view};

/// Approves or rejects a job that is waiting for approval, opens its gates in an emergency, or confirms the review of that. Returns the run.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}", operation_id = "act_on_job_gate",
    params(("service" = String, Path), ("number" = String, Path), ("job" = String, Path, description = "Its key, such as `deploy`"), ("verb" = JobGateAction, Path)), request_body = JobGateRequest,
    responses((status = 200, body = Value), (status = 403, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn act_on_job_gate(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    Path((service, number, job, action)): Path<(String, String, String, JobGateAction)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<JobGateRequest>,
) -> Result<Json<RunView>, ApiError> {
    let id = runs::id(&service, &number)?;
    let key: JobKey = job
        .parse()
        .map_err(|error| ApiError::bad_request(format!("{error}")))?;
    let verb = match action {
        JobGateAction::Approve | JobGateAction::BreakGlass | JobGateAction::Review => Verb::Approve,
        JobGateAction::Reject => Verb::Reject,
    };
    let run = run_view(&*store, &id).await;
    let jobs = run.as_ref().map_or(&[][..], |run| &run.jobs);
    let job = jobs.iter().find(|job| job.key == key.to_string());
    let environment = job.and_then(|job| job.environment.as_deref()?.parse().ok());
    let resource = Resource::JobApproval {
        run: id.clone(),
        environment,
    };
    caller.require(verb, &resource)?;
    run?;
    let groups = verified_groups(&caller, &body.groups)?;
    let input = match action {
        JobGateAction::Approve => GateInput::Approve {
            key,
            groups,
            comment: body.reason,
            seen: body.seen,
        },
        JobGateAction::Reject => GateInput::Reject {
            key,
            groups,
            reason: body.reason.unwrap_or_else(|| "no reason given".to_owned()),
            seen: body.seen,
        },
        JobGateAction::BreakGlass => GateInput::BreakGlass {
            key,
            groups,
            reason: body.reason.unwrap_or_default(),
        },
        JobGateAction::Review => GateInput::ReviewBreakGlass {
            key,
            comment: body.reason,
        },
    };
    engines
        .runs
        .send(&id.stream(), RunInput::Gate(input), caller.actor())
        .await?;
    Ok(Json(run_view(&*store, &id).await?))
}

/// The groups of the caller's principal. Groups that a request claims are refused.
pub(super) fn verified_groups(
    caller: &Caller,
    claimed: &[String],
) -> Result<Vec<String>, ApiError> {
    if claimed.is_empty() {
        return Ok(caller.groups());
    }
    Err(ApiError::bad_request(format!(
        "groups can't be passed in a request ({}): anyone could claim them; an admin puts users into groups with `shipway user set NAME --add-group GROUP`",
        claimed.join(", ")
    )))
}

/// Rollouts, and after them jobs of runs, that are waiting for approval, or for the review of a break-glass.
#[utoipa::path(get, path = "/api/v1/approvals", operation_id = "list_approvals", params(ApprovalListQuery), responses((status = 200, description = "Rollouts and jobs that are waiting for approval; entries of jobs have a `job`. A rollout with a `broken_glass` waits for its review", body = Value)))]
pub(super) async fn approvals(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    Query(filter): Query<ApprovalListQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(filter.service.as_deref()))?;
    Ok(Json(
        read_approvals(&*store, &caller.visible_services(), clock.now(), &filter).await?,
    ))
}

/// A page of the list of pending approvals.
pub(crate) async fn read_approvals(
    store: &dyn Store,
    visible: &VisibleServices,
    now: Timestamp,
    filter: &ApprovalListQuery,
) -> Result<Page<Value>, StoreError> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let conditions = ListConditions {
        service: filter.service.as_deref(),
        visible: visible.names(),
        scope: RowScope::Live,
        facets: RowFacets {
            environment: filter.environment.as_deref(),
            person: filter.person.as_deref(),
            ..RowFacets::default()
        },
        since: filter.since,
        until: filter.until,
    };
    let rollouts = conditional_rows(store, now, ROLLOUT_APPROVAL_ROWS, conditions).await?;
    let jobs = conditional_rows(store, now, JOB_APPROVAL_ROWS, conditions).await?;
    read_joined_page(store, [rollouts, jobs], &query).await
}
