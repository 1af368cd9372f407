//! What a commit says: its `shipway.yaml`, its workflows, its tests, and its tree where that is the artifact.
//!
//! A file that can't be used is one problem and never keeps the other files from being read. Files are parsed and matched in
//! `block_in_place`: that may take a second for the largest, and other requests must not wait for it.

use std::collections::BTreeMap;

use shipway_core::{
    config::{self, ArtifactSource, ServiceConfig},
    ids::{CommitId, Digest, ServiceName},
    release::{CalledFile, Commit, WorkflowFile},
    service::{Push, ScheduledWorkflow},
    target::AvailableTargets,
};
use shipway_drivers::git::{CommitRange, ForeignContent, GitError, GitRepository, RefUpdate};
use shipway_syntax::SourceFile;
use shipway_workflow::{
    graph::WorkflowLocation,
    model::{InputError, PushEvent},
};
use tokio::task::block_in_place;

use super::{PushError, PushReceiver};
use crate::{
    address_book::{AddressError, claim_for_push},
    delivery_engines::DeliveryEngines,
};

/// The file that says how a service is delivered.
const CONFIG: &str = "shipway.yaml";
/// Where workflows are kept.
const WORKFLOWS: &str = ".github/workflows";
/// No file that people write by hand is larger.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Workflow files that are read of a commit, in the order of their names.
const WORKFLOW_FILES_MAX: usize = 200;

/// What a commit says.
pub(super) struct CommitContents {
    pub(super) push: Push,
    pub(super) workflows: Vec<WorkflowFile>,
    /// What starts by itself, when it is the branch whose workflows do.
    pub(super) standing: Option<Vec<ScheduledWorkflow>>,
    /// Mistakes in its files, ready to be read.
    pub(super) problems: Vec<String>,
}

/// Why the configuration of a commit releases nothing.
#[derive(Debug, thiserror::Error)]
enum ConfigError {
    #[error("no {CONFIG} in this commit; `shipway init` writes one")]
    Missing,
    #[error("{CONFIG} is not used: {0}")]
    Unusable(String),
    #[error("{CONFIG} has errors; list them with `shipway check`")]
    Invalid,
    #[error(
        "{CONFIG} has `service: {configured}`, but this repository is {pushed}; push to /git/{configured}, or change the name"
    )]
    OtherService {
        configured: ServiceName,
        pushed: ServiceName,
    },
    #[error(
        "{CONFIG} names the tests {0}, which are not in this commit; add them, or remove `tests`"
    )]
    TestsMissing(String),
    #[error("{CONFIG} names the tests {path}: {why}")]
    TestsUnusable { path: String, why: String },
    #[error("{CONFIG}: environment {0}")]
    RolloutGroup(String),
    #[error("{CONFIG}: {0}")]
    Address(AddressError),
}

/// Reads everything that a push needs from its commit, and claims the addresses of a configuration that is released.
pub(super) async fn read_commit(
    receiver: &PushReceiver,
    repo: &GitRepository,
    service: &ServiceName,
    update: &RefUpdate,
    commit: &CommitId,
) -> Result<CommitContents, PushError> {
    let mut problems = Vec::new();
    let available = &receiver.targets;
    let read = read_config(repo, service, commit, available, &mut problems);
    let (config, mut unconfigured) = match read.await? {
        Ok(config) => (Some(config), None),
        Err(error) => (None, Some(error)),
    };
    let default_branch = config
        .as_ref()
        .map_or("main", |config| config.branch.as_str());
    let changed = repo.changed_paths(update, default_branch).await?;
    let event = PushEvent {
        reference: update.name.clone(),
        changed_paths: Some(changed),
    };
    let is_default_branch = update.branch() == Some(default_branch);
    let reader = PushedWorkflowReader {
        repo,
        commit,
        config: config.as_ref(),
        event: &event,
        matching: Vec::new(),
        standing: is_default_branch.then(Vec::new),
        problems: &mut problems,
    };
    let (workflows, standing) = reader.read_all().await?;
    let (mut tests, mut source) = (Vec::new(), None);
    if let Some(config) = config.as_ref().filter(|_| is_default_branch) {
        tests = read_tests(repo, commit, config, &mut unconfigured).await?;
        if let Err(error) = check_rollout_groups(&receiver.engines, config).await {
            unconfigured = Some(error);
        }
        // A configuration that releases nothing must not claim an address.
        if unconfigured.is_none() {
            unconfigured = claim_addresses(receiver, config, &mut problems).await.err();
        }
        if config.artifact == ArtifactSource::Source {
            source = Some(store_tree(receiver, repo, commit).await?);
            let foreign = repo.find_foreign_content(commit).await?;
            problems.extend(foreign_content_warnings(&foreign));
        }
    }
    let range = commits_of_push(repo, update, commit).await;
    let commit = commit_of(repo, commit).await?;
    let push = Push {
        reference: update.name.clone(),
        before: update.old.clone(),
        commit,
        config: config.filter(|_| unconfigured.is_none()).map(Box::new),
        unconfigured: unconfigured.map(|error| error.to_string()),
        tests,
        source,
        commits: range.commits,
        commits_omitted: range.omitted,
    };
    Ok(CommitContents {
        push,
        workflows,
        standing,
        problems,
    })
}

