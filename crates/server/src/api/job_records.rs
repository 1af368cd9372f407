//! Receives the records of a job from a worker that shares no disk with the server. The token names the job: there is no address for
//! another job's records.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    routing::{get, put},
};
use futures_util::TryStreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use shipway_core::{access::Verb, ids::Digest};
use shipway_drivers::jobs::{
    APPEND_BYTES_MAX, AppendedRecord, JobExecutor, JobInbox, ReceiveError, SUMMARY_BYTES_MAX,
};
use shipway_engine::{BlobError, Blobs};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use super::{ApiError, Caller};
use crate::app::AppState;

/// Bytes of a file: GitHub's limit for an artifact.
const FILE_BYTES_MAX: u64 = 10 << 30;

pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route(
            "/internal/job/journal",
            put(|job_executor, caller, query, body| {
                append_record(job_executor, caller, query, AppendedRecord::Journal, body)
            }),
        )
        .route(
            "/internal/job/log",
            put(|job_executor, caller, query, body| {
                append_record(job_executor, caller, query, AppendedRecord::Log, body)
            }),
        )
        .route("/internal/job/files/{digest}", put(store_file))
        .route("/internal/job/summaries/{step}", put(store_summary))
        .route("/internal/job/cancellation", get(wait_for_cancellation))
        // Each handler has a limit of its own.
        .layer(DefaultBodyLimit::disable())
}

#[derive(Deserialize)]
struct AppendQuery {
    /// Where the bytes belong.
    offset: u64,
}

/// Appends to a record; answers with its length when that is on disk.
async fn append_record(
    State(job_executor): State<Arc<dyn JobExecutor>>,
    caller: Caller,
    Query(AppendQuery { offset }): Query<AppendQuery>,
    record: AppendedRecord,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let job = caller.require_job(Verb::SendRecords)?;
    let inbox = find_inbox(&*job_executor)?;
    let bytes = read_body(body, APPEND_BYTES_MAX).await?;
    let length = inbox.append(job, record, offset, bytes).await;
    Ok(Json(json!({ "length": length.map_err(refused)? })))
}

async fn store_summary(
    State(job_executor): State<Arc<dyn JobExecutor>>,
    Path(step): Path<u32>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let job = caller.require_job(Verb::SendRecords)?;
    let inbox = find_inbox(&*job_executor)?;
    let text = read_body(body, SUMMARY_BYTES_MAX).await?;
    inbox
        .store_summary(job, step, text)
        .await
        .map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stores a file that the job's journal is going to name.
async fn store_file(
    State(job_executor): State<Arc<dyn JobExecutor>>,
    State(blobs): State<Arc<dyn Blobs>>,
    Path(digest): Path<String>,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let job = caller.require_job(Verb::SendRecords)?;
    let _contact = find_inbox(&*job_executor)?.open_request(job);
    let digest: Digest = digest
        .parse()
        .map_err(|error: shipway_core::ids::ParseIdError| {
            ApiError::bad_request(error.to_string())
        })?;
    let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    // A longer file has another digest.
    let bytes = Box::pin(bytes.take(FILE_BYTES_MAX));
    match blobs.put_expecting(bytes, &digest).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(error @ BlobError::Damaged { .. }) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            error.to_string(),
        )),
        Err(error @ (BlobError::Missing(_) | BlobError::Removed { .. } | BlobError::Io { .. })) => {
            Err(ApiError::new(
                StatusCode::INSUFFICIENT_STORAGE,
                error.to_string(),
            ))
        }
    }
}

/// Answers when the job is cancelled, or after a while.
async fn wait_for_cancellation(
    State(job_executor): State<Arc<dyn JobExecutor>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    let job = caller.require_job(Verb::SendRecords)?;
    let cancelled = find_inbox(&*job_executor)?.wait_for_cancellation(job).await;
    Ok(Json(json!({ "cancelled": cancelled })))
}

fn find_inbox(job_executor: &dyn JobExecutor) -> Result<&JobInbox, ApiError> {
    job_executor.inbox().ok_or_else(|| {
        ApiError::conflict("jobs run on the server's machine and send no records".to_owned())
    })
}

async fn read_body(body: Body, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let read = to_bytes(body, bytes_max).await;
    let read = read.map_err(|error| {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is incomplete or longer than {bytes_max} bytes: {error}"),
        )
    })?;
    Ok(read.into())
}

fn refused(error: ReceiveError) -> ApiError {
    let status = match &error {
        ReceiveError::Conflict => StatusCode::CONFLICT,
        ReceiveError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ReceiveError::NoEntries(_) => StatusCode::BAD_REQUEST,
        ReceiveError::Io(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    ApiError::new(status, error.to_string())
}
