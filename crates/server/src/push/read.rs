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
};
use shipway_drivers::git::{GitError, GitRepository, RefUpdate};
use shipway_syntax::{Diagnostic, SourceFile};
use shipway_workflow::{graph::WorkflowLocation, model::PushEvent};
use tokio::task::block_in_place;

use super::PushError;
use crate::app::{App, service_stream};

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

pub(super) async fn contents(
    app: &App,
    repo: &GitRepository,
    service: &ServiceName,
    update: &RefUpdate,
    commit: &CommitId,
) -> Result<CommitContents, PushError> {
    let mut problems = Vec::new();
    let (config, mut unconfigured) = match read_config(repo, service, commit, &mut problems).await?
    {
        Ok(config) => (Some(config), None),
        Err(why) => (None, Some(why)),
    };
    let default_branch = config
        .as_ref()
        .map_or("main", |config| config.branch.as_str());
    let changed = repo.changed_paths(update, default_branch).await?;
    let event = PushEvent {
        reference: update.name.clone(),
        changed_paths: Some(changed),
    };
    let mut standing = (update.branch() == Some(default_branch)).then(Vec::new);
    let workflows = matching_workflows(
        repo,
        commit,
        config.as_ref(),
        &event,
        &mut problems,
        standing.as_mut(),
    )
    .await?;
    let is_released = config
        .as_ref()
        .is_some_and(|config| update.branch() == Some(config.branch.as_str()));
    let (mut tests, mut source) = (Vec::new(), None);
    if let Some(config) = config.as_ref().filter(|_| is_released) {
        for path in config
            .environments
            .iter()
            .filter_map(|environment| environment.tests.as_ref())
        {
            // Without the tests that it asks for nothing is released.
            match read_commit_file(repo, commit, path).await? {
                CommitFile::Read(text) => {
                    tests.push(with_calls(repo, commit, path.clone(), text).await?)
                }
                CommitFile::Missing => {
                    unconfigured = Some(format!(
                        "{CONFIG} names the tests {path}, which are not in this commit; add them, or take `tests` away"
                    ))
                }
                CommitFile::Unusable(why) => {
                    unconfigured = Some(format!("{CONFIG} names the tests {path}: {why}"))
                }
            }
        }
        if let Err(why) = ties_fit(app, config).await {
            unconfigured = Some(format!("{CONFIG}: environment {why}"));
        }
        // What is not released anyway must not claim an address.
        if unconfigured.is_none() {
            match app.claim_for_push(config).await {
                Ok(notes) => {
                    problems.extend(notes.iter().map(|it| format!("{CONFIG}: note: {it}")));
                }
                Err(error) => {
                    problems.push(format!("✗ {CONFIG}: {error}"));
                    unconfigured = Some(format!("{CONFIG}: {error}"));
                }
            }
        }
        if config.artifact == ArtifactSource::Source {
            source = Some(store_tree(app, repo, commit).await?);
        }
    }
    let commit = commit_of(repo, commit).await?;
    let push = Push {
        reference: update.name.clone(),
        before: update.old.clone(),
        commit,
        config: config.filter(|_| unconfigured.is_none()).map(Box::new),
        unconfigured,
        tests,
        source,
    };
    Ok(CommitContents {
        push,
        workflows,
        standing,
        problems,
    })
}

/// A push of which no file is read.
pub(super) async fn without_files(
    repo: &GitRepository,
    update: &RefUpdate,
    commit: &CommitId,
) -> Result<Push, GitError> {
    Ok(Push {
        reference: update.name.clone(),
        before: update.old.clone(),
        commit: commit_of(repo, commit).await?,
        config: None,
        unconfigured: Some("its push moved too many references".to_owned()),
        tests: Vec::new(),
        source: None,
    })
}

