//! Runs jobs with workers that share no disk with the server: they fetch their inputs and send their records over HTTP.
//!
//! Where such a worker runs is the business of its [`WorkerLauncher`].

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use shipway_core::{
    access::JobIdentity,
    ids::{RunId, RunUid},
};
use shipway_engine::Reader;
use shipway_worker::{AttemptProgress, ResumeError};
use shipway_workflow::{
    job::{InputDelivery, JobSpec, JournalBody},
    model::WorkflowStep,
    runner::{RunnerMismatch, RunnerRequest},
};
use tokio::task::spawn_blocking;

use super::{
    AttemptRecords, JOURNAL_FILE, JobError, JobExecutor, JobFileError, JobFiles, JobInbox,
    JobLogEnd, JobLogStream, JobRunner, JobSlots, JobStartError, JobStorage, JournalOffset,
    JournalStream, LoggedStep, ShellFileError, ShellFileName, WorkspaceSelection,
};

/// Starts workers somewhere.
#[async_trait]
pub trait WorkerLauncher: Send + Sync {
    /// Starts a worker with this spec, and returns when that is under way. The worker is found by what it sends. A second one for
    /// the same attempt does no harm: the server takes the journal of one.
    async fn launch(&self, job: &JobIdentity, spec: &JobSpec) -> Result<(), JobError>;
}

/// The executor whose workers have nothing but their spec and an address of the server.
pub struct RemoteJobExecutor {
    runner: JobRunner,
    slots: JobSlots,
    inbox: JobInbox,
    launcher: Box<dyn WorkerLauncher>,
}

impl RemoteJobExecutor {
    /// An executor that runs at most `slots` jobs at once; what they send is kept in the folders of `runner`.
    #[must_use]
    pub fn new(runner: JobRunner, slots: usize, launcher: Box<dyn WorkerLauncher>) -> Self {
        Self {
            inbox: JobInbox::new(runner.clone()),
            runner,
            slots: JobSlots::new(slots),
            launcher,
        }
    }
}

#[async_trait]
impl JobFiles for RemoteJobExecutor {
    async fn open_file(&self, _: &JobIdentity, path: &Path) -> Result<Reader, JobFileError> {
        // Workers send files to the blobs, by digest: one that isn't there was not sent.
        Err(JobFileError::NotSent(path.to_owned()))
    }
}

#[async_trait]
impl AttemptRecords for RemoteJobExecutor {
    async fn read_log(
        &self,
        job: &JobIdentity,
        offset: u64,
        end: JobLogEnd,
    ) -> Result<Option<JobLogStream>, JobError> {
        let folder = self.inbox.folder(job);
        if !self.runner.has_log(&folder) {
            return Ok(None);
        }
        Ok(Some(match end {
            JobLogEnd::Present => self.runner.stream_log(&folder, offset)?,
            JobLogEnd::Finished => {
                let journal = self
                    .runner
                    .received_journal(&folder, self.inbox.worker(job))?;
                self.runner.tail_log(&folder, offset, journal)?.boxed()
            }
        }))
    }

    async fn read_log_block(
        &self,
        job: &JobIdentity,
        offset: u64,
        bytes: usize,
    ) -> Result<Option<Bytes>, JobError> {
        self.runner
            .read_log_block(&self.inbox.folder(job), offset, bytes)
            .await
    }

    async fn read_log_end(&self, job: &JobIdentity) -> String {
        self.runner.read_log_end(&self.inbox.folder(job)).await
    }

    async fn read_step_log(&self, job: &JobIdentity) -> Vec<LoggedStep> {
        self.runner.read_step_log(&self.inbox.folder(job)).await
    }

    async fn read_summary(&self, job: &JobIdentity) -> Option<String> {
        self.runner.read_summary(&self.inbox.folder(job)).await
    }

    async fn read_progress(
        &self,
        _: &JobIdentity,
        _: &[WorkflowStep],
    ) -> Result<AttemptProgress, ResumeError> {
        // The workspace was where the worker ran.
        Err(ResumeError::WorkspaceGone)
    }
}

#[async_trait]
impl JobStorage for RemoteJobExecutor {
    async fn claim_run(&self, run: &RunId, uid: &RunUid) -> io::Result<Option<PathBuf>> {
        self.runner.claim_folder(run, uid).await
    }

    async fn list_runs(&self) -> Vec<RunId> {
        self.runner.list_runs().await
    }

    async fn remove_workspaces(&self, _: &RunId, _: WorkspaceSelection) -> usize {
        // They end with their workers.
        0
    }

    async fn measure_run(&self, run: &RunId) -> u64 {
        self.runner.measure_run(run).await
    }

    async fn remove_run(&self, run: &RunId, claimed_since: Timestamp) -> io::Result<Option<u64>> {
        self.runner.remove_run(run, claimed_since).await
    }

    fn shell_folder(&self, job: &JobIdentity) -> PathBuf {
        self.inbox.folder(job)
    }

    async fn write_shell_spec(
        &self,
        _: &JobIdentity,
        _: JobSpec,
        _: &ShellFileName,
    ) -> Result<(), ShellFileError> {
        Err(ShellFileError::NoWorkspace)
    }
}

#[async_trait]
impl JobExecutor for RemoteJobExecutor {
    fn check_request(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch> {
        self.runner.check_request(request)
    }

    fn slots(&self) -> &JobSlots {
        &self.slots
    }

    fn inbox(&self) -> Option<&JobInbox> {
        Some(&self.inbox)
    }

    async fn has_started(&self, job: &JobIdentity) -> bool {
        self.runner.has_started(&self.inbox.folder(job))
    }

    async fn is_running(&self, job: &JobIdentity) -> bool {
        let journal = self.inbox.folder(job).join(JOURNAL_FILE);
        let read = spawn_blocking(move || shipway_worker::read_journal(&journal)).await;
        let entries = read.map(Result::unwrap_or_default).unwrap_or_default();
        let last = entries.last();
        last.is_some_and(|entry| !matches!(entry.body, JournalBody::Finished { .. }))
    }

    async fn start_job(&self, job: &JobIdentity, spec: JobSpec) -> Result<(), JobStartError> {
        if self.has_started(job).await {
            return Ok(());
        }
        let prepared = self.inbox.prepare(job);
        prepared.map_err(super::io_error(
            "making the folder",
            &self.inbox.folder(job),
        ))?;
        let spec = JobSpec {
            delivery: InputDelivery::Fetched,
            ..spec
        };
        Ok(self.launcher.launch(job, &spec).await?)
    }

    async fn open_journal(
        &self,
        job: &JobIdentity,
        offset: JournalOffset,
    ) -> Result<Box<dyn JournalStream>, JobError> {
        let worker = self.inbox.worker(job);
        let journal = self
            .runner
            .received_journal(&self.inbox.folder(job), worker)?;
        Ok(Box::new(journal.after(offset)))
    }

    async fn cancel_job(&self, job: &JobIdentity) {
        self.inbox.cancel(job);
    }

    async fn append_to_log(&self, job: &JobIdentity, text: &str) {
        self.runner.append_to_log(&self.inbox.folder(job), text);
    }
}
