//! `Idempotency-Key`: a client that doesn't know whether its POST arrived sends it again with the same key, and gets the first answer
//! instead of a second deploy. [`shipway_core::keyed_request`] decides which answers are stored, and for how long.
//!
//! A request with a key is carried out in a task of its own: a client that disconnects doesn't interrupt it. The same request, sent
//! again meanwhile, waits for the answer of the first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_core::{
    aggregate::{Actor, Aggregate},
    ids::Digest,
    keyed_request::{
        self, KeyedRequestInput, KeyedRequestRejection, KeyedRequests, RecordedResponse,
    },
};
use shipway_engine::{Driver, Engine, StoreError, Work};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    Caller,
    error::{ApiError, RejectionStatus},
};
use crate::app::App;

/// Bodies of POSTs and their answers are small documents.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longer keys are mistakes.
const KEY_BYTES_MAX: usize = 255;
/// Between two looks for keys that have expired.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long requests may take to end when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The requests with keys that are carried out now, and the log of those before.
pub(crate) struct KeyedRequestRunner {
    log: Engine<KeyedRequests>,
    /// By the stream of their key.
    running: Arc<Mutex<BTreeMap<String, RunningRequest>>>,
    tasks: TaskTracker,
}

/// A request that is carried out now.
struct RunningRequest {
    body: Digest,
    answer: watch::Receiver<Option<RecordedResponse>>,
}

/// What becomes of a request with a key.
enum KeyClaim {
    /// The first request with its key: its answer also goes to the requests that wait for it.
    First(
        watch::Sender<Option<RecordedResponse>>,
        watch::Receiver<Option<RecordedResponse>>,
    ),
    /// The same request is carried out now.
    Repeated(watch::Receiver<Option<RecordedResponse>>),
    /// The key is in use for another request.
    OtherBody,
}

impl KeyedRequestRunner {
    pub(crate) fn new(log: Engine<KeyedRequests>) -> Self {
        Self {
            log,
            running: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Waits for the requests that are carried out, so that their answers are recorded.
    pub(crate) async fn stop(&self) {
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some requests with an Idempotency-Key did not end in time");
        }
        self.log.stop().await;
    }

    fn claim_key(&self, stream: &str, body: &Digest) -> KeyClaim {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.get(stream) {
            Some(other) if other.body != *body => KeyClaim::OtherBody,
            Some(same) => KeyClaim::Repeated(same.answer.clone()),
            None => {
                let (sender, answer) = watch::channel(None);
                let entry = RunningRequest {
                    body: body.clone(),
                    answer: answer.clone(),
                };
                running.insert(stream.to_owned(), entry);
                KeyClaim::First(sender, answer)
            }
        }
    }

    /// Carries a request out, unless it has been before; its answer.
    async fn run(log: &Engine<KeyedRequests>, keyed: KeyedRequest, next: Next) -> RecordedResponse {
        let KeyedRequest {
            stream,
            body,
            by,
            request,
        } = keyed;
        let accepted = log
            .send(&stream, KeyedRequestInput::Accept { body }, by.clone())
            .await;
        match accepted {
            Ok(outcome) => {
                if let Some(answer) = outcome.state.answer() {
                    return answer.clone();
                }
            }
            Err(error) => return answer_of(ApiError::from(error).into_response()).await,
        }
        let answer = answer_of(next.run(request).await).await;
        // What failed for a reason of the server's own may be sent again with the same key.
        let input = match answer.status >= 500 {
            true => KeyedRequestInput::Release,
            false => KeyedRequestInput::Answer(answer.clone()),
        };
        if let Err(error) = log.send(&stream, input, by).await {
            tracing::error!(%error, "the answer to a request with an Idempotency-Key could not be recorded");
        }
        answer
    }
}

/// A request with its key.
struct KeyedRequest {
    stream: String,
    body: Digest,
    by: Actor,
    request: Request,
}

/// Removes a request from the running ones, even if its handler panics.
struct RunningRequestGuard {
    running: Arc<Mutex<BTreeMap<String, RunningRequest>>>,
    stream: String,
}

impl Drop for RunningRequestGuard {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.stream);
    }
}