/// Whether the services that it names in `with` are here.
async fn ties_fit(app: &App, config: &ServiceConfig) -> Result<(), String> {
    let mut known = BTreeMap::new();
    for name in config.environments.iter().flat_map(|it| &it.with) {
        let state = app.services.state(&service_stream(name)).await;
        let state = state.map_err(|error| error.to_string())?;
        if let Some(config) = state.and_then(|state| state.config.clone()) {
            known.insert(name.clone(), config);
        }
    }
    config::check_ties(config, |name| known.get(name).map(|it| &**it))
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

/// The configuration of a commit, or why it has none, which is said once the runs are over. What is wrong in the file itself is
/// among the problems.
async fn read_config(
    repo: &GitRepository,
    service: &ServiceName,
    commit: &CommitId,
    problems: &mut Vec<String>,
) -> Result<Result<ServiceConfig, String>, PushError> {
    let text = match read_commit_file(repo, commit, CONFIG).await? {
        CommitFile::Read(text) => text,
        CommitFile::Missing => {
            return Ok(Err(format!(
                "there is no {CONFIG} in this commit; `shipway init` writes one"
            )));
        }
        CommitFile::Unusable(why) => return Ok(Err(format!("{CONFIG} is not used: {why}"))),
    };
    let source = SourceFile::new(CONFIG, text);
    let (config, warnings) = match block_in_place(|| config::parse(&source)) {
        Ok(read) => read,
        Err(errors) => {
            problems.extend(errors.iter().map(|error| one_line(&source, error)));
            return Ok(Err(format!(
                "{CONFIG} has mistakes; `shipway check` shows them"
            )));
        }
    };
    if config.service != *service {
        return Ok(Err(format!(
            "{CONFIG} says `service: {}`, but this repository is {service}; push to /git/{}, or change the name",
            config.service, config.service
        )));
    }
    problems.extend(warnings.iter().map(|warning| one_line(&source, warning)));
    Ok(Ok(config))
}

async fn matching_workflows(
    repo: &GitRepository,
    commit: &CommitId,
    config: Option<&ServiceConfig>,
    event: &PushEvent,
    problems: &mut Vec<String>,
    mut standing: Option<&mut Vec<ScheduledWorkflow>>,
) -> Result<Vec<WorkflowFile>, PushError> {
    let named = config.map_or(&[][..], |config| config.workflows.as_slice());
    let mut paths = if named.is_empty() {
        repo.list_files(commit, WORKFLOWS).await?
    } else {
        named.to_vec()
    };
    paths.retain(|path| path.ends_with(".yml") || path.ends_with(".yaml"));
    if let Some(first) = paths.get(WORKFLOW_FILES_MAX) {
        problems.push(format!(
            "{WORKFLOWS}: there are {} workflow files, and {WORKFLOW_FILES_MAX} are read: {} and those after it do not run",
            paths.len(),
            shown(first)
        ));
        paths.truncate(WORKFLOW_FILES_MAX);
    }
    let mut matching = Vec::new();
    for path in paths {
        let text = match read_commit_file(repo, commit, &path).await? {
            CommitFile::Read(text) => text,
            CommitFile::Missing => {
                problems.push(format!(
                    "{CONFIG}: the workflow {path} is not in the commit"
                ));
                continue;
            }
            CommitFile::Unusable(why) => {
                problems.push(format!("{} does not run: {why}", shown(&path)));
                continue;
            }
        };
        let source = SourceFile::new(&path, text.clone());
        let parsed = block_in_place(|| shipway_workflow::parse(&source));
        match parsed.workflow {
            Some(workflow) => {
                let pushed = block_in_place(|| workflow.on.matches_push(event));
                let after = (workflow.on.others.iter()).find(|other| other.name == "workflow_run");
                let schedules = &workflow.on.schedule;
                let stands = standing.is_some() && (after.is_some() || !schedules.is_empty());
                if !pushed && !stands {
                    continue;
                }
                problems.extend(unknown_environments(&path, &workflow, config));
                let file = with_calls(repo, commit, path, text).await?;
                if let Some(standing) = standing.as_mut().filter(|_| stands) {
                    standing.push(ScheduledWorkflow {
                        workflow: file.clone(),
                        schedules: schedules.clone(),
                        after: after.cloned(),
                    });
                }
                if pushed {
                    matching.push(file);
                }
            }
            None => {
                problems.extend(
                    parsed
                        .diagnostics
                        .iter()
                        .map(|diagnostic| one_line(&source, diagnostic)),
                );
                problems.push(format!("{path} has mistakes and does not run"));
            }
        }
    }
    Ok(matching)
}

/// A workflow with all that it calls in its commit. What can't be read is on record as that, and planning says where it is called.
/// What is in other repositories is read when a run is opened: a push waits for no forge, and a schedule gets what is there then.
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

/// Environments that jobs name and `shipway.yaml` doesn't: they are there without gates, which somebody may not expect.
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
                "{path}:{}: the job `{}` goes to the environment `{name}`, which {CONFIG} doesn't name: it has no gates",
                job.at, job.id
            )
        })
    });
    unknown.collect()
}

