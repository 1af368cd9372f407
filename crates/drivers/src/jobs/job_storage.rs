//! The storage of runs where their jobs run: claimed, cleaned up, and opened for a debug shell.

use std::{collections::BTreeSet, io, path::PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use shipway_core::{
    access::JobIdentity,
    ids::{RunId, RunUid},
};
use shipway_workflow::job::{JobKey, JobSpec};

use super::{JobStartError, ShellFileName};

/// The jobs of a run whose workspaces are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkspaceSelection {
    /// All jobs.
    All,
    /// The jobs with these keys.
    Jobs(BTreeSet<JobKey>),
}

/// Why the spec of a debug shell can't be handed over.
#[derive(Debug, thiserror::Error)]
pub enum ShellFileError {
    /// What the spec refers to isn't there.
    #[error(transparent)]
    Spec(#[from] JobStartError),
    /// The workspace has ended with the worker.
    #[error("the job ran in a folder that ended with it, so that no shell can be opened there")]
    NoWorkspace,
    /// The file can't be written.
    #[error("the file that takes the spec must be there, and empty: {0}")]
    File(#[from] io::Error),
}

/// Storage of runs: workspaces, homes, temporary files and records of their jobs.
#[async_trait]
pub trait JobStorage: Send + Sync {
    /// Claims the storage of a run; returns the new path if files of another run with its number were moved aside. Idempotent.
    async fn claim_run(&self, run: &RunId, uid: &RunUid) -> io::Result<Option<PathBuf>>;

    /// All runs that have storage.
    async fn list_runs(&self) -> Vec<RunId>;

    /// Removes workspaces, homes and temporary files of all attempts at the selected jobs, which have ended; logs, journals and
    /// summaries stay. Returns how many attempts at jobs of the run still have some.
    async fn remove_workspaces(&self, run: &RunId, jobs: WorkspaceSelection) -> usize;

    /// The space that everything of a run takes, in bytes.
    async fn measure_run(&self, run: &RunId) -> u64;

    /// Removes everything of a run that has ended, logs and journals too; returns the freed space in bytes. None if there is nothing, a
    /// job of it was started since, or a process is in its folder.
    async fn remove_run(&self, run: &RunId, claimed_since: Timestamp) -> io::Result<Option<u64>>;

    /// The folder of the job on the machine that ran it, for a person there.
    fn shell_folder(&self, job: &JobIdentity) -> PathBuf;

    /// Writes the spec of a debug shell, with the mounts of the machine that ran the job, into an empty file that the caller has
    /// created in the [`JobStorage::shell_folder`]: the caller proves with it that it may read that folder.
    async fn write_shell_spec(
        &self,
        job: &JobIdentity,
        spec: JobSpec,
        file: &ShellFileName,
    ) -> Result<(), ShellFileError>;
}
