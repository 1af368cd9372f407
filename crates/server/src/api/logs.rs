//! Logs of jobs and instances: what there is, and with `follow` what comes.

use std::{path::PathBuf, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use shipway_drivers::tail::Tail;
use shipway_workflow::job::JobKey;
use utoipa::IntoParams;

use super::{Problem, runs};
use crate::app::App;

/// How to read a log.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Reading {
    /// Go on as long as the log grows.
    #[serde(default)]
    follow: bool,
    /// Which attempt at the job, from 1; the last one when not said.
    attempt: Option<u32>,
    /// The first byte; what a reader has seen it need not see again.
    #[serde(default)]
    offset: u64,
}

/// The log of a job.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/jobs/{key}/log", params(("service" = String, Path), ("number" = String, Path), ("key" = String, Path), Reading),
    responses((status = 200, content_type = "text/plain", body = String), (status = 404, body = Problem)))]
pub(super) async fn job(
    State(app): State<Arc<App>>,
    Path((service, number, key)): Path<(String, String, String)>,
    Query(reading): Query<Reading>,
) -> Result<Response, Problem> {
    let id = runs::id(&service, &number)?;
    let key: JobKey = key
        .parse()
        .map_err(|error: shipway_workflow::job::ParseJobKeyError| {
            Problem::bad_request(error.to_string())
        })?;
    let attempt = match reading.attempt {
        Some(attempt) => attempt,
        None => last_attempt(&app, &id, &key).await,
    };
    let path = app.jobs.log_of(&id, &key, attempt);
    if !path.exists() {
        let run = runs::doc(&app, &id).await?;
        let known: Vec<&str> = run["jobs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|job| job["key"].as_str())
            .collect();
        return Err(Problem::not_found(format!(
            "the job {key} of {id} has no log yet; its jobs are {}",
            known.join(", ")
        )));
    }
    let over = {
        let (app, id, key) = (app.clone(), id.clone(), key.clone());
        move || is_over(app.clone(), id.clone(), key.clone())
    };
    send(path, reading, over)
}

/// The attempt at a job that is shown when none is named.
async fn last_attempt(app: &App, id: &shipway_core::ids::RunId, key: &JobKey) -> u32 {
    let run = runs::doc(app, id).await.unwrap_or_default();
    let jobs = run["jobs"].as_array();
    let job = jobs.and_then(|jobs| jobs.iter().find(|job| job["key"] == *key.as_str()));
    let earlier = job
        .and_then(|job| job["earlier"].as_array())
        .map_or(0, Vec::len);
    u32::try_from(earlier).unwrap_or_default() + 1
}

/// The log of an instance, by its name: `shop.production.3.1`.
#[utoipa::path(get, path = "/api/v1/instances/{name}/log", params(("name" = String, Path), Reading),
    responses((status = 200, content_type = "text/plain", body = String), (status = 404, body = Problem)))]
pub(super) async fn instance(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(reading): Query<Reading>,
) -> Result<Response, Problem> {
    let path = app.target.log(&name).ok_or_else(|| {
        let known: Vec<String> = app
            .target
            .instances()
            .iter()
            .map(|status| status.id.to_string())
            .collect();
        Problem::not_found(format!(
            "there is no log of {name}; running are {}",
            known.join(", ")
        ))
    })?;
    let over = move || {
        let gone = !app
            .target
            .instances()
            .iter()
            .any(|status| status.id.to_string() == name);
        async move { gone }
    };
    send(path, reading, over)
}

async fn is_over(app: Arc<App>, id: shipway_core::ids::RunId, key: JobKey) -> bool {
    let run = runs::doc(&app, &id).await.unwrap_or_default();
    let job = run["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|job| job["key"] == *key.as_str())
        .cloned();
    job.is_none_or(|job| !matches!(job["status"].as_str(), Some("running" | "queued")))
}

/// How long a log that doesn't grow is waited for before it is asked whether it still can.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

fn send<F: Future<Output = bool> + Send>(
    path: PathBuf,
    reading: Reading,
    over: impl Fn() -> F + Send + 'static,
) -> Result<Response, Problem> {
    let tail = Tail::open(&path, reading.offset)
        .map_err(|error| Problem::conflict(format!("the log can't be read: {error}")))?;
    let chunks = stream::unfold((tail, over), move |(mut tail, over)| async move {
        loop {
            let chunk = tail.read().await;
            match chunk {
                Ok(bytes) if !bytes.is_empty() => {
                    return Some((Ok::<Bytes, std::io::Error>(bytes), (tail, over)));
                }
                Ok(_) if !reading.follow => return None,
                Ok(_) => {
                    let grew = tokio::time::timeout(PATIENCE, tail.changed()).await;
                    // Over, and nothing came since: that is the end. What came in this moment is read first.
                    if grew.is_err() && over().await {
                        let rest = tail.read().await.ok().filter(|bytes| !bytes.is_empty())?;
                        return Some((Ok(rest), (tail, over)));
                    }
                }
                Err(error) => return Some((Err(error), (tail, over))),
            }
        }
    });
    Ok((
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from_stream(chunks),
    )
        .into_response())
}
