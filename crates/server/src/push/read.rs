//! What a commit says of one service: its `shipway.yaml`, its workflows, its tests, and its folder where that is the artifact.
//!
//! A file that can't be used is one problem and never keeps the other files from being read. Files are parsed and matched in
//! `block_in_place`: that may take a second for the largest, and other requests must not wait for it.

use std::collections::BTreeMap;

use shipway_core::{
    config::{self, ArtifactSource, ServiceConfig},
    ids::{CommitId, Digest, ServiceName},
    release::{Commit, WorkflowFile},
    repository::{ComparisonBase, LocatedService, ServicePaths},
    service::{Push, ServiceState},
};
use shipway_drivers::git::{CommitRange, ForeignContent, GitError, GitRepository, RefUpdate};
use shipway_syntax::SourceFile;
use shipway_workflow::model::PushEvent;
use tokio::task::block_in_place;

use super::{
    PushError, PushReceiver,
    commit_files::{CommitFile, CommitFiles, shown},
    pushed_workflows::{PushedWorkflowReader, PushedWorkflows},
};
use crate::{
    address_book::{AddressError, claim_for_push},
    delivery_engines::{DEFAULT_BRANCH, DeliveryEngines},
};

/// What a commit says of a service.
pub(super) struct CommitContents {
    pub(super) push: Push,
    pub(super) workflows: PushedWorkflows,
    /// None for a service that every push concerns.
    pub(super) changes: Option<PathChanges>,
}

/// The changed paths that concern a service.
pub(super) struct PathChanges {
    pub(super) first: String,
    pub(super) count: usize,
}

/// What a push means for a service.
pub(super) enum ServiceReading {
    /// It may run workflows and be released.
    Concerned(Box<CommitContents>),
    /// None of the paths of the service changed: nothing runs, and nothing is released.
    Unchanged(PushedWorkflows),
    /// Nothing of it runs on a branch or tag that is not released.
    Idle,
}

/// Why the configuration of a commit releases nothing.
enum ConfigError {
    Missing,
    Unusable(String),
    Invalid,
    OtherService(ServiceName),
    TestsMissing(String),
    TestsUnusable { path: String, why: String },
    RolloutGroup(String),
    Address(AddressError),
}

impl ConfigError {
    /// The reason for the pusher and the log.
    fn describe(&self, located: &LocatedService) -> String {
        let file = located.location.config_path();
        match self {
            Self::Missing => format!("no {file} in this commit; `shipway init` writes one"),
            Self::Unusable(why) => format!("{file} is not used: {why}"),
            Self::Invalid => format!("{file} has errors; list them with `shipway check`"),
            Self::OtherService(configured) => format!(
                "{file} has `service: {configured}`, but this repository is {}; push to /git/{configured}, or change the name",
                located.service
            ),
            Self::TestsMissing(path) => format!(
                "{file} names the tests {path}, which are not in this commit; add them, or remove `tests`"
            ),
            Self::TestsUnusable { path, why } => {
                format!("{file} names the tests {path}: {why}")
            }
            Self::RolloutGroup(why) => format!("{file}: environment {why}"),
            Self::Address(error) => format!("{file}: {error}"),
        }
    }
}

/// Reads what a push needs to know of one service.
pub(super) struct ServiceReader<'a, 'f> {
    pub(super) receiver: &'a PushReceiver,
    pub(super) files: &'a mut CommitFiles<'f>,
    pub(super) located: &'a LocatedService,
    pub(super) state: Option<&'a ServiceState>,
    /// The configurations of all services of the commit: one may be promoted together with another that is not released yet.
    pub(super) peers: &'a BTreeMap<ServiceName, ServiceConfig>,
    /// Mistakes in its files, ready to be read.
    pub(super) problems: &'a mut Vec<String>,
}

