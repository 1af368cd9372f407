//! Runs jobs as processes of this machine.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use shipway_core::{
    access::JobIdentity,
    ids::{RunId, RunUid},
};
use shipway_engine::{Blobs, Reader};
use shipway_worker::{AttemptProgress, ResumeError, read_attempt_progress};
use shipway_workflow::{
    job::{ActionSource, JobMounts, JobSpec, SourceTree, StoredArtifact},
    model::WorkflowStep,
    runner::{RunnerMismatch, RunnerRequest},
};
use tokio::task::spawn_blocking;

use super::{
    AttemptRecords, JobError, JobExecutor, JobFileError, JobFiles, JobLogEnd, JobLogStream,
    JobRunner, JobSlots, JobStartError, JobStorage, JournalOffset, JournalStream, LoggedStep,
    ShellFileError, ShellFileName, WorkspaceSelection, leftovers, shell_file::fill_private_file,
};
use crate::git::GitRepositories;

/// Where this machine has what the specs of jobs refer to.
pub struct LocalSources {
    /// The repositories of services.
    pub repositories: Arc<GitRepositories>,
    /// The artifacts of runs.
    pub blobs: Arc<dyn Blobs>,
    /// The folder of all caches, with one for each service.
    pub caches: PathBuf,
    /// The cache of fetched actions and the file with the forge's token.
    pub actions: ActionSource,
    /// Files and folders that jobs must not see.
    pub hidden: Vec<PathBuf>,
}

/// The executor whose workers are processes of this machine, below the folders of a [`JobRunner`].
pub struct ProcessJobExecutor {
    runner: JobRunner,
    slots: JobSlots,
    sources: LocalSources,
}

impl ProcessJobExecutor {
    /// An executor that runs at most `slots` jobs at once.
    #[must_use]
    pub fn new(runner: JobRunner, slots: usize, sources: LocalSources) -> Self {
        Self {
            runner,
            slots: JobSlots::new(slots),
            sources,
        }
    }

    fn folder(&self, job: &JobIdentity) -> PathBuf {
        self.runner.attempt_folder(&job.run, &job.key, job.attempt)
    }

    /// The spec with the mounts of this machine.
    async fn resolve_spec(
        &self,
        job: &JobIdentity,
        spec: JobSpec,
    ) -> Result<JobSpec, JobStartError> {
        Ok(JobSpec {
            mounts: self.find_mounts(job, &spec).await?,
            actions: spec.actions.with_local_files(&self.sources.actions),
            ..spec
        })
    }

    /// Finds on this machine what a spec refers to.
    async fn find_mounts(
        &self,
        job: &JobIdentity,
        spec: &JobSpec,
    ) -> Result<JobMounts, JobStartError> {
        let LocalSources {
            repositories,
            blobs,
            caches,
            hidden,
            ..
        } = &self.sources;
        let source = match &spec.source {
            SourceTree::Git { repository, .. } => {
                let service = repository.parse().ok();
                let found = service.and_then(|service| repositories.get(&service));
                let missing = || JobStartError::NoRepository(repository.clone());
                found.ok_or_else(missing)?.git_dir().to_owned()
            }
            // Only a run without a server works on a folder, and it has no executor.
            SourceTree::Directory => spec.mounts.source.clone(),
        };
        let mut artifacts = BTreeMap::new();
        for StoredArtifact { digest, .. } in &spec.artifacts {
            let parsed = digest.parse();
            let parsed = parsed.map_err(|_| JobStartError::InvalidDigest(digest.clone()))?;
            artifacts.insert(digest.clone(), blobs.file(&parsed).await?);
        }
        let resumed = |attempt| {
            self.folder(&JobIdentity {
                attempt,
                ..job.clone()
            })
        };
        Ok(JobMounts {
            folder: self.folder(job),
            source,
            artifacts,
            caches: Some(caches.join(job.run.service.as_str())),
            resumed: spec.resume.as_ref().map(|it| resumed(it.attempt)),
            hidden: hidden.clone(),
        })
    }
}

#[async_trait]
impl JobFiles for ProcessJobExecutor {
    async fn open_file(&self, job: &JobIdentity, path: &Path) -> Result<Reader, JobFileError> {
        open_file_below(&self.folder(job), path).await
    }
}

