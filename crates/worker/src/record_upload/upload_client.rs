//! The requests that send records.

use std::{fs::File, time::Duration};

use serde::Deserialize;
use shipway_workflow::job::ServerAccess;
use ureq::{AsSendBody, http::StatusCode};

use crate::server_request::{bearer_header, http_agent};

/// Timeout of a request with a few bytes; longer than the server holds back the answer about a cancellation.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A record that bytes are appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordName {
    Journal,
    Log,
}

/// Why a request has not been carried out.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The server can't be reached, is stopping, or has no space: the request may succeed later.
    Unreachable(String),
    /// The server takes no more.
    TooLarge,
    /// The file can't be read, or is not what its digest says.
    Unusable(String),
    /// The token isn't valid any more, or another worker runs the job.
    Refused(String),
}

/// The length of a record on the server.
#[derive(Deserialize)]
struct RecordLength {
    length: u64,
}

#[derive(Deserialize)]
struct CancellationState {
    cancelled: bool,
}

pub(super) struct UploadClient {
    agent: ureq::Agent,
    /// For files of any size.
    file_agent: ureq::Agent,
    access: ServerAccess,
}

impl UploadClient {
    pub(super) fn new(access: &ServerAccess) -> Self {
        Self {
            agent: http_agent(Some(ANSWER_TIMEOUT)),
            file_agent: http_agent(None),
            access: access.clone(),
        }
    }

    /// Appends bytes to a record at an offset; returns the record's length, which is less if the server lacks bytes before.
    pub(super) fn append(
        &self,
        record: RecordName,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, UploadError> {
        let name = match record {
            RecordName::Journal => "journal",
            RecordName::Log => "log",
        };
        let path = format!("{name}?offset={offset}");
        let mut answer = self.send_body(&self.agent, &path, bytes)?;
        let length: RecordLength = answer.body_mut().read_json().map_err(unreadable)?;
        Ok(length.length)
    }

    /// Stores a file under the digest of its bytes.
    pub(super) fn store_file(&self, digest: &str, file: &File) -> Result<(), UploadError> {
        self.send_body(&self.file_agent, &format!("files/{digest}"), file)
            .map(drop)
    }

    /// Stores the summary of a step.
    pub(super) fn store_summary(&self, index: usize, text: &[u8]) -> Result<(), UploadError> {
        self.send_body(&self.agent, &format!("summaries/{index}"), text)
            .map(drop)
    }

    /// Whether the job is cancelled; the server answers when it is, or after a while.
    pub(super) fn wait_for_cancellation(&self) -> Result<bool, UploadError> {
        let request = self.agent.get(self.url("cancellation"));
        let request = request.header("authorization", bearer_header(&self.access));
        let mut answer = check_answer(request.call())?;
        let state: CancellationState = answer.body_mut().read_json().map_err(unreadable)?;
        Ok(state.cancelled)
    }

    fn send_body(
        &self,
        agent: &ureq::Agent,
        path: &str,
        body: impl AsSendBody,
    ) -> Result<ureq::http::Response<ureq::Body>, UploadError> {
        let request = agent.put(self.url(path));
        let request = request
            .header("authorization", bearer_header(&self.access))
            .header("content-type", "application/octet-stream");
        check_answer(request.send(body))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/internal/job/{path}", self.access.url)
    }
}

fn unreadable(error: ureq::Error) -> UploadError {
    UploadError::Unreachable(error.to_string())
}

fn check_answer(
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<ureq::http::Response<ureq::Body>, UploadError> {
    let mut answer = sent.map_err(unreadable)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: serde_json::Value = answer.body_mut().read_json().unwrap_or_default();
    let detail = problem["detail"].as_str().map(str::to_owned);
    let detail = detail.unwrap_or_else(|| format!("the server answers {status}"));
    Err(match status {
        StatusCode::PAYLOAD_TOO_LARGE => UploadError::TooLarge,
        StatusCode::UNPROCESSABLE_ENTITY => UploadError::Unusable(detail),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            UploadError::Unreachable(detail)
        }
        status if status.is_server_error() => UploadError::Unreachable(detail),
        _ => UploadError::Refused(detail),
    })
}
