//! The files of a pushed commit, and what changed in it. Several services read the same ones: each is read from git once.

use std::collections::BTreeMap;

use shipway_core::{
    ids::CommitId,
    release::{CalledFile, WorkflowFile},
    repository::ComparisonBase,
};
use shipway_drivers::git::{GitError, GitRepository, RefUpdate};
use shipway_workflow::graph::WorkflowLocation;
use tokio::task::block_in_place;

/// Where workflows are kept.
pub(super) const WORKFLOWS: &str = ".github/workflows";
/// No file that people write by hand is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of files that are remembered for the next service.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// A file of a commit.
#[derive(Clone, Debug)]
pub(super) enum CommitFile {
    Read(String),
    Missing,
    /// It is there, and the reason why this file is not used. Other files are.
    Unusable(String),
}

/// A reference that was moved to a commit, and the files of the commit read so far.
pub(super) struct CommitFiles<'a> {
    pub(super) repo: &'a GitRepository,
    pub(super) update: &'a RefUpdate,
    pub(super) commit: &'a CommitId,
    files: BTreeMap<String, CommitFile>,
    cached_bytes: usize,
    workflows: Option<Vec<String>>,
    changes: BTreeMap<(ComparisonBase, String), Vec<String>>,
}

impl<'a> CommitFiles<'a> {
    pub(super) const fn new(
        repo: &'a GitRepository,
        update: &'a RefUpdate,
        commit: &'a CommitId,
    ) -> Self {
        Self {
            repo,
            update,
            commit,
            files: BTreeMap::new(),
            cached_bytes: 0,
            workflows: None,
            changes: BTreeMap::new(),
        }
    }

    /// A file of the commit.
    pub(super) async fn read(&mut self, path: &str) -> Result<CommitFile, GitError> {
        if let Some(file) = self.files.get(path) {
            return Ok(file.clone());
        }
        let file = read_commit_file(self.repo, self.commit, path).await?;
        let bytes = match &file {
            CommitFile::Read(text) => text.len(),
            CommitFile::Missing | CommitFile::Unusable(_) => 0,
        };
        if self.cached_bytes + bytes <= CACHE_BYTES_MAX {
            self.cached_bytes += bytes;
            self.files.insert(path.to_owned(), file.clone());
        }
        Ok(file)
    }

    /// The paths of all files in the folder of workflows.
    pub(super) async fn workflow_paths(&mut self) -> Result<Vec<String>, GitError> {
        if let Some(paths) = &self.workflows {
            return Ok(paths.clone());
        }
        let paths = self.repo.list_files(self.commit, WORKFLOWS).await?;
        self.workflows = Some(paths.clone());
        Ok(paths)
    }

    /// The paths that differ from the base.
    pub(super) async fn changed_paths(
        &mut self,
        base: &ComparisonBase,
        released_branch: &str,
    ) -> Result<&[String], GitError> {
        let key = (base.clone(), released_branch.to_owned());
        if !self.changes.contains_key(&key) {
            let compared = match base {
                ComparisonBase::Push => self.update.clone(),
                ComparisonBase::Commit(commit) => RefUpdate {
                    old: Some(commit.clone()),
                    ..self.update.clone()
                },
                ComparisonBase::Nothing => RefUpdate {
                    old: None,
                    ..self.update.clone()
                },
            };
            let changed = self.repo.changed_paths(&compared, released_branch).await?;
            self.changes.insert(key.clone(), changed);
        }
        Ok(self.changes.get(&key).map_or(&[], Vec::as_slice))
    }

    /// A workflow with all workflows of its commit that it calls.
    pub(super) async fn with_calls(
        &mut self,
        path: String,
        content: String,
    ) -> Result<WorkflowFile, GitError> {
        with_calls(self.repo, self.commit, path, content).await
    }
}

pub(super) async fn read_commit_file(
    repo: &GitRepository,
    commit: &CommitId,
    path: &str,
) -> Result<CommitFile, GitError> {
    match repo.read_file(commit, path, FILE_BYTES_MAX).await {
        Ok(Some(bytes)) => Ok(CommitFile::Read(
            String::from_utf8_lossy(&bytes).into_owned(),
        )),
        Ok(None) => Ok(CommitFile::Missing),
        Err(GitError::TooLarge { max_bytes, .. }) => Ok(CommitFile::Unusable(format!(
            "it is larger than {} MiB",
            max_bytes >> 20
        ))),
        Err(GitError::Path(_)) => Ok(CommitFile::Unusable(
            "its path can't be that of a file: it is absolute, has `..` or a line break".to_owned(),
        )),
        Err(error) => Err(error),
    }
}

/// A path for one line of output.
pub(super) fn shown(path: &str) -> String {
    if path.contains(char::is_control) {
        path.escape_debug().to_string()
    } else {
        path.to_owned()
    }
}

/// A workflow with all workflows of its commit that it calls. An unreadable one is recorded with its error, which planning reports at the
/// call. Workflows of other repositories are read when a run is opened: a push waits for no forge, and a schedule gets their current state.
pub(super) async fn with_calls(
    repo: &GitRepository,
    commit: &CommitId,
    path: String,
    content: String,
) -> Result<WorkflowFile, GitError> {
    let mut file = WorkflowFile::new(path, content);
    let mut calls = block_in_place(|| file.calls());
    while let Some(name) = calls.next() {
        let read = match WorkflowLocation::parse(&name) {
            Err(error) => Err(error.to_string()),
            Ok(WorkflowLocation::Here { path }) => {
                match read_commit_file(repo, commit, path).await? {
                    CommitFile::Read(text) => Ok(text),
                    CommitFile::Missing => Err("it is not in the commit".to_owned()),
                    CommitFile::Unusable(why) => Err(why),
                }
            }
            Ok(WorkflowLocation::Elsewhere { .. }) => continue,
        };
        block_in_place(|| calls.give(CalledFile::new(name, read)));
    }
    Ok(file)
}
