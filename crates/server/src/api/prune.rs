//! Files that the retention rule no longer covers: shown, and removed at once.

use axum::{Json, extract::State};
use shipway_api::{PruneReport, PruneRequest};
use shipway_core::access::{Resource, Verb};

use super::{ApiError, Caller, json_body::OptionalJson};
use crate::retention::{CollectedRepositories, FilePruner};

/// The files that a removal would remove now. Nothing is changed.
#[utoipa::path(get, path = "/api/v1/prune", operation_id = "preview_prune", responses((status = 200, body = PruneReport)))]
pub(super) async fn show(
    State(pruner): State<FilePruner>,
    caller: Caller,
) -> Result<Json<PruneReport>, ApiError> {
    caller.require(Verb::Prune, &Resource::Server)?;
    Ok(Json(pruner.preview().await?))
}

/// Removes old files now, instead of within 6 hours.
#[utoipa::path(post, path = "/api/v1/prune", operation_id = "prune", request_body = PruneRequest,
    responses((status = 200, body = PruneReport), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn remove(
    State(pruner): State<FilePruner>,
    caller: Caller,
    OptionalJson(PruneRequest {}): OptionalJson<PruneRequest>,
) -> Result<Json<PruneReport>, ApiError> {
    caller.require(Verb::Prune, &Resource::Server)?;
    Ok(Json(pruner.prune(CollectedRepositories::All).await?))
}
