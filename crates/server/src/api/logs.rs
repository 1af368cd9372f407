//! Logs of jobs and instances; `follow` streams new lines. As server-sent events, a job's log has byte positions as ids: a client
//! that reconnects misses nothing and sees nothing twice.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use shipway_api::{LogChunk, LogQuery};
use shipway_core::{
    access::{JobIdentity, Resource, Verb},
    ids::RunId,
    run::{JobView, RunStatus, RunView},
    target::InstanceId,
};
use shipway_drivers::jobs::{JobExecutor, JobLogEnd, JobLogStream};
use shipway_engine::Store;
use shipway_targets::target::{LogEnd, LogError, LogStream};
use shipway_workflow::job::JobKey;

use super::{ApiError, Caller, runs};
use crate::{
    capabilities::{JobLogs, Workloads},
    read_models::run_view,
};

/// The log of a job. With `Accept: text/event-stream` it is followed from the beginning, even if the job has not started yet, in
/// events of whole lines; the `id` of each is the position of the next byte, and `Last-Event-ID` resumes there. The last event is `end`.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/jobs/{key}/log", operation_id = "read_job_log", params(("service" = String, Path), ("number" = String, Path), ("key" = String, Path), LogQuery),
    responses((status = 200, content_type = "text/plain", body = String), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn job(
    State(logs): State<JobLogs>,
    Path((service, number, key)): Path<(String, String, String)>,
    caller: Caller,
    Query(reading): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = runs::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::JobLogs(id.clone()))?;
    let key = parse_key(&key)?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let seen = header(HeaderName::from_static("last-event-id")).and_then(parse_event_id);
    let attempt = match seen.map(|(attempt, _)| attempt).or(reading.attempt) {
        Some(attempt) => attempt,
        None => last_attempt(&*logs.store, &id, &key).await,
    };
    let job = |attempt| JobIdentity {
        run: id.clone(),
        key: key.clone(),
        attempt,
    };
    if header(header::ACCEPT).is_some_and(|it| it.contains("text/event-stream")) {
        run_view(&*logs.store, &id).await?;
        let offset = seen.map_or(reading.offset, |(_, offset)| offset);
        let lines = LineBuffer::from(attempt, offset);
        return Ok(follow_log(
            logs.store,
            logs.job_executor,
            job(attempt),
            lines,
        ));
    }
    let end = match reading.follow {
        true => JobLogEnd::Finished,
        false => JobLogEnd::Present,
    };
    let log = logs
        .job_executor
        .read_log(&job(attempt), reading.offset, end)
        .await;
    match log {
        Ok(Some(log)) => Ok(text_stream(log)),
        Ok(None) => Err(missing_log(&logs, &job(attempt)).await?),
        Err(error) => Err(ApiError::conflict(error.to_string())),
    }
}

/// The key of a job in an address.
pub(super) fn parse_key(key: &str) -> Result<JobKey, ApiError> {
    key.parse()
        .map_err(|error: shipway_workflow::job::ParseJobKeyError| {
            ApiError::bad_request(error.to_string())
        })
}

/// Why a job has no log.
pub(super) async fn missing_log(logs: &JobLogs, job: &JobIdentity) -> Result<ApiError, ApiError> {
    let run = run_view(&*logs.store, &job.run).await?;
    let known: Vec<&str> = run.jobs.iter().map(|job| job.key.as_str()).collect();
    let has_no_log = match logs.retention.covers(run.finished_at, logs.clock.now()) {
        true => "has no log yet",
        false => "has no log: the retention rule has removed it, or the job never started",
    };
    Ok(ApiError::missing(format!(
        "the job {} of {} {has_no_log}; its jobs are {}",
        job.key,
        job.run,
        known.join(", ")
    )))
}

/// The attempt at a job that is shown when none is named.
pub(super) async fn last_attempt(store: &dyn Store, id: &RunId, key: &JobKey) -> u32 {
    let run = run_view(store, id).await.ok();
    let job = run.as_ref().and_then(|run| job_view(run, key));
    job.map_or(1, JobView::attempt)
}

fn job_view<'r>(run: &'r RunView, key: &JobKey) -> Option<&'r JobView> {
    run.jobs.iter().find(|job| job.key == key.as_str())
}

/// What a reader has seen, by the id of its last event: which attempt at the job, and so many bytes of its log.
fn parse_event_id(id: &str) -> Option<(u32, u64)> {
    let (attempt, offset) = id.split_once('.')?;
    Some((attempt.parse().ok()?, offset.parse().ok()?))
}

