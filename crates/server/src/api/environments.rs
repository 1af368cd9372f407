//! Environments that a person holds: automatic promotion into them is continued here.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use shipway_api::{ResumeEnvironmentRequest, ResumedEnvironment};
use shipway_core::{
    access::{Resource, Verb},
    ids::{EnvironmentName, ServiceName},
    service::ServiceInput,
    target::ServiceEnvironment,
};

use super::{
    ApiError, Caller,
    deploy_outcome::send_request,
    json_body::OptionalJson,
    services::{parse, unknown},
};
use crate::app::App;

/// Resumes automatic promotion into a held environment. Nothing changes if it is not held.
#[utoipa::path(post, path = "/api/v1/services/{service}/environments/{environment}/resume",
    params(("service" = String, Path), ("environment" = String, Path)), request_body = ResumeEnvironmentRequest,
    responses((status = 200, body = ResumedEnvironment), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
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
    let state = app.engines.service(&name).await?;
    let state = state.filter(|state| state.name.is_some());
    let state = state.ok_or_else(|| unknown(&service))?;
    let place = state.environments.get(&environment);
    let hold = place.and_then(|place| place.hold.clone());
    let input = ServiceInput::ResumeEnvironment {
        environment: environment.clone(),
        reason: request.reason,
    };
    let outcome = send_request(&app, &name, input, &caller).await?;
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
