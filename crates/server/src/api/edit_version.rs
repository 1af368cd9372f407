//! Versions of what can be edited: `ETag` in responses, `If-Match` in requests.

use axum::{
    Json,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::error::ApiError;

/// The version that a client has seen; none when it edits any.
pub(super) fn seen_version(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_start_matches("W/").trim_matches('"').parse();
    number.map(Some).map_err(|_| {
        ApiError::bad_request("the header `If-Match` must have the `ETag` of the last response")
    })
}

/// A document with its version.
pub(super) fn versioned(version: u64, document: impl Serialize) -> Response {
    ([(header::ETAG, format!("\"{version}\""))], Json(document)).into_response()
}
