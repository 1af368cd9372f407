//! What runs have stored, as bytes.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use shipway_core::{
    access::{Resource, Verb},
    ids::RunId,
    run::ArtifactRecord,
};
use shipway_engine::{BlobError, Blobs, Store};
use tokio_util::io::ReaderStream;

use super::{ApiError, Caller, runs};
use crate::read_models::run_view;

/// An artifact of a run, as a tar file. The connection is closed early if its bytes do not match its digest.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/artifacts/{name}", operation_id = "download_artifact", params(("service" = String, Path), ("number" = String, Path, description = "`12` or `r12`"), ("name" = String, Path)),
    responses((status = 200, content_type = "application/x-tar"), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn download(
    State(store): State<Arc<dyn Store>>,
    State(blobs): State<Arc<dyn Blobs>>,
    Path((service, number, name)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let id = runs::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::Artifacts(id.clone()))?;
    let stored = run_view(&*store, &id).await?.artifacts;
    let artifact = stored.iter().find(|it| it.name == name).ok_or_else(|| {
        let known: Vec<&str> = stored.iter().map(|it| it.name.as_str()).collect();
        ApiError::missing(format!(
            "{id} has no artifact {name:?}; it has stored: {}",
            known.join(", ")
        ))
    })?;
    artifact_response(&*blobs, &id, artifact).await
}

/// The bytes of an artifact.
pub(super) async fn artifact_response(
    blobs: &dyn Blobs,
    id: &RunId,
    artifact: &ArtifactRecord,
) -> Result<Response, ApiError> {
    let reader = blobs.open(&artifact.digest).await;
    let reader = reader.map_err(|error| match error {
        BlobError::Removed { at, .. } => ApiError::missing(format!(
            "the artifact {} of {id} was removed by the retention rule on {}; run it again to have it: shipway retry {id}",
            artifact.name,
            at.strftime("%Y-%m-%d")
        )),
        BlobError::Missing(_) => ApiError::missing(format!(
            "the artifact {} of {id} is missing in the data directory; restore it from a backup, or run it again: shipway retry {id}",
            artifact.name
        )),
        BlobError::Damaged { .. } | BlobError::Io { .. } => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, artifact.size.to_string()),
        (header::ETAG, format!("\"{}\"", artifact.digest)),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(reader))).into_response())
}
