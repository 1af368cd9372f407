//! Variables: values that workflows and commands read, and everyone with access to the service may read.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde_json::Value;
use shipway_api::{
    Page, RemoveValueRequest, SecretListQuery, SecretScopeQuery, SetVariableRequest,
};
use shipway_core::{
    access::Verb,
    secret::{SecretInput, SecretScope, VariableView, variable_views},
};

use super::{
    ApiError, Caller,
    json_body::{JsonObject, OptionalJson},
    secrets::{
        check_value, parse_name, parse_scope, parse_service, secret_state, secrets_resource,
        send_change,
    },
};
use crate::{capabilities::SecretEditing, delivery_engines::DeliveryEngines};

/// Variables: those of a service, or those that all services see. All of them, at most 1,000 for each environment.
#[utoipa::path(get, path = "/api/v1/variables", operation_id = "list_variables", params(SecretListQuery), responses((status = 200, body = Page<Value>)))]
pub(super) async fn list(
    State(engines): State<Arc<DeliveryEngines>>,
    Query(query): Query<SecretListQuery>,
    caller: Caller,
) -> Result<Json<Page<VariableView>>, ApiError> {
    let service = parse_service(query.service.as_deref())?;
    caller.require(
        Verb::Read,
        &secrets_resource(&SecretScope {
            service: service.clone(),
            environment: None,
        }),
    )?;
    let state = secret_state(&engines, service.as_ref()).await?;
    Ok(Json(Page {
        items: variable_views(service.as_ref(), &state),
        next: None,
    }))
}

/// Sets a variable: the `vars` context of workflows. Answers with the variables of the service.
#[utoipa::path(put, path = "/api/v1/variables/{name}", operation_id = "set_variable", params(("name" = String, Path), SecretScopeQuery), request_body = SetVariableRequest,
    responses((status = 200, body = Page<Value>), (status = 400, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn set(
    State(editing): State<SecretEditing>,
    Path(name): Path<String>,
    Query(query): Query<SecretScopeQuery>,
    caller: Caller,
    JsonObject(request): JsonObject<SetVariableRequest>,
) -> Result<Json<Page<VariableView>>, ApiError> {
    let scope = parse_scope(&query)?;
    caller.require(Verb::ChangeSecrets, &secrets_resource(&scope))?;
    let name = parse_name(&name)?;
    check_value(&name, &request.value)?;
    let input = SecretInput::SetVariables {
        environment: scope.environment.clone(),
        variables: BTreeMap::from([(name, request.value)]),
    };
    let state = send_change(&editing, scope.service.as_ref(), input, &caller).await?;
    Ok(Json(Page {
        items: variable_views(scope.service.as_ref(), &state),
        next: None,
    }))
}

/// Removes a variable. Answers with the variables of the service that are left.
#[utoipa::path(delete, path = "/api/v1/variables/{name}", operation_id = "remove_variable", params(("name" = String, Path), SecretScopeQuery), request_body = RemoveValueRequest,
    responses((status = 200, body = Page<Value>), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn remove(
    State(editing): State<SecretEditing>,
    Path(name): Path<String>,
    Query(query): Query<SecretScopeQuery>,
    caller: Caller,
    OptionalJson(RemoveValueRequest {}): OptionalJson<RemoveValueRequest>,
) -> Result<Json<Page<VariableView>>, ApiError> {
    let scope = parse_scope(&query)?;
    caller.require(Verb::ChangeSecrets, &secrets_resource(&scope))?;
    let input = SecretInput::RemoveVariable {
        environment: scope.environment.clone(),
        name: parse_name(&name)?,
    };
    let state = send_change(&editing, scope.service.as_ref(), input, &caller).await?;
    Ok(Json(Page {
        items: variable_views(scope.service.as_ref(), &state),
        next: None,
    }))
}
