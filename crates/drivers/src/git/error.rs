//! Errors of git operations.

use std::{io, path::PathBuf, time::Duration};

/// Why a git operation failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The `git` command is missing or could not be run.
    #[error("git could not be started ({0}); is it installed and on PATH?")]
    Start(#[source] io::Error),
    /// Git failed; the reason is git's own message.
    #[error("git could not {what}: {reason}")]
    Failed {
        /// The operation, as a verb phrase.
        what: &'static str,
        /// Git's message.
        reason: String,
    },
    /// Git exceeded its deadline. A retry may succeed.
    #[error("git did not {what} within {} s", after.as_secs())]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The output is larger than the caller can use.
    #[error("{what} is larger than {max_bytes} bytes")]
    TooLarge {
        /// The object of the read: a path, or a verb phrase.
        what: String,
        /// The limit.
        max_bytes: u64,
    },
    /// Git's output could not be parsed: another version, or a damaged repository.
    #[error("can't parse git's output of {what:?}: {line:?}")]
    Answer {
        /// The request.
        what: &'static str,
        /// The start of the unparsable output.
        line: String,
    },
    /// Not a path inside a repository: absolute, with `..`, or with a line break.
    #[error("{0:?} is not a path inside a repository")]
    Path(String),
    /// The service has no repository yet.
    #[error("there is no repository for this service at {}", .0.display())]
    Missing(PathBuf),
    /// A file of Shipway's could not be read or written.
    #[error("could not {what} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl GitError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn answer(what: &'static str, line: &[u8]) -> Self {
        let shown = &line[..line.len().min(120)];
        Self::Answer {
            what,
            line: String::from_utf8_lossy(shown).into_owned(),
        }
    }
}
