//! Rollouts and the actions on them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{
    DeployOutcome, Page, PageQuery, RolloutAction, RolloutActionRequest, RolloutListQuery,
};
use shipway_core::{
    access::{Resource, Verb, VisibleServices},
    ids::{RolloutId, RolloutNumber, ServiceName},
    rollout::{AbortCause, RollbackCause, RolloutInput, RolloutState, RolloutView},
    service::{self, RetryRequest},
};
use shipway_engine::{Clock, RowFacets, RowFilter, RowQuery, RowScope, Store, StoreError};

use super::{
    ApiError, Caller,
    approvals::verified_groups,
    deploy_outcome::{NO_REASON, send_request},
    json_body::OptionalJson,
    lists::{ListConditions, conditional_rows, listed_resource, read_page, status_text},
};
use crate::{
    capabilities::{ReleaseObservations, ServiceRequests},
    delivery_engines::DeliveryEngines,
    read_models::{release, rollout_view},
};

/// Rollouts, most recently changed first.
#[utoipa::path(get, path = "/api/v1/rollouts", operation_id = "list_rollouts", params(RolloutListQuery), responses((status = 200, description = "A page of rollouts", body = Value)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    Query(filter): Query<RolloutListQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(filter.service.as_deref()))?;
    Ok(Json(
        read_rollouts(&*store, &caller.visible_services(), clock.now(), &filter).await?,
    ))
}

/// A page of the list of rollouts.
pub(crate) async fn read_rollouts(
    store: &dyn Store,
    visible: &VisibleServices,
    now: Timestamp,
    filter: &RolloutListQuery,
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
            environment: filter.environment.as_deref(),
            person: filter.person.as_deref(),
            branch: None,
        },
        since: filter.since,
        until: filter.until,
    };
    let rows = conditional_rows(store, now, "rollout", conditions).await?;
    read_page(store, rows, &query).await
}

/// One rollout: its plan and current action, the traffic of each release, the evidence, its history.
#[utoipa::path(get, path = "/api/v1/rollouts/{service}/{number}", operation_id = "show_rollout", params(("service" = String, Path), ("number" = String, Path, description = "`7` or `ro7`")),
    responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(engines): State<Arc<DeliveryEngines>>,
    State(observations): State<ReleaseObservations>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<RolloutView>, ApiError> {
    let id = id(&service, &number)?;
    caller.require(Verb::Read, &Resource::Rollout(id.clone()))?;
    Ok(Json(
        rollout_view(&engines, &observations.live_evidence, &id).await?,
    ))
}

/// The rollout as the object of an action. One that doesn't exist belongs to all environments of its service.
pub(super) fn controlled_rollout(id: &RolloutId, rollout: Option<&RolloutState>) -> Resource {
    let spec = rollout.and_then(|state| state.0.as_ref());
    match spec {
        Some(rollout) => Resource::RolloutControl {
            rollout: id.clone(),
            environment: rollout.spec.environment.name.clone(),
        },
        None => Resource::Rollout(id.clone()),
    }
}

