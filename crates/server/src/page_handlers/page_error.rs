//! The reasons why a page can't be shown, and the pages of refusals.

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderName, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_api::Problem;
use shipway_drivers::jobs::JobError;
use shipway_engine::StoreError;

use shipway_pages::refusal_page;

use super::html;
use crate::{
    accepted_content::accepts_html, api::ApiError, read_models::ReadModelError,
    run_page::RunPageError,
};

/// Why a page can't be shown.
pub(super) enum PageError {
    NotFound(String),
    Failed(ApiError),
}

impl From<ReadModelError> for PageError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::NoRun(_) | ReadModelError::NoRollout { .. } => {
                Self::NotFound(error.to_string())
            }
            ReadModelError::UnreadableRow { .. }
            | ReadModelError::Store(_)
            | ReadModelError::Analysis(_) => Self::Failed(error.into()),
        }
    }
}

impl From<RunPageError> for PageError {
    fn from(error: RunPageError) -> Self {
        match error {
            RunPageError::ReadModel(error) => error.into(),
            RunPageError::Log(error) => error.into(),
        }
    }
}

impl From<JobError> for PageError {
    fn from(error: JobError) -> Self {
        Self::Failed(ApiError::conflict(error.to_string()))
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApiError> for PageError {
    fn from(problem: ApiError) -> Self {
        Self::Failed(problem)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(reason) => refusal_response(StatusCode::NOT_FOUND, &reason),
            Self::Failed(problem) => {
                let status = StatusCode::from_u16(problem.0.status);
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                refusal_response(status, &problem.0.detail)
            }
        }
    }
}

fn refusal_response(status: StatusCode, reason: &str) -> Response {
    (status, html(refusal_page(status.as_u16(), reason))).into_response()
}

/// Addresses of programs, which get problem documents whatever they accept.
const PROGRAM_ADDRESSES: [&str; 4] = ["/api/", "/git/", "/hooks/", "/internal/"];
/// Bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Headers of a refusal that its page has too.
const PASSED_ON: [HeaderName; 2] = [header::ALLOW, header::RETRY_AFTER];

/// Shows refusals to browsers as pages, also those of the checks before a handler and of the parsing of requests.
pub(crate) async fn show_refusals(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_program = PROGRAM_ADDRESSES.iter().any(|it| path.starts_with(it));
    let wants_page = !is_program && accepts_html(request.headers());
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    if !(wants_page && is_refusal && has_reason(&response)) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let reason = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => problem.detail,
        Err(_) if status == StatusCode::METHOD_NOT_ALLOWED => {
            format!("This address does not accept {method} requests.")
        }
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let mut page = refusal_response(status, &reason);
    for name in PASSED_ON {
        if let Some(value) = parts.headers.get(&name) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

/// Whether a refusal is a problem document, a text or empty; everything else is what its handler wants to be shown.
fn has_reason(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_none_or(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/problem+json") || kind.starts_with(b"text/plain")
    })
}