#[async_trait]
impl AttemptRecords for ProcessJobExecutor {
    async fn read_log(
        &self,
        job: &JobIdentity,
        offset: u64,
        end: JobLogEnd,
    ) -> Result<Option<JobLogStream>, JobError> {
        let folder = self.folder(job);
        if !self.runner.has_log(&folder) {
            return Ok(None);
        }
        Ok(Some(match end {
            JobLogEnd::Present => self.runner.stream_log(&folder, offset)?,
            JobLogEnd::Finished => {
                let journal = self.runner.journal(&folder)?;
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
            .read_log_block(&self.folder(job), offset, bytes)
            .await
    }

    async fn read_log_end(&self, job: &JobIdentity) -> String {
        self.runner.read_log_end(&self.folder(job)).await
    }

    async fn read_step_log(&self, job: &JobIdentity) -> Vec<LoggedStep> {
        self.runner.read_step_log(&self.folder(job)).await
    }

    async fn read_summary(&self, job: &JobIdentity) -> Option<String> {
        self.runner.read_summary(&self.folder(job)).await
    }

    async fn read_progress(
        &self,
        job: &JobIdentity,
        steps: &[WorkflowStep],
    ) -> Result<AttemptProgress, ResumeError> {
        let (folder, steps) = (self.folder(job), steps.to_owned());
        let read = spawn_blocking(move || read_attempt_progress(&folder, &steps)).await;
        read.unwrap_or_else(|error| Err(ResumeError::Unreadable(error.to_string())))
    }
}

#[async_trait]
impl JobStorage for ProcessJobExecutor {
    async fn claim_run(&self, run: &RunId, uid: &RunUid) -> io::Result<Option<PathBuf>> {
        self.runner.claim_folder(run, uid).await
    }

    async fn list_runs(&self) -> Vec<RunId> {
        self.runner.list_runs().await
    }

    async fn remove_workspaces(&self, run: &RunId, jobs: WorkspaceSelection) -> usize {
        let folder = self.runner.run_folder(run);
        let removal = spawn_blocking(move || leftovers::remove_workspaces(&folder, &jobs)).await;
        removal.unwrap_or_default()
    }

    async fn measure_run(&self, run: &RunId) -> u64 {
        self.runner.measure_run(run).await
    }

    async fn remove_run(&self, run: &RunId, claimed_since: Timestamp) -> io::Result<Option<u64>> {
        self.runner.remove_run(run, claimed_since).await
    }

    fn shell_folder(&self, job: &JobIdentity) -> PathBuf {
        // Absolute, since the shell's process has another working directory.
        let folder = self.folder(job);
        std::path::absolute(&folder).unwrap_or(folder)
    }

    async fn write_shell_spec(
        &self,
        job: &JobIdentity,
        spec: JobSpec,
        file: &ShellFileName,
    ) -> Result<(), ShellFileError> {
        let mut spec = self.resolve_spec(job, spec).await?;
        let folder = self.shell_folder(job);
        let path = folder.join(file.as_str());
        spec.mounts.resumed = Some(folder.clone());
        spec.mounts.folder = folder;
        let written = spawn_blocking(move || fill_private_file(&path, &spec)).await;
        Ok(written.map_err(io::Error::other)??)
    }
}

#[async_trait]
impl JobExecutor for ProcessJobExecutor {
    fn check_request(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch> {
        self.runner.check_request(request)
    }

    fn slots(&self) -> &JobSlots {
        &self.slots
    }

    async fn has_started(&self, job: &JobIdentity) -> bool {
        self.runner.has_started(&self.folder(job))
    }

    async fn is_running(&self, job: &JobIdentity) -> bool {
        self.runner.is_worker_running(&self.folder(job))
    }

    async fn start_job(&self, job: &JobIdentity, spec: JobSpec) -> Result<(), JobStartError> {
        let spec = self.resolve_spec(job, spec).await?;
        Ok(self.runner.start_worker(&spec)?)
    }

    async fn open_journal(
        &self,
        job: &JobIdentity,
        offset: JournalOffset,
    ) -> Result<Box<dyn JournalStream>, JobError> {
        let journal = self.runner.journal(&self.folder(job))?;
        Ok(Box::new(journal.after(offset)))
    }

    async fn cancel_job(&self, job: &JobIdentity) {
        self.runner.cancel(&self.folder(job));
    }

    async fn append_to_log(&self, job: &JobIdentity, text: &str) {
        self.runner.append_to_log(&self.folder(job), text);
    }
}

/// Opens a regular file below `folder`, whatever symlinks lead to.
async fn open_file_below(folder: &Path, named: &Path) -> Result<Reader, JobFileError> {
    let unreadable = |source| JobFileError::Unreadable {
        path: named.to_owned(),
        source,
    };
    let path = tokio::fs::canonicalize(named).await.map_err(unreadable)?;
    let folder = tokio::fs::canonicalize(folder).await.map_err(unreadable)?;
    let is_file = tokio::fs::symlink_metadata(&path)
        .await
        .is_ok_and(|it| it.is_file());
    if !path.starts_with(&folder) || !is_file {
        return Err(JobFileError::Outside(named.to_owned()));
    }
    let file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
    Ok(Box::pin(file))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn only_files_of_the_job_are_opened() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("job");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("app.tar"), "right").unwrap();
        std::fs::write(root.path().join("secret"), "right").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        let mut text = String::new();
        let own = open_file_below(&folder, &folder.join("app.tar")).await;
        own.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "right");
        for path in ["secret", "job/../secret", "job/link", "job"] {
            let opened = open_file_below(&folder, &root.path().join(path)).await;
            assert!(matches!(opened, Err(JobFileError::Outside(_))), "{path}");
        }
    }
}