impl ServiceReader<'_, '_> {
    /// Reads everything that a push needs from its commit, and claims the addresses of a configuration that is released.
    pub(super) async fn read(mut self) -> Result<ServiceReading, PushError> {
        let (config, unconfigured) = match self.read_config().await? {
            Ok(config) => (Some(config), None),
            Err(error) => (None, Some(error)),
        };
        let location = &self.located.location;
        let paths = match &config {
            Some(config) => ServicePaths::new(location, config),
            None => ServicePaths::folder(location),
        };
        let released = self.released_branch(config.as_ref());
        let update = self.files.update;
        let is_released = update.branch() == Some(released.as_str());
        let delivered = self.state.and_then(ServiceState::delivered_commit);
        let base = ComparisonBase::new(&paths, &update.name, &released, delivered);
        let changed = self.files.changed_paths(&base, &released).await?;
        let changed = block_in_place(|| paths.select(changed));
        // As in the filters of workflows, paths are not compared for tags.
        let is_concerned =
            paths.are_unlimited() || !changed.is_empty() || update.branch().is_none();
        let first_changed = changed.first().filter(|_| !paths.are_unlimited());
        let changes = first_changed.map(|first| PathChanges {
            first: first.clone(),
            count: changed.len(),
        });
        let event = PushEvent {
            reference: update.name.clone(),
            changed_paths: Some(changed),
        };
        let mut workflows = PushedWorkflows::default();
        // A file with mistakes doesn't say which workflows of the repository are its own.
        if config.is_some() || location.is_root() {
            workflows.standing = is_released.then(Vec::new);
            workflows = self
                .read_workflows(config.as_ref(), &event, workflows)
                .await?;
        }
        if is_released && !is_concerned {
            return Ok(ServiceReading::Unchanged(workflows));
        }
        let runs_nothing = !is_concerned || workflows.matching.is_empty();
        if !is_released && !location.is_root() && runs_nothing {
            return Ok(ServiceReading::Idle);
        }
        let released = is_released.then_some(ReleasedBranch);
        let push = self.read_push(config, unconfigured, released).await?;
        Ok(ServiceReading::Concerned(Box::new(CommitContents {
            push,
            workflows,
            changes,
        })))
    }

    /// By the configuration, else by the last one.
    fn released_branch(&self, config: Option<&ServiceConfig>) -> String {
        let last = self.state.and_then(|state| state.config.as_deref());
        let config = config.or(last);
        config.map_or_else(|| DEFAULT_BRANCH.to_owned(), |config| config.branch.clone())
    }

    /// The configuration of the commit. Mistakes in the file are added to the problems; the error is shown once the runs have ended.
    async fn read_config(&mut self) -> Result<Result<ServiceConfig, ConfigError>, PushError> {
        let path = self.located.location.config_path();
        let text = match self.files.read(&path).await? {
            CommitFile::Read(text) => text,
            CommitFile::Missing => return Ok(Err(ConfigError::Missing)),
            CommitFile::Unusable(why) => return Ok(Err(ConfigError::Unusable(why))),
        };
        let source = SourceFile::new(shown(&path), text);
        let available = &self.receiver.targets;
        let (config, warnings) = match block_in_place(|| config::parse_for(&source, available)) {
            Ok(read) => read,
            Err(errors) => {
                let errors = errors.iter().map(|error| error.one_line(&source));
                self.problems.extend(errors);
                return Ok(Err(ConfigError::Invalid));
            }
        };
        if config.service != self.located.service {
            return Ok(Err(ConfigError::OtherService(config.service)));
        }
        let warnings = warnings.iter().map(|warning| warning.one_line(&source));
        self.problems.extend(warnings);
        Ok(Ok(config))
    }

    async fn read_workflows(
        &mut self,
        config: Option<&ServiceConfig>,
        event: &PushEvent,
        workflows: PushedWorkflows,
    ) -> Result<PushedWorkflows, PushError> {
        let reader = PushedWorkflowReader {
            files: self.files,
            config,
            config_path: &self.located.location.config_path(),
            event,
            workflows,
            problems: self.problems,
        };
        reader.read_all().await
    }

