//! Rollouts: read, and steered.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shipway_core::{
    ids::{RolloutId, RolloutNumber, ServiceName},
    rollout::{AbortCause, Input, RolloutView},
    service::{self, RetryRequest},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Caller, Problem,
    gates::known_groups,
    json_body::OptionalJson,
    services::Page,
    set_off::{NO_REASON, SetOff},
};
use crate::{app::App, read_models::rollout_view};

/// Which rollouts to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Only of this service.
    service: Option<String>,
    /// Only into this environment.
    environment: Option<String>,
    /// Only those that are moving.
    #[serde(default)]
    live: bool,
    /// At most so many; 50 when not said, 200 at most.
    limit: Option<u32>,
    /// Where the page before ended.
    cursor: Option<u64>,
}

/// What a steering action may say.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Steer {
    /// Why.
    reason: Option<String>,
    /// Refused when any are given: this server knows no groups yet.
    #[serde(default)]
    groups: Vec<String>,
}

/// What can be done to a rollout.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    /// Say yes to its gate.
    Approve,
    /// Say no to its gate.
    Reject,
    /// Stop shifting.
    Pause,
    /// Go on.
    Resume,
    /// Skip the remaining holds.
    Promote,
    /// Back to stable.
    Abort,
    /// Roll the same release out again.
    Retry,
}

/// Rollouts, the newest change first.
#[utoipa::path(get, path = "/api/v1/rollouts", params(Filter), responses((status = 200, description = "A page of rollouts", body = Value)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(filter): Query<Filter>,
) -> Result<Json<Page<Value>>, Problem> {
    let wanted = |doc: &Value| {
        filter
            .environment
            .as_ref()
            .is_none_or(|wanted| doc["environment"] == **wanted)
    };
    let mut page = Page::of(
        &app,
        "rollout",
        filter.service.as_deref(),
        filter.live,
        filter.cursor,
        filter.limit,
    )
    .await?;
    page.items.retain(wanted);
    Ok(Json(page))
}

/// One rollout: its plan with where it is, who gets which share, what the evidence says, its story.
#[utoipa::path(get, path = "/api/v1/rollouts/{service}/{number}", params(("service" = String, Path), ("number" = String, Path, description = "`7` or `ro7`")),
    responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Result<Json<RolloutView>, Problem> {
    Ok(Json(rollout_view(&app, &id(&service, &number)?).await?))
}

/// Steers a rollout. Idempotent; what is not possible any more is refused with the current state. Answers with the rollout; a retry
/// with what it set off.
#[utoipa::path(post, path = "/api/v1/rollouts/{service}/{number}/{verb}",
    params(("service" = String, Path), ("number" = String, Path), ("verb" = Verb, Path)), request_body = Steer,
    responses((status = 200, body = Value), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn steer(
    State(app): State<Arc<App>>,
    Path((service, number, verb)): Path<(String, String, Verb)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<Steer>,
) -> Result<Response, Problem> {
    let id = id(&service, &number)?;
    let said = body;
    let reason = said.reason.clone().unwrap_or_else(|| NO_REASON.to_owned());
    let input = match verb {
        Verb::Approve => Input::Approve {
            groups: known_groups(&said.groups)?,
            comment: said.reason,
        },
        Verb::Reject => Input::Reject { reason },
        Verb::Pause => Input::Pause { reason },
        Verb::Resume => Input::Resume,
        Verb::Promote => Input::Promote { reason },
        Verb::Abort => Input::Abort {
            cause: AbortCause::Person,
            reason,
        },
        Verb::Retry => {
            return Ok(retry(&app, &id, said.reason, &caller)
                .await?
                .into_response());
        }
    };
    rollout_view(&app, &id).await?;
    app.rollouts
        .send(&id.stream(), input, caller.actor())
        .await?;
    Ok(Json(rollout_view(&app, &id).await?).into_response())
}

async fn retry(
    app: &Arc<App>,
    id: &RolloutId,
    reason: Option<String>,
    caller: &Caller,
) -> Result<Json<SetOff>, Problem> {
    let view = rollout_view(app, id).await?;
    if view.ended.is_none() {
        let status = view.status;
        return Err(Problem::conflict(format!(
            "{id} can't be retried before it has ended: it is {status}; watch it: shipway watch {id}"
        )));
    }
    let release = app
        .release(&id.service, view.release)
        .await
        .ok_or_else(|| Problem::not_found(format!("release {} is not in the log", view.release)))?;
    let input = service::Input::Retry(Box::new(RetryRequest {
        rollout: id.number,
        kind: view.kind,
        release,
        environment: view.environment.clone(),
        why: reason.unwrap_or_else(|| format!("retry of {id}")),
    }));
    SetOff::by(app, &id.service, input, caller).await.map(Json)
}

pub(super) fn id(service: &str, number: &str) -> Result<RolloutId, Problem> {
    let bad = |error: &dyn std::fmt::Display| Problem::bad_request(error.to_string());
    Ok(RolloutId {
        service: service
            .parse::<ServiceName>()
            .map_err(|error| bad(&error))?,
        number: number
            .parse::<RolloutNumber>()
            .map_err(|error| bad(&error))?,
    })
}
