//! What can go wrong with git, in words a person can act on.

use std::{io, path::PathBuf, time::Duration};

/// Why something asked of git was not done.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The `git` command is missing or could not be run.
    #[error("git could not be started ({0}); is it installed and on PATH?")]
    Start(#[source] io::Error),
    /// Git ran and refused or failed; the reason is git's own.
    #[error("git could not {what}: {reason}")]
    Failed {
        /// What was asked, as a verb phrase.
        what: &'static str,
        /// What git said, in one sentence.
        reason: String,
    },
    /// Git took longer than the work could need. Trying again is sensible.
    #[error("git did not {what} within {} s", after.as_secs())]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// The answer is larger than the caller can use.
    #[error("{what} is larger than {max_bytes} bytes")]
    TooLarge {
        /// What was read: a path, or a verb phrase.
        what: String,
        /// The limit.
        max_bytes: u64,
    },
    /// Git answered in a form that was not expected: another version, or a damaged repository.
    #[error("git's answer to {what:?} could not be read: {line:?}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// The first part of what could not be read.
        line: String,
    },
    /// A path that cannot name a file inside a repository: absolute, with `..`, or with a line break.
    #[error("{0:?} is not a path inside a repository")]
    Path(String),
    /// The service has no repository yet.
    #[error("there is no repository for this service at {}", .0.display())]
    Missing(PathBuf),
    /// A file of ours could not be read or written.
    #[error("could not {what} {}: {source}", path.display())]
    Io {
        /// What was done with it, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
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