    async fn read_push(
        &mut self,
        config: Option<ServiceConfig>,
        mut unconfigured: Option<ConfigError>,
        released: Option<ReleasedBranch>,
    ) -> Result<Push, PushError> {
        let (mut tests, mut source) = (Vec::new(), None);
        if let (Some(config), Some(ReleasedBranch)) = (&config, released) {
            tests = self.read_tests(config, &mut unconfigured).await?;
            if let Err(error) = self.check_rollout_groups(config).await {
                unconfigured = Some(error);
            }
            // A configuration that releases nothing must not claim an address.
            if unconfigured.is_none() {
                unconfigured = self.claim_addresses(config).await.err();
            }
            if config.artifact == ArtifactSource::Source {
                let folder = &self.located.location.folder;
                source = Some(store_tree(self.receiver, self.files, folder).await?);
                self.warn_of_foreign_content().await?;
            }
        }
        let CommitFiles {
            repo,
            update,
            commit,
            ..
        } = *self.files;
        let range = commits_of_push(repo, update, commit).await;
        Ok(Push {
            reference: update.name.clone(),
            before: update.old.clone(),
            commit: commit_of(repo, commit).await?,
            config: config.filter(|_| unconfigured.is_none()).map(Box::new),
            unconfigured: unconfigured.map(|error| error.describe(self.located)),
            tests,
            source,
            location: self.located.recorded_location(),
            commits: range.commits,
            commits_omitted: range.omitted,
        })
    }

    /// Adds what the release of a folder lacks to the problems.
    async fn warn_of_foreign_content(&mut self) -> Result<(), PushError> {
        let location = &self.located.location;
        let mut foreign = (self.files.repo.find_foreign_content(self.files.commit)).await?;
        if !location.is_root() {
            let folder = format!("{}/", location.folder);
            for paths in [&mut foreign.submodules, &mut foreign.large_files] {
                paths.retain(|path| path.starts_with(&folder));
            }
        }
        let warnings = foreign_content_warnings(&location.config_path(), &foreign);
        self.problems.extend(warnings);
        Ok(())
    }

    /// The test workflows of the environments. An unreadable one sets `unconfigured` to its reason: without its tests nothing is
    /// released.
    async fn read_tests(
        &mut self,
        config: &ServiceConfig,
        unconfigured: &mut Option<ConfigError>,
    ) -> Result<Vec<WorkflowFile>, PushError> {
        let mut tests = Vec::new();
        for path in (config.environments.iter()).filter_map(|it| it.tests.as_ref()) {
            match self.files.read(path).await? {
                CommitFile::Read(text) => {
                    tests.push(self.files.with_calls(path.clone(), text).await?);
                }
                CommitFile::Missing => {
                    *unconfigured = Some(ConfigError::TestsMissing(path.clone()));
                }
                CommitFile::Unusable(why) => {
                    let path = path.clone();
                    *unconfigured = Some(ConfigError::TestsUnusable { path, why });
                }
            }
        }
        Ok(tests)
    }

    /// Claims the addresses of a configuration; overlaps with other services are noted among the problems.
    async fn claim_addresses(&mut self, config: &ServiceConfig) -> Result<(), ConfigError> {
        let file = self.located.location.config_path();
        let claimed = claim_for_push(&self.receiver.engines, &self.receiver.server, config);
        match claimed.await {
            Ok(notes) => {
                let notes = notes.iter().map(|note| format!("{file}: note: {note}"));
                self.problems.extend(notes);
                Ok(())
            }
            Err(error) => {
                self.problems.push(format!("✗ {file}: {error}"));
                Err(ConfigError::Address(error))
            }
        }
    }

