//! Requests to the server.

use std::time::Duration;

use serde_json::Value;
use shipway_workflow::job::ServerAccess;

/// Why a request to the server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    /// The run's artifact is not, or not yet, in the server's store.
    #[error("{0}")]
    ArtifactMissing(String),
    /// Another error response.
    #[error("{0}")]
    Refused(String),
}

/// The server's problem type for an artifact that the run has not uploaded (`server/api/deploys.rs`).
const ARTIFACT_MISSING: &str = "urn:shipway:problem:artifact-missing";

impl RequestError {
    /// From an error response with a problem document (RFC 9457).
    pub(crate) fn from_problem(status: ureq::http::StatusCode, problem: &Value) -> Self {
        let detail = problem["detail"].as_str().map(str::to_owned);
        let detail = detail.unwrap_or_else(|| format!("the server responded with {status}"));
        match problem["type"].as_str() {
            Some(ARTIFACT_MISSING) => Self::ArtifactMissing(detail),
            _ => Self::Refused(detail),
        }
    }
}

pub(crate) fn bearer_header(access: &ServerAccess) -> String {
    format!("Bearer {}", access.token)
}

pub(crate) fn http_agent(timeout: Option<Duration>) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(timeout)
        .build()
        .into()
}

/// Sends a GET with the token; an error response is an error.
pub(crate) fn get_from_server(
    server: &ServerAccess,
    path: &str,
) -> Result<ureq::http::Response<ureq::Body>, RequestError> {
    let asked = http_agent(None)
        .get(format!("{}{path}", server.url))
        .header("authorization", bearer_header(server))
        .call();
    let mut answer = asked.map_err(|error| RequestError::Unreachable(error.to_string()))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let problem: serde_json::Value = answer.body_mut().read_json().unwrap_or_default();
    Err(RequestError::from_problem(status, &problem))
}
