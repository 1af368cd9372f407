//! Secrets: set, listed without their values, and removed. No address returns a value.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use shipway_api::{
    ImportSecretsRequest, Page, RemoveValueRequest, RotateSecretKeyRequest, RotatedSecrets,
    SecretListQuery, SecretScopeQuery, SetSecretRequest,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::ServiceName,
    secret::{
        SecretInput, SecretName, SecretScope, SecretState, SecretView, VALUE_BYTES_MAX,
        secret_stream, secret_views,
    },
    target::ServiceEnvironment,
};

use super::{
    ApiError, Caller,
    json_body::{JsonObject, OptionalJson},
    services::parse,
};
use crate::{capabilities::SecretEditing, delivery_engines::DeliveryEngines, secrets::ResealError};

/// Secrets without their values: those of a service, or those that all services see. All of them, at most 1,000 for each environment.
#[utoipa::path(get, path = "/api/v1/secrets", operation_id = "list_secrets", params(SecretListQuery), responses((status = 200, body = Page<Value>)))]
pub(super) async fn list(
    State(engines): State<Arc<DeliveryEngines>>,
    Query(query): Query<SecretListQuery>,
    caller: Caller,
) -> Result<Json<Page<SecretView>>, ApiError> {
    let service = parse_service(query.service.as_deref())?;
    caller.require(
        Verb::ReadSecrets,
        &secrets_resource(&SecretScope {
            service: service.clone(),
            environment: None,
        }),
    )?;
    let state = secret_state(&engines, service.as_ref()).await?;
    Ok(Json(Page {
        items: secret_views(service.as_ref(), &state),
        next: None,
    }))
}

/// Sets a secret. `If-Match` with the version that was read refuses to overwrite a newer one; `If-None-Match: *` refuses to overwrite
/// any. Answers with the secret without its value, and with its version as `ETag`.
#[utoipa::path(put, path = "/api/v1/secrets/{name}", operation_id = "set_secret", params(("name" = String, Path), SecretScopeQuery), request_body = SetSecretRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem), (status = 412, body = shipway_api::Problem)))]
pub(super) async fn set(
    State(editing): State<SecretEditing>,
    Path(name): Path<String>,
    Query(query): Query<SecretScopeQuery>,
    headers: HeaderMap,
    caller: Caller,
    JsonObject(request): JsonObject<SetSecretRequest>,
) -> Result<Response, ApiError> {
    let scope = parse_scope(&query)?;
    caller.require(Verb::ChangeSecrets, &secrets_resource(&scope))?;
    let name = parse_name(&name)?;
    let expected_version = expected_version(&headers)?;
    let secrets = BTreeMap::from([(name.clone(), request.value)]);
    let state = set_secrets(&editing, &scope, secrets, expected_version, &caller).await?;
    let views = secret_views(scope.service.as_ref(), &state);
    let is_this = |view: &SecretView| view.name == name && view.environment == scope.environment;
    let view = views.into_iter().find(is_this);
    let view = view.ok_or_else(|| ApiError::conflict("the secret was removed meanwhile"))?;
    let tag = format!("\"{}\"", view.version);
    let tag = HeaderValue::from_str(&tag).expect("digits in quotes are a header value");
    Ok(([(header::ETAG, tag)], Json(view)).into_response())
}

