//! The inputs of a job: the source at its commit and the artifacts of earlier jobs, which its spec names by reference.
//!
//! # Why
//!
//! A worker on the server's machine reads them where the server has them ([`MountedInputs`]). A worker that shares no disk with the
//! server fetches them with the job's token ([`FetchedInputs`]). Actions don't know which of the two it is.
//!
//! # Failure modes
//!
//! A server that can't be reached gets the request again for [`fetched::SERVER_WAIT_MAX`], because it may be
//! restarting. A download is verified: an
//! artifact by its digest, a commit by git. An incomplete download is never used, because it has a temporary name.

mod fetched;
mod job_input_error;
mod mounted;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use shipway_workflow::job::{InputDelivery, JobSpec};

use self::{fetched::FetchedInputs, mounted::MountedInputs};
pub(crate) use job_input_error::JobInputError;

/// Provides what the spec of a job refers to, as files of this machine.
#[async_trait]
pub(crate) trait JobInputProvider: Send + Sync {
    /// A git directory that has the job's commit and its history; the folder itself for a run without a server.
    async fn source(&self) -> Result<PathBuf, JobInputError>;

    /// The tar file of an artifact of the run.
    async fn artifact(&self, digest: &str) -> Result<PathBuf, JobInputError>;
}

/// Inputs of a job that refers to none.
#[cfg(test)]
pub(crate) fn no_inputs() -> Arc<dyn JobInputProvider> {
    Arc::new(MountedInputs::new(&Default::default()))
}

/// The inputs of a job whose worker runs in `folder`.
pub(crate) fn open_inputs(spec: &JobSpec, folder: &Path) -> Arc<dyn JobInputProvider> {
    match (spec.delivery, &spec.server) {
        (InputDelivery::Fetched, Some(server)) => {
            Arc::new(FetchedInputs::new(server, &spec.source, folder))
        }
        // Without a server there is nothing to fetch from.
        (InputDelivery::Fetched, None) | (InputDelivery::Mounted, _) => {
            Arc::new(MountedInputs::new(&spec.mounts))
        }
    }
}
