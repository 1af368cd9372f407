//! Starts workers as processes of this machine in empty folders, as if they ran on another one: a folder has the spec of its job, and
//! nothing else of the server. For tests of what Pods and other machines need.

use std::path::PathBuf;

use async_trait::async_trait;
use shipway_core::access::JobIdentity;
use shipway_workflow::job::JobSpec;
use tokio::task::spawn_blocking;

use super::{JobError, JobRunner, WorkerLauncher, io_error};

/// Starts workers in new folders below `root`, which are removed when the workers have exited.
pub struct EmptyFolderLauncher {
    runner: JobRunner,
    root: PathBuf,
}

impl EmptyFolderLauncher {
    /// A launcher of workers as `runner` starts them.
    #[must_use]
    pub const fn new(runner: JobRunner, root: PathBuf) -> Self {
        Self { runner, root }
    }
}

#[async_trait]
impl WorkerLauncher for EmptyFolderLauncher {
    async fn launch(&self, _: &JobIdentity, spec: &JobSpec) -> Result<(), JobError> {
        let folder = tempfile::Builder::new()
            .prefix("job-")
            .tempdir_in(&self.root);
        let folder = folder.map_err(io_error("making a folder in", &self.root))?;
        let mut spec = spec.clone();
        spec.mounts.folder = folder.path().to_owned();
        self.runner.start_worker(&spec)?;
        let exited = self.runner.child_exit(folder.path());
        tokio::spawn(async move {
            if let Some(exited) = exited {
                exited.cancelled().await;
            }
            let _ = spawn_blocking(move || drop(folder)).await;
        });
        Ok(())
    }
}
