//! `Idempotency-Key`: a client that doesn't know whether its POST arrived says it again with the same key, and gets the first
//! answer instead of a second deploy.
//!
//! Answers are kept in memory: [`KEPT`] long, [`ANSWERS_MAX`] of them. A server that was started anew has forgotten them; what a
//! key protects is a retry within seconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_core::ids::Digest;
use tokio::sync::OnceCell;

use super::{caller::name_of, problem::Problem};

/// As long as other APIs keep them.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// A few kilobytes each; the oldest go first.
const ANSWERS_MAX: usize = 1_000;
/// Bodies of POSTs and their answers are small documents.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longer keys are mistakes.
const KEY_BYTES_MAX: usize = 255;

/// The header.
const KEY: &str = "idempotency-key";

/// An answer as it was first given.
type Answer = (StatusCode, HeaderMap, Bytes);

/// A request with a key: what was asked, since when, and its answer once there is one. Whoever says it again meanwhile waits.
struct Asked {
    request: Digest,
    at: Instant,
    answer: Arc<OnceCell<Answer>>,
}

/// The answers to requests with keys, by who asked what with which key.
#[derive(Default)]
pub(super) struct Answers(Mutex<BTreeMap<(String, String, String), Asked>>);

impl Answers {
    /// The place of the answer to this request; `None` when the key was used for another one.
    fn place(
        &self,
        key: (String, String, String),
        request: Digest,
    ) -> Option<Arc<OnceCell<Answer>>> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, asked| asked.at.elapsed() < KEPT);
        if asked.len() >= ANSWERS_MAX && !asked.contains_key(&key) {
            let oldest = asked.iter().min_by_key(|(_, asked)| asked.at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                asked.remove(&oldest);
            }
        }
        let entry = asked.entry(key).or_insert_with(|| Asked {
            request: request.clone(),
            at: Instant::now(),
            answer: Arc::default(),
        });
        (entry.request == request).then(|| entry.answer.clone())
    }
}

/// Answers a POST with a key as it was answered the first time.
pub(super) async fn once(
    State(answers): State<Arc<Answers>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = request.headers().get(KEY).cloned() else {
        return next.run(request).await;
    };
    if request.method() != Method::POST || !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    answered_once(&answers, &key, request, next)
        .await
        .unwrap_or_else(|response| response)
}

async fn answered_once(
    answers: &Answers,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
        .ok_or_else(|| bad("the Idempotency-Key is up to 255 ASCII characters"))?;
    let who = name_of(request.headers()).unwrap_or_default();
    let path = request.uri().to_string();
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|error| bad(&format!("the body can't be read: {error}")))?;
    let place = answers
        .place((who, path, key.to_owned()), Digest::of(&body))
        .ok_or_else(|| {
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key was used with another body: a new request takes a new key",
            )
            .into_response()
        })?;
    let request = Request::from_parts(parts, Body::from(body));
    let first = || async {
        let (parts, body) = next.run(request).await.into_parts();
        let body = to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|error| bad(&format!("the answer is too long: {error}")))?;
        let answer = (parts.status, parts.headers, body);
        // What failed for a reason of ours may be tried again with the same key.
        if answer.0.is_server_error() {
            return Err(answer.into_response());
        }
        Ok(answer)
    };
    let (status, headers, body) = place.get_or_try_init(first).await?;
    Ok((*status, headers.clone(), body.clone()).into_response())
}

fn bad(why: &str) -> Response {
    Problem::bad_request(why).into_response()
}