/// The test workflows of the environments. An unreadable one sets `unconfigured` to its reason: without its tests nothing is released.
async fn read_tests(
    repo: &GitRepository,
    commit: &CommitId,
    config: &ServiceConfig,
    unconfigured: &mut Option<ConfigError>,
) -> Result<Vec<WorkflowFile>, PushError> {
    let mut tests = Vec::new();
    for path in (config.environments.iter()).filter_map(|it| it.tests.as_ref()) {
        match read_commit_file(repo, commit, path).await? {
            CommitFile::Read(text) => {
                tests.push(with_calls(repo, commit, path.clone(), text).await?);
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
async fn claim_addresses(
    receiver: &PushReceiver,
    config: &ServiceConfig,
    problems: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let claimed = claim_for_push(&receiver.engines, &receiver.server, config);
    match claimed.await {
        Ok(notes) => {
            problems.extend(notes.iter().map(|it| format!("{CONFIG}: note: {it}")));
            Ok(())
        }
        Err(error) => {
            problems.push(format!("✗ {CONFIG}: {error}"));
            Err(ConfigError::Address(error))
        }
    }
}

/// A push of which no file is read.
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

/// Checks that the services of each rollout group are on this server and have matching environments.
async fn check_rollout_groups(
    engines: &DeliveryEngines,
    config: &ServiceConfig,
) -> Result<(), ConfigError> {
    let mut known = BTreeMap::new();
    for name in config.environments.iter().flat_map(|it| &it.promote_with) {
        let state = engines.service(name).await;
        let state = state.map_err(|error| ConfigError::RolloutGroup(error.to_string()))?;
        if let Some(config) = state.and_then(|state| state.config.clone()) {
            known.insert(name.clone(), config);
        }
    }
    config::check_promotion_groups(config, |name| known.get(name).map(|it| &**it))
        .map_err(|error| ConfigError::RolloutGroup(error.to_string()))
}

/// A file of a commit.
enum CommitFile {
    Read(String),
    Missing,
    /// It is there, and the reason why this file is not used. Other files are.
    Unusable(String),
}

async fn read_commit_file(
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
fn shown(path: &str) -> String {
    if path.contains(char::is_control) {
        path.escape_debug().to_string()
    } else {
        path.to_owned()
    }
}

/// The configuration of a commit. Mistakes in the file are added to the problems; the error is shown once the runs have ended.
async fn read_config(
    repo: &GitRepository,
    service: &ServiceName,
    commit: &CommitId,
    available: &AvailableTargets,
    problems: &mut Vec<String>,
) -> Result<Result<ServiceConfig, ConfigError>, PushError> {
    let text = match read_commit_file(repo, commit, CONFIG).await? {
        CommitFile::Read(text) => text,
        CommitFile::Missing => return Ok(Err(ConfigError::Missing)),
        CommitFile::Unusable(why) => return Ok(Err(ConfigError::Unusable(why))),
    };
    let source = SourceFile::new(CONFIG, text);
    let (config, warnings) = match block_in_place(|| config::parse_for(&source, available)) {
        Ok(read) => read,
        Err(errors) => {
            problems.extend(errors.iter().map(|error| error.one_line(&source)));
            return Ok(Err(ConfigError::Invalid));
        }
    };
    if config.service != *service {
        return Ok(Err(ConfigError::OtherService {
            configured: config.service,
            pushed: service.clone(),
        }));
    }
    problems.extend(warnings.iter().map(|warning| warning.one_line(&source)));
    Ok(Ok(config))
}

/// Reads the workflow files of a commit, and sorts out those that the push starts and those that start later.
struct PushedWorkflowReader<'a> {
    repo: &'a GitRepository,
    commit: &'a CommitId,
    config: Option<&'a ServiceConfig>,
    event: &'a PushEvent,
    /// Workflows that the push starts.
    matching: Vec<WorkflowFile>,
    /// Workflows that start on a schedule or after another workflow; `None` on other branches than the default one.
    standing: Option<Vec<ScheduledWorkflow>>,
    problems: &'a mut Vec<String>,
}

impl PushedWorkflowReader<'_> {
    async fn read_all(
        mut self,
    ) -> Result<(Vec<WorkflowFile>, Option<Vec<ScheduledWorkflow>>), PushError> {
        for path in self.paths().await? {
            match read_commit_file(self.repo, self.commit, &path).await? {
                CommitFile::Read(text) => self.add(path, text).await?,
                CommitFile::Missing => self.problems.push(format!(
                    "{CONFIG}: the workflow {path} is not in the commit"
                )),
                CommitFile::Unusable(why) => {
                    let problem = format!("{} does not run: {why}", shown(&path));
                    self.problems.push(problem);
                }
            }
        }
        Ok((self.matching, self.standing))
    }

    /// The files that the configuration names, else all of the folder; at most [`WORKFLOW_FILES_MAX`].
    async fn paths(&mut self) -> Result<Vec<String>, PushError> {
        let named = (self.config).map_or(&[][..], |config| config.workflows.as_slice());
        let mut paths = if named.is_empty() {
            self.repo.list_files(self.commit, WORKFLOWS).await?
        } else {
            named.to_vec()
        };
        paths.retain(|path| path.ends_with(".yml") || path.ends_with(".yaml"));
        if let Some(first) = paths.get(WORKFLOW_FILES_MAX) {
            self.problems.push(format!(
                "{WORKFLOWS} has {} workflow files, but only {WORKFLOW_FILES_MAX} are read: {} and later ones do not run",
                paths.len(),
                shown(first)
            ));
            paths.truncate(WORKFLOW_FILES_MAX);
        }
        Ok(paths)
    }

    async fn add(&mut self, path: String, text: String) -> Result<(), PushError> {
        let source = SourceFile::new(&path, text.clone());
        let parsed = block_in_place(|| shipway_workflow::parse(&source));
        let Some(workflow) = parsed.workflow else {
            let diagnostics = parsed.diagnostics.iter();
            self.problems
                .extend(diagnostics.map(|it| it.one_line(&source)));
            self.problems
                .push(format!("{path} has errors and does not run"));
            return Ok(());
        };
        let is_matching = block_in_place(|| workflow.on.matches_push(self.event));
        let after = (workflow.on.others.iter()).find(|other| other.name == "workflow_run");
        let schedules = &workflow.on.schedule;
        let starts_later = after.is_some() || !schedules.is_empty();
        let standing = self.standing.as_mut().filter(|_| starts_later);
        if !is_matching && standing.is_none() {
            return Ok(());
        }
        self.problems
            .extend(unknown_environments(&path, &workflow, self.config));
        let file = with_calls(self.repo, self.commit, path, text).await?;
        if let Some(standing) = standing {
            standing.push(ScheduledWorkflow {
                workflow: file.clone(),
                schedules: schedules.clone(),
                after: after.cloned(),
            });
        }
        if is_matching {
            self.matching.push(file);
        }
        Ok(())
    }
}

/// A workflow with all workflows of its commit that it calls. An unreadable one is recorded with its error, which planning reports at the
/// call. Workflows of other repositories are read when a run is opened: a push waits for no forge, and a schedule gets their current state.
async fn with_calls(
    repo: &GitRepository,
    commit: &CommitId,
    path: String,
    content: String,
) -> Result<WorkflowFile, PushError> {
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

/// Warnings for environments that jobs name and `shipway.yaml` doesn't: they have no gates, which may surprise.
fn unknown_environments(
    path: &str,
    workflow: &shipway_workflow::model::Workflow,
    config: Option<&ServiceConfig>,
) -> Vec<String> {
    let known = config.map_or(&[][..], |config| &config.environments);
    let unknown = workflow.jobs.iter().filter_map(|job| {
        let name = job.environment.as_ref()?.name.as_literal()?;
        let is_known = known
            .iter()
            .any(|it| it.name.as_str().eq_ignore_ascii_case(name));
        (config.is_some() && !is_known).then(|| {
            format!(
                "{path}:{}: the job `{}` uses the environment `{name}`, which {CONFIG} doesn't define: it has no gates",
                job.at, job.id
            )
        })
    });
    unknown.collect()
}

/// What the release of a commit's tree lacks.
fn foreign_content_warnings(foreign: &ForeignContent) -> Vec<String> {
    let warning = |paths: &[String], what: &str, input: &str| {
        let first = paths.first()?;
        let count = match paths.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "{CONFIG}: warning: the release is the commit's tree, which has {what} instead of {first}{count}; to release the content, build the artifact in a workflow whose actions/checkout has `{input}`"
        ))
    };
    let submodules = warning(&foreign.submodules, "an empty folder", "submodules: true");
    let large_files = warning(&foreign.large_files, "a pointer of Git LFS", "lfs: true");
    submodules.into_iter().chain(large_files).collect()
}

async fn store_tree(
    receiver: &PushReceiver,
    repo: &GitRepository,
    commit: &CommitId,
) -> Result<Digest, PushError> {
    let fail = |error: &dyn std::fmt::Display| PushError::Artifact(error.to_string());
    let folder = tempfile::tempdir_in(&receiver.scratch).map_err(|error| fail(&error))?;
    let tar = folder.path().join("tree.tar");
    repo.export_tar(commit, "", &tar).await?;
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

/// Why a workflow can't be started by hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DispatchError {
    /// The repository can't be read.
    #[error(transparent)]
    Unreadable(#[from] PushError),
    /// The named file can't be used.
    #[error("{path} can't be started: {why}")]
    Unusable {
        /// The file, printable.
        path: String,
        /// Its size or path.
        why: String,
    },
    /// The first mistake in the named file, with its position.
    #[error("{0}")]
    Invalid(String),
    /// An input is missing, unknown or of another type.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The named file is missing, or is started by other events only.
    #[error("{0} is not in the commit, or has no `on: workflow_dispatch`")]
    NotDispatchable(String),
    /// No file was named, and none can be started by hand.
    #[error("no workflow of the commit has `on: workflow_dispatch`")]
    NoneDispatchable,
    /// No file was named, and several can be started by hand.
    #[error("there are several workflows, name one: {0}")]
    Ambiguous(String),
}

/// A workflow that can be started by hand with these inputs: the named one, or the only one.
pub(crate) async fn find_dispatchable(
    repo: &GitRepository,
    commit: &CommitId,
    name: Option<&str>,
    inputs: &BTreeMap<String, String>,
) -> Result<WorkflowFile, DispatchError> {
    let paths = match name {
        Some(path) if path.contains('/') => vec![path.to_owned()],
        Some(name) => vec![format!("{WORKFLOWS}/{name}")],
        None => (repo.list_files(commit, WORKFLOWS).await).map_err(PushError::from)?,
    };
    let mut found = Vec::new();
    for path in paths.into_iter().take(WORKFLOW_FILES_MAX) {
        let read = read_commit_file(repo, commit, &path).await;
        let text = match read.map_err(PushError::from)? {
            CommitFile::Read(text) => text,
            CommitFile::Unusable(why) if name.is_some() => {
                let path = shown(&path);
                return Err(DispatchError::Unusable { path, why });
            }
            CommitFile::Missing | CommitFile::Unusable(_) => continue,
        };
        let source = SourceFile::new(&path, text.clone());
        let parsed = block_in_place(|| shipway_workflow::parse(&source));
        match parsed.workflow {
            Some(workflow) => {
                if let Some(dispatch) = workflow.on.workflow_dispatch {
                    found.push((with_calls(repo, commit, path, text).await?, dispatch));
                }
            }
            None if name.is_some() => {
                let first = parsed.diagnostics.first();
                let first = first.map(|first| first.one_line(&source));
                return Err(DispatchError::Invalid(first.unwrap_or_default()));
            }
            None => {}
        }
    }
    match (found.len(), name) {
        (1, _) => {
            let (file, dispatch) = found.remove(0);
            dispatch.inputs(inputs.iter().map(|(name, value)| (&**name, &**value)))?;
            Ok(file)
        }
        (0, Some(name)) => Err(DispatchError::NotDispatchable(name.to_owned())),
        (0, None) => Err(DispatchError::NoneDispatchable),
        _ => {
            let paths: Vec<_> = found.iter().map(|(file, _)| file.path.as_str()).collect();
            Err(DispatchError::Ambiguous(paths.join(", ")))
        }
    }
}

/// A commit, as releases remember it.
pub(crate) async fn commit_of(repo: &GitRepository, commit: &CommitId) -> Result<Commit, GitError> {
    let info = repo.commit_info(commit).await?;
    let author = format!("{} <{}>", info.author.name, info.author.email);
    Ok(Commit {
        id: commit.clone(),
        subject: info.subject,
        author,
        at: info.at,
    })
}
