//! Webhooks of forges. The body is read within limits, its signature is verified, and only then is it parsed.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use shipway_api::WebhookAnswer;
use shipway_core::{
    aggregate::Actor,
    forge::{
        AcceptedDelivery, ForgeChange, ForgeInput, ForgeKind, ForgeRejection, WebhookMeaning,
        forge_stream, read_webhook,
    },
    ids::{Digest, ServiceName},
};
use shipway_engine::{Clock, EngineError};
use shipway_pages::RefusedWebhook;
use tokio::sync::Semaphore;

use super::ApiError;
use crate::{
    delivery_engines::DeliveryEngines,
    forges::{ForgeConnections, SentSignature, WebhookHeaders},
};

/// Bytes of a body at most, as GitHub sends.
const BODY_BYTES_MAX: usize = 25 << 20;
/// In which a body must arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Bodies that are read at once: they are not authenticated yet.
static BODIES: Semaphore = Semaphore::const_new(8);

/// Takes a webhook of a forge: `github`, `gitlab` or `gitea`, which is also for Forgejo. Answered with 202 when it is in the log, or when
/// nothing follows from it.
#[utoipa::path(post, path = "/hooks/{forge}", operation_id = "receive_webhook", params(("forge" = String, Path)), request_body = Value,
    responses((status = 202, body = WebhookAnswer), (status = 400, body = shipway_api::Problem), (status = 401, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 413, body = shipway_api::Problem), (status = 503, body = shipway_api::Problem)))]
pub(super) async fn receive(
    State(connections): State<ForgeConnections>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(clock): State<Arc<dyn Clock>>,
    Path(forge): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let forge: ForgeKind =
        forge
            .parse()
            .map_err(|error: shipway_core::forge::ParseForgeKindError| {
                ApiError::missing(error.to_string())
            })?;
    let accepted = accept_webhook(&connections, &engines, forge, request).await;
    if let Err(problem) = &accepted {
        connections.record_refusal(RefusedWebhook {
            forge,
            at: clock.now(),
            reason: problem.0.detail.clone(),
        });
    }
    accepted
}

/// Verifies a webhook, and records what it says.
async fn accept_webhook(
    connections: &ForgeConnections,
    engines: &DeliveryEngines,
    forge: ForgeKind,
    request: Request,
) -> Result<Response, ApiError> {
    let headers = WebhookHeaders::read(forge, request.headers());
    let headers = headers.map_err(|error| unauthorized(error.to_string()))?;
    let body = read_body(request).await?;
    let (headers, body, signed) = {
        let connections = connections.clone();
        tokio::task::spawn_blocking(move || {
            let signed = signed_for(&connections, forge, &headers.signature, &body);
            (headers, body, signed)
        })
        .await
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server is stopping"))?
    };
    if signed.is_empty() {
        let why = format!(
            "the signature fits no {} connection of this server: enter the same secret at the forge and in Shipway (shipway forge show)",
            forge.title()
        );
        return Err(unauthorized(why));
    }
    let meaning = read_webhook(forge, &headers.event, &body);
    let meaning = meaning.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (project, change) = match meaning {
        WebhookMeaning::Ignored(why) => return Ok(ignored(why)),
        WebhookMeaning::Change { project, change } => (project, *change),
    };
    let is_of_project = |repository: &&ServiceName| {
        let connection = connections.find(repository);
        connection.is_some_and(|connection| connection.is_of_project(&project))
    };
    let repositories: Vec<&ServiceName> = signed.iter().filter(is_of_project).collect();
    if repositories.is_empty() {
        let project: String = project
            .chars()
            .filter(|c| !c.is_control())
            .take(100)
            .collect();
        return Ok(ignored(format!(
            "{project} is connected to no repository with this secret"
        )));
    }
    let delivery = AcceptedDelivery {
        id: headers.id,
        body: Digest::compute(&body),
        change,
    };
    accept(engines, forge, &repositories, &delivery).await
}

/// Reads the body, unless it is too large or too slow.
async fn read_body(request: Request) -> Result<Bytes, ApiError> {
    let too_large = || {
        let why = format!("a webhook has at most {} MiB", BODY_BYTES_MAX >> 20);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let reading = async {
        let _permit = BODIES.acquire().await;
        axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await
    };
    match tokio::time::timeout(BODY_DEADLINE, reading).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the body did not arrive within {} s",
                BODY_DEADLINE.as_secs()
            ),
        )),
    }
}

/// The repositories whose secret the sender has. Connections often share one secret: it is tried once.
fn signed_for(
    connections: &ForgeConnections,
    forge: ForgeKind,
    signature: &SentSignature,
    body: &[u8],
) -> Vec<ServiceName> {
    let mut tried: Vec<(String, bool)> = Vec::new();
    let mut signed = Vec::new();
    for (repository, connection) in connections.list_by_forge(forge) {
        let Ok(secret) = connections.webhook_secret(&repository, &connection) else {
            continue;
        };
        let known = tried.iter().find(|(known, _)| *known == secret);
        let is_valid = match known {
            Some((_, is_valid)) => *is_valid,
            None => {
                let is_valid = signature.is_valid(secret.as_bytes(), body);
                tried.push((secret, is_valid));
                is_valid
            }
        };
        if is_valid {
            signed.push(repository);
        }
    }
    signed
}

/// Records a delivery for each repository that follows the project.
async fn accept(
    engines: &DeliveryEngines,
    forge: ForgeKind,
    repositories: &[&ServiceName],
    delivery: &AcceptedDelivery,
) -> Result<Response, ApiError> {
    let mut accepted = Vec::new();
    for repository in repositories {
        let input = ForgeInput::AcceptDelivery(Box::new(delivery.clone()));
        let by = Actor::Shipway(format!("a webhook of {}", forge.title()));
        match engines
            .forges
            .send(&forge_stream(repository), input, by)
            .await
        {
            Ok(_) => accepted.push(repository.to_string()),
            Err(EngineError::Rejected(ForgeRejection::Repeated | ForgeRejection::NotConnected)) => {
            }
            Err(error) => {
                return Err(ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    error.to_string(),
                ));
            }
        }
    }
    if accepted.is_empty() {
        return Ok(ignored(ForgeRejection::Repeated.to_string()));
    }
    let what = match &delivery.change {
        ForgeChange::Reference { reference, .. } => reference.clone(),
        ForgeChange::PullRequest(change) => {
            format!("pull request {} {}", change.number, change.action)
        }
    };
    let answer = WebhookAnswer {
        accepted: Some(format!("{what}, for {}", accepted.join(", "))),
        ignored: None,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

fn ignored(why: String) -> Response {
    let answer = WebhookAnswer {
        accepted: None,
        ignored: Some(why),
    };
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}

fn unauthorized(why: String) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, why)
}
