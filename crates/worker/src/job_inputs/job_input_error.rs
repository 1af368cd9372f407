//! Why an input of a job is not available.

use std::io;

use crate::{path_error::PathError, server_request::RequestError};

/// Why an input of a job is not available; the message is the reason of the step that needs it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobInputError {
    /// The executor has not mounted it.
    #[error("the artifact {0} is not on this machine")]
    NotMounted(String),
    #[error("{input} can't be fetched: {source}")]
    Request {
        /// E.g. `the source`.
        input: String,
        source: RequestError,
    },
    #[error("the artifact that was fetched is {actual}, not {expected}")]
    WrongDigest { expected: String, actual: String },
    #[error("the source can't be unpacked: git {command}: {reason}")]
    Git { command: String, reason: String },
    #[error("git can't be run: {0}")]
    GitMissing(io::Error),
    #[error(transparent)]
    File(#[from] PathError),
    /// A blocking task has panicked.
    #[error(transparent)]
    Panicked(#[from] tokio::task::JoinError),
}
