//! `Idempotency-Key`: a client that doesn't know whether its POST arrived sends it again with the same key, and gets the first answer
//! instead of a second deploy. [`crate::keyed_requests`] carries such requests out.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_core::{
    aggregate::Actor,
    ids::Digest,
    keyed_request::{self, KeyedRequestRejection, RecordedResponse},
};

use super::{
    Caller,
    error::{ApiError, RejectionStatus},
};
use crate::keyed_requests::{FirstRequest, KeyClaim, KeyedRequestRunner};

/// Bodies of POSTs and their answers are small documents.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longer keys are refused.
const KEY_BYTES_MAX: usize = 255;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Answers a POST with a key as it was answered the first time.
pub(crate) async fn once(
    State(keyed_requests): State<Arc<KeyedRequestRunner>>,
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
    if has_secrets(request.uri().path()) {
        let why = "an Idempotency-Key can't be used here: the log must not hold passwords, tokens and secrets; send the request without it";
        return ApiError::bad_request(why).into_response();
    }
    match answered_once(&keyed_requests, &caller, request, next).await {
        Ok(answer) => response_of(answer),
        Err(problem) => problem.into_response(),
    }
}

/// Whether requests to this address, or their responses, have secrets. The log would have the response, and a digest of the body, from
/// which a weak secret can be guessed.
fn has_secrets(path: &str) -> bool {
    ["/api/v1/users", "/api/v1/tokens", "/api/v1/secrets"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
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
        KeyClaim::First(first, answer) => {
            let request = Request::from_parts(parts, Body::from(body));
            let by = caller.actor();
            runner.spawn(async move {
                let answer = carry_out(&first, request, by, next).await;
                first.finish(answer);
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

/// Carries a request out, unless it has been before; its answer.
async fn carry_out(
    first: &FirstRequest,
    request: Request,
    by: Actor,
    next: Next,
) -> RecordedResponse {
    match first.accept(by.clone()).await {
        Ok(Some(recorded)) => return recorded,
        Ok(None) => {}
        Err(error) => return answer_of(ApiError::from(error).into_response()).await,
    }
    let answer = answer_of(next.run(request).await).await;
    first.record(&answer, by).await;
    answer
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
