//! What the server asks of the place where jobs run, be that this machine, a Pod or another machine.
//!
//! # Invariants
//!
//! - An attempt at a job is named by its [`JobIdentity`]; where its worker keeps its files is known to the executor alone.
//! - An executor has no state that the server must remember: after a restart it finds each job by its identity.
//! - A path in a journal is one of the machine that the job ran on. Only [`JobFiles::open_file`](super::JobFiles::open_file)
//!   interprets it.

use async_trait::async_trait;
use shipway_core::access::JobIdentity;
use shipway_workflow::{
    job::{JobSpec, JournalEntry},
    runner::{RunnerMismatch, RunnerRequest},
};
use tokio_util::sync::CancellationToken;

use super::{AttemptRecords, JobError, JobInbox, JobSlots, JobStartError, JobStorage};

/// Number of entries of a journal that were read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JournalOffset(pub usize);

/// The journal of a job, entry by entry as it is written.
#[async_trait]
pub trait JournalStream: Send {
    /// The next entry; `None` after the last. A worker that exited without a last entry is an error.
    ///
    /// Cancel safe: no entry is lost.
    async fn next(
        &mut self,
        cancelled: &CancellationToken,
    ) -> Result<Option<JournalEntry>, JobError>;
}

/// Starts workers for jobs and finds them again.
#[async_trait]
pub trait JobExecutor: AttemptRecords + JobStorage {
    /// Checks that jobs which request these labels can run here.
    fn check_request(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch>;

    /// The slots of concurrent jobs. Acquire one before starting a job.
    fn slots(&self) -> &JobSlots;

    /// Receives the records of workers that share no disk with the server; `None` if all share it.
    fn inbox(&self) -> Option<&JobInbox> {
        None
    }

    /// Whether a worker has begun the job's journal, which it does shortly after its start.
    async fn has_started(&self, job: &JobIdentity) -> bool;

    /// Whether the worker of the job is alive.
    async fn is_running(&self, job: &JobIdentity) -> bool;

    /// Starts a worker for the job, unless one was started before. The spec has no mounts: what it refers to is fetched to where the
    /// worker runs.
    async fn start_job(&self, job: &JobIdentity, spec: JobSpec) -> Result<(), JobStartError>;

    /// Opens the journal of a started job after the entries that were read before.
    async fn open_journal(
        &self,
        job: &JobIdentity,
        offset: JournalOffset,
    ) -> Result<Box<dyn JournalStream>, JobError>;

    /// Cancels a job: running steps are stopped, cleanup steps run. Idempotent.
    async fn cancel_job(&self, job: &JobIdentity);

    /// Appends a line to the log of a job whose worker has exited. If the disk is full the line is lost.
    async fn append_to_log(&self, job: &JobIdentity, text: &str);
}
