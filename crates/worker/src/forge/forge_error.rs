//! Why something can't be fetched from a forge.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// Timeout for fetching one repository, including retries.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Limit for a workflow file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a repository can't be fetched. The message doesn't name repository and ref.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForgeError {
    /// The repository's name is invalid.
    #[error("{0} is not the name of a repository")]
    InvalidRepository(String),
    /// The ref is invalid.
    #[error("{0:?} is not a branch, a tag or a commit")]
    InvalidReference(String),
    /// The forge is slow or hangs.
    #[error("git took longer than {PATIENCE:?}")]
    TimedOut,
    /// The repository has no such ref.
    #[error("the repository has no branch or tag {0}; a commit needs all 40 digits")]
    UnknownReference(String),
    /// The repository has no such commit.
    #[error("the repository has no commit {0}")]
    UnknownCommit(String),
    /// The forge is a folder without this repository.
    #[error("no repository at {0}")]
    NoRepository(String),
    /// Git failed; with the end of its output, or what to do.
    #[error("{0}")]
    Git(String),
    /// Git is not installed.
    #[error("git can't be run: {0}")]
    GitMissing(io::Error),
    /// The token file can't be used.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// The cache of repositories can't be written.
    #[error("{}: {source}", path.display())]
    Cache {
        /// The path in the cache.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Why a token file can't be used. Never contains the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// The file can't be read.
    #[error("the token of the forge in {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is a folder or a device.
    #[error("the token of the forge: {} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// Its mode gives access to other users.
    #[error(
        "the token of the forge in {path} may be read by others: chmod 600 {path}",
        path = .0.display()
    )]
    ReadableByOthers(PathBuf),
    /// It doesn't contain exactly one word.
    #[error("the token of the forge in {} is not one line with a token, or with name:token", .0.display())]
    NotOneLine(PathBuf),
}

/// Why a workflow file can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// The repository can't be fetched.
    #[error(
        "{repository} at {reference} can't be fetched from {forge}: {source}; check its name and ref, or name a forge or a folder of bare repositories that has it with --forge (SHIPWAY_FORGE)"
    )]
    NotFetched {
        /// `owner/repo`
        repository: String,
        /// The ref.
        reference: String,
        /// The forge's address.
        forge: String,
        /// The cause.
        source: Arc<ForgeError>,
    },
    /// The repository has no usable file at the path.
    #[error("{repository} at {reference} ({commit}): {problem}")]
    File {
        /// `owner/repo`
        repository: String,
        /// The ref.
        reference: String,
        /// The first digits of the commit.
        commit: String,
        /// The problem.
        problem: WorkflowFileProblem,
    },
}

/// Why a path is no usable workflow file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowFileProblem {
    /// Nothing is at the path.
    #[error("no such file")]
    Missing,
    /// The path contains `..` or is absolute.
    #[error("its path leaves the repository")]
    LeavesRepository,
    /// A component of the path is a symlink.
    #[error("it is a link; only files can be called")]
    IsLink,
    /// It is a folder or a device.
    #[error("it is not a file")]
    NotAFile,
    /// It is too large for a workflow.
    #[error("it is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// It can't be read.
    #[error(transparent)]
    Unreadable(io::Error),
}

impl From<io::Error> for WorkflowFileProblem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}