/// The log as events, until the job has ended.
fn follow_log(
    store: Arc<dyn Store>,
    job_executor: Arc<dyn JobExecutor>,
    job: JobIdentity,
    mut lines: LineBuffer,
) -> Response {
    let offset = lines.offset;
    let chunks =
        stream::once(async move { open_followed_log(&*store, &*job_executor, &job, offset).await })
            .flat_map(|log| log.unwrap_or_else(|| stream::empty().boxed()));
    let chunks = chunks
        .take_while(|chunk| future::ready(chunk.is_ok()))
        .filter_map(|chunk| future::ready(chunk.ok()));
    let end = stream::once(future::ready(None));
    let events = chunks.map(Some).chain(end).flat_map(move |chunk| {
        let is_last = chunk.is_none();
        let lines = lines.take(chunk);
        let last = is_last.then(|| Event::default().event("end").data("{}"));
        stream::iter(lines.into_iter().chain(last).map(Ok::<Event, Infallible>))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// Opens the log of a job once it has started; `None` if it never will.
pub(super) async fn open_followed_log(
    store: &dyn Store,
    job_executor: &dyn JobExecutor,
    job: &JobIdentity,
    offset: u64,
) -> Option<JobLogStream> {
    // Read the position before the state, so that an event in between is not missed.
    let now = store.last_position().await.ok()?;
    let mut news = store.subscribe(now).await.ok()?;
    loop {
        if job_executor.has_started(job).await {
            let log = job_executor
                .read_log(job, offset, JobLogEnd::Finished)
                .await;
            return log.ok().flatten();
        }
        let run = run_view(store, &job.run).await.ok()?;
        // A job of a matrix is not there before its matrix is known.
        let may_begin = job_view(&run, &job.key).map_or(run.finished_at.is_none(), |job| {
            matches!(
                job.status,
                RunStatus::Waiting | RunStatus::Queued | RunStatus::Running
            )
        });
        if !may_begin {
            return None;
        }
        while news.next().await?.ok()?.stream != job.run.stream() {}
    }
}

/// Chunks made whole lines again.
struct LineBuffer {
    attempt: u32,
    pending: Vec<u8>,
    /// Where `pending` begins, in bytes of the log.
    offset: u64,
}

impl LineBuffer {
    const fn from(attempt: u32, offset: u64) -> Self {
        Self {
            attempt,
            pending: Vec::new(),
            offset,
        }
    }

    /// An event with the complete lines so far; without a chunk, also with the incomplete last line.
    fn take(&mut self, chunk: Option<Bytes>) -> Option<Event> {
        let end = match &chunk {
            Some(chunk) => {
                self.pending.extend_from_slice(chunk);
                self.pending.iter().rposition(|byte| *byte == b'\n')? + 1
            }
            None => self.pending.len(),
        };
        let lines: Vec<u8> = self.pending.drain(..end).collect();
        if lines.is_empty() {
            return None;
        }
        self.offset += end as u64;
        // As JSON: an event's own lines can't hold a carriage return.
        let chunk = LogChunk {
            text: String::from_utf8_lossy(&lines).into_owned(),
        };
        let data = serde_json::to_string(&chunk).expect("a string is plain data");
        let id = format!("{}.{}", self.attempt, self.offset);
        Some(Event::default().id(id).data(data))
    }
}

/// The log of an instance, by its name: `shop.production.3.1`.
#[utoipa::path(get, path = "/api/v1/instances/{name}/log", operation_id = "read_instance_log", params(("name" = String, Path), LogQuery),
    responses((status = 200, content_type = "text/plain", body = String), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn instance(
    State(workloads): State<Workloads>,
    Path(name): Path<String>,
    caller: Caller,
    Query(reading): Query<LogQuery>,
) -> Result<Response, ApiError> {
    // A malformed name has no log; the answer then lists the instances of all services.
    let named = name.parse::<InstanceId>();
    let resource = named.map_or(Resource::Server, Resource::Instance);
    caller.require(Verb::Read, &resource)?;
    let missing = || {
        let instances = workloads.targets.instances();
        let visible = caller.visible_services();
        let known = (instances.iter()).filter(|it| visible.contains(&it.id.set.place.service));
        let known: Vec<String> = known.map(|it| it.id.to_string()).collect();
        ApiError::missing(format!(
            "there is no log of {name}; running are {}",
            known.join(", ")
        ))
    };
    let id: InstanceId = name.parse().map_err(|_| missing())?;
    let end = match reading.follow {
        true => LogEnd::Stopped,
        false => LogEnd::Present,
    };
    match workloads.targets.read_log(&id, reading.offset, end) {
        Ok(log) => Ok(text_stream(log)),
        Err(LogError::Missing(_)) => Err(missing()),
        Err(error @ LogError::Io(_)) => Err(ApiError::conflict(error.to_string())),
    }
}

/// How often a quiet connection is shown to be alive; proxies give up after a minute or so.
pub(crate) const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

fn text_stream(log: LogStream) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from_stream(log),
    )
        .into_response()
}
