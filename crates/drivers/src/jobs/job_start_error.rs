//! Why a job can't be started.

use shipway_engine::BlobError;

use super::JobError;

/// Why a job can't be started.
#[derive(Debug, thiserror::Error)]
pub enum JobStartError {
    /// The repository of the job's commit was never pushed.
    #[error("{0} has no repository here")]
    NoRepository(String),
    /// An artifact of the spec has a digest that is none.
    #[error("{0} is not a digest")]
    InvalidDigest(String),
    /// An artifact of an earlier job can't be read.
    #[error(transparent)]
    Artifact(#[from] BlobError),
    /// The worker can't be started.
    #[error(transparent)]
    Worker(#[from] JobError),
}
