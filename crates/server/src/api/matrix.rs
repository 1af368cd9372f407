//! The overview as one document, for portals.

use axum::{
    Json,
    extract::{Query, State},
};
use shipway_api::{DeliveryMatrix, MatrixQuery};
use shipway_core::access::{Resource, Verb};

use super::{ApiError, Caller};
use crate::delivery_matrix::MatrixFeed;

/// The overview: the stable release of each environment of each service, its age and health, and the rollout in progress.
#[utoipa::path(get, path = "/api/v1/matrix", operation_id = "show_matrix", params(MatrixQuery), responses((status = 200, body = DeliveryMatrix)))]
pub(super) async fn show(
    State(feed): State<MatrixFeed>,
    Query(query): Query<MatrixQuery>,
    caller: Caller,
) -> Result<Json<DeliveryMatrix>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let snapshot = feed.newest().await?;
    Ok(Json(snapshot.matrix(&caller.visible_services(), &query)))
}