/// Answers a POST with a key as it was answered the first time.
pub(crate) async fn once(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    let is_keyed = request.headers().contains_key(KEY)
        && request.method() == Method::POST
        && request.uri().path().starts_with("/api/")
        && caller.may_use_keys();
    if !is_keyed {
        return next.run(request).await;
    }
    match answered_once(&app.keyed_requests, &caller, request, next).await {
        Ok(answer) => response_of(answer),
        Err(problem) => problem.into_response(),
    }
}

async fn answered_once(
    runner: &KeyedRequestRunner,
    caller: &Caller,
    request: Request,
    next: Next,
) -> Result<RecordedResponse, ApiError> {
    let key = request
        .headers()
        .get(KEY)
        .and_then(|key| key.to_str().ok())
        .filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
        .ok_or_else(|| {
            ApiError::bad_request("the Idempotency-Key must have 1 to 255 ASCII characters")
        })?
        .to_owned();
    let stream = keyed_request::stream(&caller.key(), &request.uri().to_string(), &key);
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|error| ApiError::bad_request(format!("the body can't be read: {error}")))?;
    let digest = Digest::compute(&body);
    let mut answer = match runner.claim_key(&stream, &digest) {
        KeyClaim::OtherBody => return Err(refused(&KeyedRequestRejection::OtherBody)),
        KeyClaim::Repeated(answer) => answer,
        KeyClaim::First(sender, answer) => {
            let finished = RunningRequestGuard {
                running: runner.running.clone(),
                stream: stream.clone(),
            };
            let keyed = KeyedRequest {
                stream,
                body: digest,
                by: caller.actor(),
                request: Request::from_parts(parts, Body::from(body)),
            };
            let log = runner.log.clone();
            runner.tasks.spawn(async move {
                let answer = KeyedRequestRunner::run(&log, keyed, next).await;
                drop(finished);
                sender.send_replace(Some(answer));
            });
            answer
        }
    };
    let answered = answer.wait_for(Option::is_some).await;
    let answered = answered.ok().and_then(|answer| answer.clone());
    answered.ok_or_else(|| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed; what it did is in the log",
        )
    })
}

fn refused(rejection: &KeyedRequestRejection) -> ApiError {
    ApiError::new(rejection.status(), rejection.to_string())
}

impl RejectionStatus for KeyedRequestRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::OtherBody => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Interrupted { .. } => StatusCode::CONFLICT,
        }
    }
}

async fn answer_of(response: Response) -> RecordedResponse {
    let (parts, body) = response.into_parts();
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|it| it.to_str().ok())
        .map(str::to_owned);
    match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(bytes) => RecordedResponse {
            status: parts.status.as_u16(),
            content_type,
            body: String::from_utf8_lossy(&bytes).into_owned(),
        },
        // It was carried out: only its answer is lost.
        Err(_) => RecordedResponse {
            status: parts.status.as_u16(),
            content_type: Some("application/json".to_owned()),
            body: "{}".to_owned(),
        },
    }
}

fn response_of(answer: RecordedResponse) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Bytes::from(answer.body)).into_response();
    let kind = answer
        .content_type
        .and_then(|kind| HeaderValue::try_from(kind).ok());
    match kind {
        Some(kind) => response.headers_mut().insert(header::CONTENT_TYPE, kind),
        None => response.headers_mut().remove(header::CONTENT_TYPE),
    };
    response
}

/// Keys ask nothing of the world.
pub(crate) struct NoEffects;

#[async_trait]
impl Driver<KeyedRequests> for NoEffects {
    async fn carry_out(&self, work: Work<KeyedRequests>) -> KeyedRequestInput {
        match work.effect {}
    }
}

/// Forgets keys that have expired, now and then, for as long as the server runs.
pub(crate) async fn prune(app: Arc<App>) {
    loop {
        if let Err(error) = prune_once(&app).await {
            tracing::warn!(%error, "expired Idempotency-Keys could not be forgotten");
        }
        tokio::time::sleep(PRUNE_INTERVAL).await;
    }
}

async fn prune_once(app: &App) -> Result<(), StoreError> {
    let mut expired = Vec::new();
    for stream in app.store.streams(KeyedRequests::KIND).await? {
        let state = app.keyed_requests.log.read(&stream).await?;
        if state.is_none_or(|state| state.is_expired(app.now())) {
            expired.push(stream);
        }
    }
    if expired.is_empty() {
        return Ok(());
    }
    app.store.forget_streams(expired).await
}
