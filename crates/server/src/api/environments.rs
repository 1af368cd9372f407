//! Environments that a person holds: automatic promotion into them is continued here.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use shipway_core::{
    ids::{EnvironmentName, ServiceName},
    service::{EnvironmentHold, Input},
};
use utoipa::ToSchema;

use super::{
    Caller, Problem,
    json_body::OptionalJson,
    services::{parse, unknown},
    set_off::SetOff,
};
use crate::app::{App, service_stream};

/// Why a hold ends.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// Why.
    reason: Option<String>,
}

/// What the end of a hold set off.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Resumed {
    /// The service.
    #[schema(value_type = String)]
    service: ServiceName,
    /// The environment.
    #[schema(value_type = String)]
    environment: EnvironmentName,
    /// The hold that ended; none where it was not held.
    #[schema(value_type = Option<Object>)]
    hold: Option<EnvironmentHold>,
    /// Rollouts that have started: releases waited.
    rollouts: Vec<String>,
}

/// Continues automatic promotion into an environment that a person holds. Where it is not held nothing changes.
#[utoipa::path(post, path = "/api/v1/services/{service}/environments/{environment}/resume",
    params(("service" = String, Path), ("environment" = String, Path)), request_body = Resume,
    responses((status = 200, body = Resumed), (status = 404, body = Problem)))]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    Path((service, environment)): Path<(String, String)>,
    caller: Caller,
    OptionalJson(Resume { reason }): OptionalJson<Resume>,
) -> Result<Json<Resumed>, Problem> {
    let name = parse::<ServiceName>(&service)?;
    let environment = parse::<EnvironmentName>(&environment)?;
    let state = app.services.state(&service_stream(&name)).await?;
    let state = state.filter(|state| state.name.is_some());
    let state = state.ok_or_else(|| unknown(&service))?;
    let place = state.environments.get(&environment);
    let hold = place.and_then(|place| place.hold.clone());
    let input = Input::ResumeEnvironment {
        environment: environment.clone(),
        reason,
    };
    let set_off = SetOff::by(&app, &name, input, &caller).await?;
    let has_ended = !set_off.is_unchanged();
    Ok(Json(Resumed {
        service: name,
        environment,
        hold: hold.filter(|_| has_ended),
        rollouts: if has_ended {
            set_off.rollouts
        } else {
            Vec::new()
        },
    }))
}
