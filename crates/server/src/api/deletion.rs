//! Deletes services and environments. The response is sent once the deletion is recorded; the instances stop afterwards.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use shipway_api::{AcceptedDeletion, DeletionRequest};
use shipway_core::{
    access::{Resource, Verb},
    ids::{EnvironmentName, ServiceName},
    service::{DeletionScope, ServiceInput},
    target::ServiceEnvironment,
};

use super::{
    ApiError, Caller,
    json_body::OptionalJson,
    services::{parse, unknown},
};
use crate::delivery_engines::DeliveryEngines;

/// Deletes a service with all its environments and its repository. Its log is not deleted.
#[utoipa::path(delete, path = "/api/v1/services/{service}", operation_id = "delete_service", params(("service" = String, Path)), request_body = DeletionRequest,
    responses((status = 202, body = AcceptedDeletion), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn delete_service(
    State(engines): State<Arc<DeliveryEngines>>,
    Path(service): Path<String>,
    caller: Caller,
    OptionalJson(request): OptionalJson<DeletionRequest>,
) -> Result<(StatusCode, Json<AcceptedDeletion>), ApiError> {
    let name = parse::<ServiceName>(&service)?;
    caller.require(Verb::Delete, &Resource::Service(name.clone()))?;
    delete(&engines, name, DeletionScope::Service, request, &caller).await
}

/// Deletes an environment. A configuration that still names it creates it again with the next release.
#[utoipa::path(delete, path = "/api/v1/services/{service}/environments/{environment}", operation_id = "delete_environment",
    params(("service" = String, Path), ("environment" = String, Path)), request_body = DeletionRequest,
    responses((status = 202, body = AcceptedDeletion), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn delete_environment(
    State(engines): State<Arc<DeliveryEngines>>,
    Path((service, environment)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(request): OptionalJson<DeletionRequest>,
) -> Result<(StatusCode, Json<AcceptedDeletion>), ApiError> {
    let name = parse::<ServiceName>(&service)?;
    let environment = parse::<EnvironmentName>(&environment)?;
    let place = ServiceEnvironment {
        service: name.clone(),
        environment: environment.clone(),
    };
    caller.require(Verb::Delete, &Resource::Environment(place))?;
    let scope = DeletionScope::Environment(environment);
    delete(&engines, name, scope, request, &caller).await
}

async fn delete(
    engines: &DeliveryEngines,
    service: ServiceName,
    scope: DeletionScope,
    request: DeletionRequest,
    caller: &Caller,
) -> Result<(StatusCode, Json<AcceptedDeletion>), ApiError> {
    let state = engines.service(&service).await?;
    let state = state.filter(|state| state.name.is_some());
    let state = state.ok_or_else(|| unknown(service.as_str()))?;
    let environments = match &scope {
        DeletionScope::Service => state.environments.keys().cloned().collect(),
        DeletionScope::Environment(environment) => vec![environment.clone()],
    };
    let input = ServiceInput::Delete {
        scope,
        reason: request.reason,
    };
    let by = caller.actor();
    engines.send_to_service(&service, input, by).await?;
    let deletion = AcceptedDeletion {
        service,
        environments,
    };
    Ok((StatusCode::ACCEPTED, Json(deletion)))
}