/// Sets several secrets together, or none. Answers with all secrets of the service.
#[utoipa::path(post, path = "/api/v1/secrets/import", operation_id = "import_secrets", params(SecretScopeQuery), request_body = ImportSecretsRequest,
    responses((status = 200, body = Page<Value>), (status = 400, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn import(
    State(editing): State<SecretEditing>,
    Query(query): Query<SecretScopeQuery>,
    caller: Caller,
    JsonObject(request): JsonObject<ImportSecretsRequest>,
) -> Result<Json<Page<SecretView>>, ApiError> {
    let scope = parse_scope(&query)?;
    caller.require(Verb::ChangeSecrets, &secrets_resource(&scope))?;
    if request.secrets.is_empty() {
        return Err(ApiError::bad_request(
            "`secrets` is empty: nothing to import",
        ));
    }
    let mut secrets = BTreeMap::new();
    for (name, value) in request.secrets {
        let name = parse_name(&name)?;
        if secrets.contains_key(&name) {
            let why = format!("{name} is there twice: names are the same in upper and lower case");
            return Err(ApiError::bad_request(why));
        }
        secrets.insert(name, value);
    }
    let state = set_secrets(&editing, &scope, secrets, None, &caller).await?;
    Ok(Json(Page {
        items: secret_views(scope.service.as_ref(), &state),
        next: None,
    }))
}

/// Removes a secret. Answers with the secrets of the service that are left.
#[utoipa::path(delete, path = "/api/v1/secrets/{name}", operation_id = "remove_secret", params(("name" = String, Path), SecretScopeQuery), request_body = RemoveValueRequest,
    responses((status = 200, body = Page<Value>), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn remove(
    State(editing): State<SecretEditing>,
    Path(name): Path<String>,
    Query(query): Query<SecretScopeQuery>,
    caller: Caller,
    OptionalJson(RemoveValueRequest {}): OptionalJson<RemoveValueRequest>,
) -> Result<Json<Page<SecretView>>, ApiError> {
    let scope = parse_scope(&query)?;
    caller.require(Verb::ChangeSecrets, &secrets_resource(&scope))?;
    let input = SecretInput::RemoveSecret {
        environment: scope.environment.clone(),
        name: parse_name(&name)?,
    };
    let state = send_change(&editing, scope.service.as_ref(), input, &caller).await?;
    Ok(Json(Page {
        items: secret_views(scope.service.as_ref(), &state),
        next: None,
    }))
}

/// Adds a key, and encrypts all secrets with it. Keys that encrypted earlier versions stay in `keys/sealing-keys`.
#[utoipa::path(post, path = "/api/v1/secrets/rotate", operation_id = "rotate_secret_key", request_body = RotateSecretKeyRequest,
    responses((status = 200, body = RotatedSecrets), (status = 503, body = shipway_api::Problem)))]
pub(super) async fn rotate(
    State(editing): State<SecretEditing>,
    caller: Caller,
    OptionalJson(RotateSecretKeyRequest {}): OptionalJson<RotateSecretKeyRequest>,
) -> Result<Json<RotatedSecrets>, ApiError> {
    caller.require(
        Verb::ChangeSecrets,
        &secrets_resource(&SecretScope::default()),
    )?;
    let failed = |error: ResealError| {
        let why = format!("the key is not changed for all secrets: {error}");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    let secrets = &editing.secrets;
    secrets.add_key().map_err(|error| failed(error.into()))?;
    let mut count = 0;
    for service in secrets.scopes() {
        for resealed in secrets.reseal(service.as_ref()).map_err(failed)? {
            count += resealed.secrets.len();
            let input = SecretInput::ResealSecrets {
                environment: resealed.environment,
                secrets: resealed.secrets,
            };
            send_change(&editing, service.as_ref(), input, &caller).await?;
        }
    }
    Ok(Json(RotatedSecrets { secrets: count }))
}

/// Encrypts and sets values, all of them or none.
pub(crate) async fn set_secrets(
    editing: &SecretEditing,
    scope: &SecretScope,
    values: BTreeMap<SecretName, String>,
    expected_version: Option<u32>,
    caller: &Caller,
) -> Result<Arc<SecretState>, ApiError> {
    let mut secrets = BTreeMap::new();
    for (name, value) in values {
        check_value(&name, &value)?;
        let sealed = editing.secrets.seal(scope, &name, &value);
        let sealed = sealed.map_err(|error| {
            let why = format!("{name} can't be encrypted: {error}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
        })?;
        secrets.insert(name, sealed);
    }
    let input = SecretInput::SetSecrets {
        environment: scope.environment.clone(),
        secrets,
        expected_version,
    };
    send_change(editing, scope.service.as_ref(), input, caller).await
}

/// Records a change, and makes it visible to what starts from now on.
pub(crate) async fn send_change(
    editing: &SecretEditing,
    service: Option<&ServiceName>,
    input: SecretInput,
    caller: &Caller,
) -> Result<Arc<SecretState>, ApiError> {
    let stream = secret_stream(service);
    let outcome = editing.engines.secrets.send(&stream, input, caller.actor());
    let state = outcome.await?.state;
    editing.secrets.refresh(&stream, state.clone());
    Ok(state)
}

/// The values of a service, or those of all services.
pub(crate) async fn secret_state(
    engines: &DeliveryEngines,
    service: Option<&ServiceName>,
) -> Result<Arc<SecretState>, ApiError> {
    let state = engines.secrets.state(&secret_stream(service)).await?;
    Ok(state.unwrap_or_default())
}

/// What a permission on secrets is about.
pub(crate) fn secrets_resource(scope: &SecretScope) -> Resource {
    match (scope.service.clone(), scope.environment.clone()) {
        (Some(service), Some(environment)) => Resource::Environment(ServiceEnvironment {
            service,
            environment,
        }),
        (Some(service), None) => Resource::Service(service),
        (None, _) => Resource::Server,
    }
}

pub(super) fn parse_service(service: Option<&str>) -> Result<Option<ServiceName>, ApiError> {
    service.map(parse::<ServiceName>).transpose()
}

pub(crate) fn parse_scope(query: &SecretScopeQuery) -> Result<SecretScope, ApiError> {
    Ok(SecretScope {
        service: parse_service(query.service.as_deref())?,
        environment: query.environment.as_deref().map(parse).transpose()?,
    })
}

pub(crate) fn parse_name(name: &str) -> Result<SecretName, ApiError> {
    name.parse()
        .map_err(|error| ApiError::bad_request(format!("{error}")))
}

pub(super) fn check_value(name: &SecretName, value: &str) -> Result<(), ApiError> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the value of {name} has {} bytes, at most {VALUE_BYTES_MAX} are allowed: store a file elsewhere, and the key to it here",
        value.len()
    )))
}

/// The version that `If-Match` names; 0 for `If-None-Match: *`.
fn expected_version(headers: &HeaderMap) -> Result<Option<u32>, ApiError> {
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|value| value == "*")
    {
        return Ok(Some(0));
    }
    let Some(tag) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let version = tag.to_str().ok().and_then(|tag| {
        let digits = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
        digits.parse().ok()
    });
    let version = version.ok_or_else(|| {
        ApiError::bad_request("`If-Match` must be the ETag of the secret, such as \"3\"")
    })?;
    Ok(Some(version))
}
