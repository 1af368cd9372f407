//! Parts of the logs of jobs: lines by their numbers, lines that contain a text, and the growth of a log as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, stream};
use shipway_api::{LogGrowth, LogMatches, LogSearchQuery, LogWindowQuery};
use shipway_core::access::{JobIdentity, Resource, Verb};
use shipway_workflow::job::JobKey;

use super::{ApiError, Caller, logs, runs};
use crate::{
    capabilities::JobLogs,
    job_logs::{JobLogReader, LogWindowPosition, SearchText},
};

/// Lines of a window when the request gives no number.
const LINES_DEFAULT: u32 = 500;
const LINES_MAX: u32 = 2_000;
/// The time from one event about the growth of a log to the next.
const GROWTH_INTERVAL: Duration = Duration::from_millis(100);

/// Lines of a job's log by their numbers, with the steps of the job and the numbers of their lines. With `Accept: text/event-stream`
/// an event tells how long the log is each time it has grown, even if the job has not started yet; the last event is `end`.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/jobs/{key}/log/lines", operation_id = "read_log_lines", params(("service" = String, Path), ("number" = String, Path), ("key" = String, Path), LogWindowQuery),
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn lines(
    State(logs): State<JobLogs>,
    State(reader): State<JobLogReader>,
    Path((service, number, key)): Path<(String, String, String)>,
    caller: Caller,
    Query(query): Query<LogWindowQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let position = parse_position(&query)?;
    let job = named_job(&logs, &caller, (&service, &number, &key), query.attempt).await?;
    let accepted = headers.get(header::ACCEPT);
    let accepted = accepted.and_then(|value| value.to_str().ok());
    if accepted.is_some_and(|it| it.contains("text/event-stream")) {
        crate::read_models::run_view(&*logs.store, &job.run).await?;
        return Ok(follow_growth(logs, reader, job));
    }
    let count = query.count.unwrap_or(LINES_DEFAULT).clamp(1, LINES_MAX) as usize;
    let window = reader.read_window(&job, position, count).await;
    match window.map_err(|error| ApiError::conflict(error.to_string()))? {
        Some(window) => Ok(Json(window).into_response()),
        None => Err(logs::missing_log(&logs, &job).await?),
    }
}

/// The lines of a job's log that contain a text, whatever its case.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/jobs/{key}/log/search", operation_id = "search_log", params(("service" = String, Path), ("number" = String, Path), ("key" = String, Path), LogSearchQuery),
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn search(
    State(logs): State<JobLogs>,
    State(reader): State<JobLogReader>,
    Path((service, number, key)): Path<(String, String, String)>,
    caller: Caller,
    Query(query): Query<LogSearchQuery>,
) -> Result<Json<LogMatches>, ApiError> {
    let job = named_job(&logs, &caller, (&service, &number, &key), query.attempt).await?;
    let text =
        SearchText::parse(&query.text).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let matches = reader.search(&job, &text).await;
    match matches.map_err(|error| ApiError::conflict(error.to_string()))? {
        Some(matches) => Ok(Json(matches)),
        None => Err(logs::missing_log(&logs, &job).await?),
    }
}

/// The attempt at a job that a request is about, if the caller may read its log.
async fn named_job(
    logs: &JobLogs,
    caller: &Caller,
    (service, number, key): (&str, &str, &str),
    attempt: Option<u32>,
) -> Result<JobIdentity, ApiError> {
    let run = runs::id(service, number)?;
    caller.require(Verb::Read, &Resource::JobLogs(run.clone()))?;
    let key: JobKey = logs::parse_key(key)?;
    let attempt = match attempt {
        Some(attempt) => attempt,
        None => logs::last_attempt(&*logs.store, &run, &key).await,
    };
    Ok(JobIdentity { run, key, attempt })
}

fn parse_position(query: &LogWindowQuery) -> Result<LogWindowPosition, ApiError> {
    let given = [
        query.from.map(LogWindowPosition::From),
        query.line.map(LogWindowPosition::Around),
        query.step.map(LogWindowPosition::Step),
        query.at.map(LogWindowPosition::Place),
    ];
    let mut given = given.into_iter().flatten();
    let position = given.next().unwrap_or(LogWindowPosition::From(1));
    match given.next() {
        None => Ok(position),
        Some(_) => Err(ApiError::bad_request(
            "`from`, `line`, `step` and `at` exclude each other: give one of them",
        )),
    }
}

/// An event each time the log has grown, until the job has ended.
fn follow_growth(logs: JobLogs, reader: JobLogReader, job: JobIdentity) -> Response {
    let opened = async move {
        let now = reader.measure(&job).await.ok().flatten();
        let offset = now.map_or(0, |now| now.bytes);
        let chunks = logs::open_followed_log(&*logs.store, &*logs.job_executor, &job, offset).await;
        let chunks = chunks.unwrap_or_else(|| stream::empty().boxed());
        let news = chunks.ready_chunks(256).then(move |_| {
            let (reader, job) = (reader.clone(), job.clone());
            async move {
                let growth = reader.measure(&job).await.ok().flatten();
                // Chunks that come meanwhile are one event.
                tokio::time::sleep(GROWTH_INTERVAL).await;
                growth
            }
        });
        stream::iter(now).chain(news.filter_map(std::future::ready))
    };
    let growth = stream::once(opened).flatten();
    let end = stream::once(std::future::ready(Event::default().event("end").data("{}")));
    let events = growth.map(|growth: LogGrowth| {
        let data = serde_json::to_string(&growth).expect("numbers are plain data");
        Event::default().data(data)
    });
    Sse::new(events.chain(end).map(Ok::<Event, Infallible>))
        .keep_alive(KeepAlive::new().interval(logs::KEEP_ALIVE))
        .into_response()
}