async fn store_tree(
    app: &App,
    repo: &GitRepository,
    commit: &CommitId,
) -> Result<Digest, PushError> {
    let fail = |error: &dyn std::fmt::Display| PushError::Artifact(error.to_string());
    let folder = tempfile::tempdir_in(&app.data).map_err(|error| fail(&error))?;
    let tar = folder.path().join("tree.tar");
    repo.export_tar(commit, "", &tar).await?;
    let file = tokio::fs::File::open(&tar)
        .await
        .map_err(|error| fail(&error))?;
    app.blobs
        .put(Box::pin(file))
        .await
        .map(|stored| stored.digest)
        .map_err(|error| fail(&error))
}

/// `shipway.yaml:3:5: error: unknown key; help: did you mean …`
fn one_line(source: &SourceFile, diagnostic: &Diagnostic) -> String {
    diagnostic.one_line(source)
}

/// A workflow that can be started by hand with these inputs: the one named, or the only one.
pub(crate) async fn dispatchable(
    repo: &GitRepository,
    commit: &CommitId,
    wanted: Option<&str>,
    inputs: &BTreeMap<String, String>,
) -> Result<WorkflowFile, String> {
    let paths = match wanted {
        Some(path) if path.contains('/') => vec![path.to_owned()],
        Some(name) => vec![format!("{WORKFLOWS}/{name}")],
        None => repo
            .list_files(commit, WORKFLOWS)
            .await
            .map_err(|error| error.to_string())?,
    };
    let mut found = Vec::new();
    for path in paths.into_iter().take(WORKFLOW_FILES_MAX) {
        let read = read_commit_file(repo, commit, &path).await;
        let text = match read.map_err(|error| error.to_string())? {
            CommitFile::Read(text) => text,
            CommitFile::Unusable(why) if wanted.is_some() => {
                return Err(format!("{} can't be started: {why}", shown(&path)));
            }
            CommitFile::Missing | CommitFile::Unusable(_) => continue,
        };
        let source = SourceFile::new(&path, text.clone());
        let parsed = block_in_place(|| shipway_workflow::parse(&source));
        match parsed.workflow {
            Some(workflow) => {
                if let Some(dispatch) = workflow.on.workflow_dispatch {
                    let file = with_calls(repo, commit, path, text);
                    found.push((file.await.map_err(|error| error.to_string())?, dispatch));
                }
            }
            None if wanted.is_some() => {
                return Err(parsed
                    .diagnostics
                    .first()
                    .map(|first| one_line(&source, first))
                    .unwrap_or_default());
            }
            None => {}
        }
    }
    match (found.len(), wanted) {
        (1, _) => {
            let (file, dispatch) = found.remove(0);
            let given = inputs.iter().map(|(name, value)| (&**name, &**value));
            dispatch.inputs(given).map_err(|error| error.to_string())?;
            Ok(file)
        }
        (0, Some(wanted)) => Err(format!(
            "{wanted} is not in the commit, or has no `on: workflow_dispatch`"
        )),
        (0, None) => Err("no workflow of the commit has `on: workflow_dispatch`".to_owned()),
        _ => Err(format!(
            "which workflow? {}",
            found
                .iter()
                .map(|(file, _)| file.path.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        )),
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