    /// Checks that the services of each rollout group are on this server, or in this commit, and have matching environments.
    async fn check_rollout_groups(&self, config: &ServiceConfig) -> Result<(), ConfigError> {
        let engines: &DeliveryEngines = &self.receiver.engines;
        let mut known = BTreeMap::new();
        for name in config.environments.iter().flat_map(|it| &it.promote_with) {
            if let Some(config) = self.peers.get(name) {
                known.insert(name.clone(), config.clone());
                continue;
            }
            let state = engines.service(name).await;
            let state = state.map_err(|error| ConfigError::RolloutGroup(error.to_string()))?;
            if let Some(config) = state.and_then(|state| state.config.clone()) {
                known.insert(name.clone(), (*config).clone());
            }
        }
        config::check_promotion_groups(config, |name| known.get(name))
            .map_err(|error| ConfigError::RolloutGroup(error.to_string()))
    }
}

/// Marks a push of the branch that is released.
#[derive(Clone, Copy)]
struct ReleasedBranch;

/// A push of too many references, of which no file is read.
pub(super) async fn without_files(
    repo: &GitRepository,
    update: &RefUpdate,
    commit: &CommitId,
) -> Result<Push, GitError> {
    let range = commits_of_push(repo, update, commit).await;
    Ok(Push {
        reference: update.name.clone(),
        before: update.old.clone(),
        commit: commit_of(repo, commit).await?,
        config: None,
        unconfigured: Some("its push updated too many references".to_owned()),
        tests: Vec::new(),
        source: None,
        location: None,
        commits: range.commits,
        commits_omitted: range.omitted,
    })
}

/// The commits that a push brought; none where git can't tell. After a rewritten history, or in a shallow one, the commit before may be
/// gone: that must not fail the push.
async fn commits_of_push(
    repo: &GitRepository,
    update: &RefUpdate,
    commit: &CommitId,
) -> CommitRange {
    let range = repo.commits_between(update.old.as_ref(), commit, Push::COMMITS_MAX);
    range.await.unwrap_or_else(|error| {
        tracing::debug!(%error, reference = %update.name, "the commits of a push can't be listed");
        CommitRange::default()
    })
}

/// What the release of a commit's files lacks.
fn foreign_content_warnings(config_path: &str, foreign: &ForeignContent) -> Vec<String> {
    let warning = |paths: &[String], what: &str, input: &str| {
        let first = paths.first()?;
        let count = match paths.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "{config_path}: warning: the release is the commit's tree, which has {what} instead of {first}{count}; to release the content, build the artifact in a workflow whose actions/checkout has `{input}`"
        ))
    };
    let submodules = warning(&foreign.submodules, "an empty folder", "submodules: true");
    let large_files = warning(&foreign.large_files, "a pointer of Git LFS", "lfs: true");
    submodules.into_iter().chain(large_files).collect()
}

/// Stores a folder of a commit, empty for all of it, as an artifact.
async fn store_tree(
    receiver: &PushReceiver,
    files: &CommitFiles<'_>,
    folder: &str,
) -> Result<Digest, PushError> {
    let fail = |error: &dyn std::fmt::Display| PushError::Artifact(error.to_string());
    let scratch = tempfile::tempdir_in(&receiver.scratch).map_err(|error| fail(&error))?;
    let tar = scratch.path().join("tree.tar");
    files.repo.export_tar(files.commit, folder, &tar).await?;
    let file = tokio::fs::File::open(&tar)
        .await
        .map_err(|error| fail(&error))?;
    receiver
        .blobs
        .put(Box::pin(file))
        .await
        .map(|stored| stored.digest)
        .map_err(|error| fail(&error))
}

/// A commit, as releases remember it.
pub(crate) async fn commit_of(repo: &GitRepository, commit: &CommitId) -> Result<Commit, GitError> {
    let info = repo.commit_info(commit).await?;
    let author = format!("{} <{}>", info.author.name, info.author.email);
    Ok(Commit {
        id: commit.clone(),
        subject: info.subject,
        author,
        committer: Some(info.committer),
        at: info.at,
    })
}