/// Acts on a rollout. Idempotent; an action that is no longer possible is refused with the current state. Returns the rollout, or
/// for a retry with the outcome of its deploy.
#[utoipa::path(post, path = "/api/v1/rollouts/{service}/{number}/{verb}", operation_id = "act_on_rollout",
    params(("service" = String, Path), ("number" = String, Path), ("verb" = RolloutAction, Path)), request_body = RolloutActionRequest,
    responses((status = 200, body = Value), (status = 403, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn act(
    State(requests): State<ServiceRequests>,
    State(observations): State<ReleaseObservations>,
    Path((service, number, action)): Path<(String, String, RolloutAction)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<RolloutActionRequest>,
) -> Result<Response, ApiError> {
    let id = id(&service, &number)?;
    let rollout = requests.engines.rollout(&id).await;
    caller.require(
        action_verb(action),
        &controlled_rollout(&id, rollout.as_deref()),
    )?;
    let reason = body.reason.clone().unwrap_or_else(|| NO_REASON.to_owned());
    let input = match action {
        RolloutAction::Approve => RolloutInput::Approve {
            groups: verified_groups(&caller, &body.groups)?,
            seen: body.seen_subject(),
            comment: body.reason,
        },
        RolloutAction::Reject => RolloutInput::Reject {
            groups: verified_groups(&caller, &body.groups)?,
            seen: body.seen_subject(),
            reason,
        },
        RolloutAction::BreakGlass => RolloutInput::BreakGlass {
            groups: verified_groups(&caller, &body.groups)?,
            seen: body.seen_subject(),
            reason: body.reason.unwrap_or_default(),
        },
        RolloutAction::Review => RolloutInput::ReviewBreakGlass {
            comment: body.reason,
        },
        RolloutAction::Pause => RolloutInput::Pause { reason },
        RolloutAction::Resume => RolloutInput::Resume,
        RolloutAction::Promote => RolloutInput::Promote { reason },
        RolloutAction::Abort => RolloutInput::Abort {
            cause: AbortCause::Person,
            reason,
        },
        RolloutAction::Retry => {
            let view = rollout_view(&requests.engines, &observations.live_evidence, &id).await?;
            return Ok(retry(&requests, view, body.reason, &caller)
                .await?
                .into_response());
        }
    };
    let before = rollout_view(&requests.engines, &observations.live_evidence, &id).await?;
    if matches!(
        action,
        RolloutAction::Approve | RolloutAction::Reject | RolloutAction::BreakGlass
    ) {
        refuse_superseded(&*requests.store, &before).await?;
    }
    requests
        .engines
        .rollouts
        .send(&id.stream(), input, caller.actor())
        .await?;
    Ok(
        Json(rollout_view(&requests.engines, &observations.live_evidence, &id).await?)
            .into_response(),
    )
}

/// Refuses a decision about a rollout that another one has replaced, and names that.
pub(super) async fn refuse_superseded(
    store: &dyn Store,
    view: &RolloutView,
) -> Result<(), ApiError> {
    let turned = view.rollback_start.as_ref().map(|start| start.cause);
    if turned != Some(RollbackCause::Superseded) {
        return Ok(());
    }
    let id = &view.id;
    let rows = RowQuery {
        service: Some(id.service.as_str()),
        filter: Some(RowFilter::Equals {
            path: "environment",
            value: view.environment.as_str(),
        }),
        ..RowQuery::new("rollout")
    };
    let rows = store.rows_of_all_pages(rows).await?;
    let numbers = rows.iter().filter_map(|row| {
        let number = row.key.rsplit_once('/')?.1.parse::<u32>().ok()?;
        Some(RolloutNumber(number))
    });
    let next = numbers.filter(|number| *number > id.number).min();
    let by = match next {
        Some(number) => {
            let service = id.service.clone();
            let next = RolloutId { service, number };
            format!("rollout {next}: decide about that one, shipway approve {next}")
        }
        None => "a newer release, whose rollout starts next: shipway approve".to_owned(),
    };
    let why = format!("{id} was superseded by {by}");
    Err(ApiError::conflict(why).with_type("superseded"))
}

const fn action_verb(action: RolloutAction) -> Verb {
    match action {
        RolloutAction::Approve | RolloutAction::BreakGlass | RolloutAction::Review => Verb::Approve,
        RolloutAction::Reject => Verb::Reject,
        RolloutAction::Pause => Verb::Pause,
        RolloutAction::Resume => Verb::Resume,
        RolloutAction::Promote => Verb::Promote,
        RolloutAction::Abort => Verb::Abort,
        RolloutAction::Retry => Verb::Retry,
    }
}

async fn retry(
    requests: &ServiceRequests,
    view: RolloutView,
    reason: Option<String>,
    caller: &Caller,
) -> Result<Json<DeployOutcome>, ApiError> {
    let id = &view.id;
    if view.ended.is_none() {
        let status = view.status;
        return Err(ApiError::conflict(format!(
            "{id} can't be retried before it has ended: it is {status}; follow it: shipway watch {id}"
        )));
    }
    let release = release(&*requests.store, &id.service, view.release)
        .await
        .ok_or_else(|| ApiError::missing(format!("release {} is not in the log", view.release)))?;
    let input = service::ServiceInput::Retry(Box::new(RetryRequest {
        rollout: id.number,
        kind: view.kind,
        release,
        environment: view.environment.clone(),
        why: reason.unwrap_or_else(|| format!("retry of {id}")),
    }));
    send_request(requests, &id.service, input, caller)
        .await
        .map(Json)
}

pub(super) fn id(service: &str, number: &str) -> Result<RolloutId, ApiError> {
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    Ok(RolloutId {
        service: service
            .parse::<ServiceName>()
            .map_err(|error| bad(&error))?,
        number: number
            .parse::<RolloutNumber>()
            .map_err(|error| bad(&error))?,
    })
}
