//! Connections of repositories to forges.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use shipway_api::{ConnectForgeRequest, EmptyRequest};
use shipway_core::{
    access::{Resource, Verb},
    forge::{
        ConnectionRequest, ForgeConnection, ForgeInput, ForgeState, ForgeView, ForkPolicy,
        forge_stream,
    },
    ids::ServiceName,
    secret::SecretName,
};
use shipway_engine::Store;

use super::{
    ApiError, Caller,
    json_body::{JsonObject, OptionalJson},
    services::parse,
};
use crate::{
    capabilities::ServerAddresses, delivery_engines::DeliveryEngines, forges::ForgeConnections,
};

/// The connection of a repository to a forge, with the address to enter there, the last webhooks, and the reports that were given up.
#[utoipa::path(get, path = "/api/v1/forges/{repository}", operation_id = "show_forge", params(("repository" = String, Path)),
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(engines): State<Arc<DeliveryEngines>>,
    State(addresses): State<ServerAddresses>,
    Path(repository): Path<String>,
    caller: Caller,
) -> Result<Json<ForgeView>, ApiError> {
    let repository = parse::<ServiceName>(&repository)?;
    caller.require(Verb::Read, &Resource::Repository(repository.clone()))?;
    let state = engines.forges.state(&forge_stream(&repository)).await?;
    view(repository, state.as_deref(), &addresses)
}

/// Connects a repository to one of a forge: a push there is fetched and handled as a push here. Its secrets must be set before.
#[utoipa::path(put, path = "/api/v1/forges/{repository}", operation_id = "connect_forge", params(("repository" = String, Path)), request_body = ConnectForgeRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn connect(
    State(engines): State<Arc<DeliveryEngines>>,
    State(connections): State<ForgeConnections>,
    State(store): State<Arc<dyn Store>>,
    State(addresses): State<ServerAddresses>,
    Path(repository): Path<String>,
    caller: Caller,
    JsonObject(request): JsonObject<ConnectForgeRequest>,
) -> Result<Json<ForgeView>, ApiError> {
    let repository = parse::<ServiceName>(&repository)?;
    caller.require(
        Verb::ConnectForge,
        &Resource::Repository(repository.clone()),
    )?;
    let connection = read_connection(&request)?;
    let secret = connections.webhook_secret(&repository, &connection);
    secret.map_err(|error| ApiError::conflict(error.to_string()))?;
    let token = connections.token(&repository, &connection);
    token.map_err(|error| ApiError::conflict(error.to_string()))?;
    let input = ForgeInput::Connect {
        connection: Box::new(connection),
        position: store.last_position().await?,
    };
    let stream = forge_stream(&repository);
    let outcome = engines.forges.send(&stream, input, caller.actor()).await?;
    connections.refresh(&repository, &outcome.state);
    view(repository, Some(&outcome.state), &addresses)
}

/// Ends the connection of a repository to a forge: webhooks are refused, and nothing is written back.
#[utoipa::path(delete, path = "/api/v1/forges/{repository}", operation_id = "disconnect_forge", params(("repository" = String, Path)), request_body = EmptyRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn disconnect(
    State(engines): State<Arc<DeliveryEngines>>,
    State(connections): State<ForgeConnections>,
    State(addresses): State<ServerAddresses>,
    Path(repository): Path<String>,
    caller: Caller,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<Json<ForgeView>, ApiError> {
    let repository = parse::<ServiceName>(&repository)?;
    caller.require(
        Verb::ConnectForge,
        &Resource::Repository(repository.clone()),
    )?;
    let stream = forge_stream(&repository);
    let before = engines.forges.state(&stream).await?;
    let before = view(repository.clone(), before.as_deref(), &addresses)?;
    let input = ForgeInput::Disconnect;
    let outcome = engines.forges.send(&stream, input, caller.actor()).await?;
    connections.refresh(&repository, &outcome.state);
    Ok(before)
}

fn read_connection(request: &ConnectForgeRequest) -> Result<ForgeConnection, ApiError> {
    let invalid = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let name = |text: &String| text.parse::<SecretName>();
    let webhook_secret = name(&request.webhook_secret).map_err(|error| invalid(&error))?;
    let token = request.token.as_ref().map(name).transpose();
    let token = token.map_err(|error| invalid(&error))?;
    let forge = request.forge.parse();
    let forge = forge.map_err(|error: shipway_core::forge::ParseForgeKindError| invalid(&error))?;
    ForgeConnection::new(ConnectionRequest {
        forge,
        project: &request.project,
        url: request.url.as_deref(),
        api: request.api.as_deref(),
        webhook_secret: &webhook_secret,
        token: token.as_ref(),
        forks: match request.ignore_forks {
            true => ForkPolicy::Ignore,
            false => ForkPolicy::Run,
        },
    })
    .map_err(|error| invalid(&error))
}

fn view(
    repository: ServiceName,
    state: Option<&ForgeState>,
    addresses: &ServerAddresses,
) -> Result<Json<ForgeView>, ApiError> {
    let connected = state.and_then(|state| Some((state, state.connection.as_ref()?)));
    let (state, connection) = connected.ok_or_else(|| {
        ApiError::missing(format!(
            "{repository} is connected to no forge: shipway forge connect FORGE OWNER/NAME --service {repository}"
        ))
    })?;
    Ok(Json(ForgeView::new(
        repository,
        connection,
        state,
        &addresses.url,
    )))
}
