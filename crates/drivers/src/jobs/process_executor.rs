//! Runs jobs as processes of this machine.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use shipway_core::{
    access::JobIdentity,
    ids::{RunId, RunUid},
};
use shipway_engine::{Blobs, Reader};
use shipway_workflow::{
    job::{ActionSource, JobMounts, JobSpec, JournalEntry, SourceTree, StoredArtifact},
    runner::{RunnerMismatch, RunnerRequest},
};
use tokio_util::sync::CancellationToken;

use super::{
    JobError, JobExecutor, JobFileError, JobFiles, JobJournal, JobRunner, JobSlots, JobStartError,
    JournalOffset, JournalStream,
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
impl JobExecutor for ProcessJobExecutor {
    fn check_request(&self, request: &RunnerRequest) -> Result<(), RunnerMismatch> {
        self.runner.check_request(request)
    }

    fn slots(&self) -> &JobSlots {
        &self.slots
    }

    async fn claim_run(&self, run: &RunId, uid: &RunUid) -> io::Result<Option<PathBuf>> {
        self.runner.claim_folder(run, uid).await
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

    async fn open_journal(
        &self,
        job: &JobIdentity,
        offset: JournalOffset,
    ) -> Result<Box<dyn JournalStream>, JobError> {
        Ok(Box::new(JournalAfterOffset {
            journal: self.runner.journal(&self.folder(job))?,
            skipped: offset.0,
        }))
    }

    async fn cancel_job(&self, job: &JobIdentity) {
        self.runner.cancel(&self.folder(job));
    }

    async fn append_to_log(&self, job: &JobIdentity, text: &str) {
        self.runner.append_to_log(&self.folder(job), text);
    }
}

/// A journal without its first entries. They are read all the same, because the first one names the worker.
struct JournalAfterOffset {
    journal: JobJournal,
    /// Number of entries that are still to be skipped.
    skipped: usize,
}

#[async_trait]
impl JournalStream for JournalAfterOffset {
    async fn next(
        &mut self,
        cancelled: &CancellationToken,
    ) -> Result<Option<JournalEntry>, JobError> {
        while self.skipped > 0 {
            if self.journal.next(cancelled).await?.is_none() {
                return Ok(None);
            }
            self.skipped -= 1;
        }
        self.journal.next(cancelled).await
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
