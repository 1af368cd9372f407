//! The list of all environments, and the end of a hold: automatic promotion into an environment is resumed here.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use shipway_api::{
    EnvironmentListQuery, EnvironmentStatus, Page, PageQuery, ResumeEnvironmentRequest,
    ResumedEnvironment,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::{EnvironmentName, ServiceName},
    service::{EnvironmentRow, ServiceInput},
    target::ServiceEnvironment,
};
use shipway_engine::{RowQuery, Store};

use super::{
    ApiError, Caller,
    deploy_outcome::send_request,
    json_body::OptionalJson,
    lists::{listed_resource, read_page},
    services::{parse, unknown},
};
use crate::{
    capabilities::ServiceRequests,
    environment_status::{StatusSources, environment_statuses},
};

/// Environments of all services, or of one, the newest first; `position` is the order of promotion: the stable release, its instances, the
/// traffic of each release, the measured metrics.
#[utoipa::path(get, path = "/api/v1/environments", operation_id = "list_environments", params(EnvironmentListQuery), responses((status = 200, description = "A page of environments", body = Page<EnvironmentStatus>)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    State(status): State<StatusSources>,
    Query(filter): Query<EnvironmentListQuery>,
    caller: Caller,
) -> Result<Json<Page<EnvironmentStatus>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(filter.service.as_deref()))?;
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let visible = caller.visible_services();
    let rows = RowQuery {
        visible: visible.names(),
        service: filter.service.as_deref(),
        ..RowQuery::new(EnvironmentRow::KIND)
    };
    let page = read_page(&*store, rows, &query).await?;
    let rows = page.items.into_iter();
    let rows = rows.filter_map(|doc| serde_json::from_value(doc).ok());
    Ok(Json(Page {
        items: environment_statuses(&status, rows.collect()).await,
        next: page.next,
    }))
}

/// Resumes automatic promotion into a held environment. Nothing changes if it is not held.
#[utoipa::path(post, path = "/api/v1/services/{service}/environments/{environment}/resume", operation_id = "resume_environment",
    params(("service" = String, Path), ("environment" = String, Path)), request_body = ResumeEnvironmentRequest,
    responses((status = 200, body = ResumedEnvironment), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn resume(
    State(requests): State<ServiceRequests>,
    Path((service, environment)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(request): OptionalJson<ResumeEnvironmentRequest>,
) -> Result<Json<ResumedEnvironment>, ApiError> {
    let name = parse::<ServiceName>(&service)?;
    let environment = parse::<EnvironmentName>(&environment)?;
    let place = ServiceEnvironment {
        service: name.clone(),
        environment: environment.clone(),
    };
    caller.require(Verb::Resume, &Resource::Environment(place))?;
    let state = requests.engines.service(&name).await?;
    let state = state.filter(|state| state.name.is_some());
    let state = state.ok_or_else(|| unknown(&service))?;
    let place = state.environments.get(&environment);
    let hold = place.and_then(|place| place.hold.clone());
    let input = ServiceInput::ResumeEnvironment {
        environment: environment.clone(),
        reason: request.reason,
    };
    let outcome = send_request(&requests, &name, input, &caller).await?;
    let has_ended = !outcome.unchanged;
    Ok(Json(ResumedEnvironment {
        service: name,
        environment,
        hold: hold.filter(|_| has_ended),
        rollouts: if has_ended {
            outcome.rollouts
        } else {
            Vec::new()
        },
    }))
}
