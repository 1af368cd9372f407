//! The inputs of a job, for a worker that shares no disk with the server. The token names the job: there is no address for
//! another job's inputs.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use shipway_core::{
    access::{JobIdentity, Verb},
    ids::Digest,
    run::RunState,
};
use shipway_drivers::git::GitRepositories;
use shipway_engine::Blobs;

use super::{ApiError, Caller, artifacts::artifact_response};
use crate::{app::AppState, delivery_engines::DeliveryEngines};

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/internal/job/source", get(source))
        .route("/internal/job/artifacts/{digest}", get(artifact))
}

/// The commit of the job's run with its history, as a git pack.
async fn source(
    State(engines): State<Arc<DeliveryEngines>>,
    State(repos): State<Arc<GitRepositories>>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let job = caller.require_job(Verb::FetchInputs)?;
    let state = run_state(&engines, job).await?;
    let spec = &state.0.as_deref().ok_or_else(|| missing_run(job))?.spec;
    let commit = spec.commit.id.clone();
    let repository = repos.get(&spec.location().repository);
    let repository = repository
        .ok_or_else(|| ApiError::missing(format!("{} has no repository here", job.run.service)))?;
    let pack = repository.pack_commit(&commit).await.map_err(|error| {
        tracing::error!(%error, %job, "the commit of a job can't be packed");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    let kind = [(header::CONTENT_TYPE, "application/x-git-packed-objects")];
    Ok((kind, Body::from_stream(pack)).into_response())
}

/// An artifact of the job's run, as a tar file.
async fn artifact(
    State(engines): State<Arc<DeliveryEngines>>,
    State(blobs): State<Arc<dyn Blobs>>,
    Path(digest): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let job = caller.require_job(Verb::FetchInputs)?;
    let digest: Digest = digest
        .parse()
        .map_err(|error: shipway_core::ids::ParseIdError| {
            ApiError::bad_request(error.to_string())
        })?;
    let state = run_state(&engines, job).await?;
    let mut stored = state.0.as_deref().into_iter().flat_map(|it| &it.artifacts);
    let found = stored.find(|it| it.digest == digest);
    let artifact =
        found.ok_or_else(|| ApiError::missing(format!("{} has no artifact {digest}", job.run)))?;
    artifact_response(&*blobs, &job.run, artifact).await
}

async fn run_state(
    engines: &DeliveryEngines,
    job: &JobIdentity,
) -> Result<Arc<RunState>, ApiError> {
    let state = engines.runs.state(&job.run.stream()).await?;
    state.ok_or_else(|| missing_run(job))
}

fn missing_run(job: &JobIdentity) -> ApiError {
    ApiError::missing(format!("there is no run {}", job.run))
}
