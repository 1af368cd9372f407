//! Why submodules and large files of a checkout could not be fetched.

use std::{io, path::PathBuf};

/// Why git could not fetch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkGitError {
    #[error("git can't be started: {0}")]
    Start(io::Error),
    /// The first error that git printed.
    #[error("{0}")]
    Failed(String),
}

/// Why large files are not fetched, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LargeFileError {
    #[error(
        "git-lfs is not installed on this machine; install it (apt-get install git-lfs), or remove `lfs: true` if the job doesn't need these files"
    )]
    NotInstalled,
    #[error("git-lfs can't be used: {0}")]
    Install(String),
    #[error(
        "this server doesn't know where they are stored: name the repository with `repository:` in shipway.yaml, or their server: git config -f .lfsconfig lfs.url URL"
    )]
    UnknownServer,
    #[error(
        "lfs.url in .lfsconfig is {0:?}, but only addresses of http, https and ssh are fetched"
    )]
    Address(String),
    #[error("{address}: {source}")]
    Fetch {
        address: String,
        source: NetworkGitError,
    },
    #[error("they are still pointers in {}; fetch them: git lfs pull", .0.display())]
    StillPointers(PathBuf),
}
