//! Starts the workflows of pull requests.

use shipway_core::{
    access::PushPrincipal,
    config::{self, ServiceConfig},
    forge::PullRequestChange,
    ids::{CommitId, ServiceName},
    release::{Commit, WorkflowFile},
    repository::{ComparisonBase, LocatedService, ServicePaths},
    service::{PullRequestRuns, ServiceEvent, ServiceInput},
};
use shipway_drivers::git::RefUpdate;
use shipway_syntax::SourceFile;
use tokio::task::block_in_place;

use super::{
    PushError, PushReceiver,
    commit_files::{CommitFile, CommitFiles},
    pushed_workflows::{WORKFLOW_FILES_MAX, is_workflow_path},
    read::commit_of,
    repository_services::find_services,
};
use crate::delivery_engines::DEFAULT_BRANCH;

/// A pull request that was fetched.
pub(crate) struct PullRequestPush<'a> {
    pub(crate) change: &'a PullRequestChange,
    pub(crate) base: CommitId,
    pub(crate) merge: CommitId,
    /// The number of the webhook that reported it.
    pub(crate) delivery: u64,
    pub(crate) by: PushPrincipal,
}

impl PushReceiver {
    /// Starts the workflows of a pull request, for each service of the repository. Returns a line for each run.
    pub(crate) async fn start_pull_request(
        &self,
        repository: &ServiceName,
        push: &PullRequestPush<'_>,
    ) -> Result<Vec<String>, PushError> {
        let repo = self.repositories.ensure(repository).await?;
        let update = RefUpdate {
            name: format!("refs/pull/{}/merge", push.change.number),
            old: Some(push.base.clone()),
            new: Some(push.merge.clone()),
        };
        let commit = commit_of(&repo, &push.merge).await?;
        let mut files = CommitFiles::new(&repo, &update, &push.merge);
        let mut lines = Vec::new();
        let services = find_services(&mut files, repository, &mut lines).await?;
        for located in &services.services {
            let starter = PullRequestStarter {
                receiver: self,
                push,
                commit: &commit,
                reference: &update.name,
                lines: &mut lines,
            };
            starter.start(&mut files, located).await?;
        }
        if lines.is_empty() {
            lines.push("no workflow is for it".to_owned());
        }
        Ok(lines)
    }
}

/// Starts the workflows of one service.
struct PullRequestStarter<'a> {
    receiver: &'a PushReceiver,
    push: &'a PullRequestPush<'a>,
    commit: &'a Commit,
    reference: &'a str,
    lines: &'a mut Vec<String>,
}

impl PullRequestStarter<'_> {
    async fn start(
        self,
        files: &mut CommitFiles<'_>,
        located: &LocatedService,
    ) -> Result<(), PushError> {
        let service = &located.service;
        let state = self.receiver.engines.service(service).await?;
        let Some(state) = state.filter(|state| state.name.is_some()) else {
            let line = format!("{service} has no push yet: push its branch first");
            self.lines.push(line);
            return Ok(());
        };
        state
            .require_repository(service, &located.location)
            .map_err(|error| PushError::Refused(error.to_string()))?;
        let config = read_config(files, located).await?;
        let branch = state.config.as_ref().map(|config| config.branch.as_str());
        let changed = files
            .changed_paths(&ComparisonBase::Push, branch.unwrap_or(DEFAULT_BRANCH))
            .await?
            .to_vec();
        let paths = match &config {
            Some(config) => ServicePaths::new(&located.location, config),
            None => ServicePaths::folder(&located.location),
        };
        let is_concerned =
            paths.are_unlimited() || !block_in_place(|| paths.select(&changed)).is_empty();
        if !is_concerned {
            return Ok(());
        }
        let workflows = self
            .matching_workflows(files, config.as_ref(), &changed)
            .await?;
        self.send(service, workflows).await
    }

    async fn matching_workflows(
        &self,
        files: &mut CommitFiles<'_>,
        config: Option<&ServiceConfig>,
        changed: &[String],
    ) -> Result<Vec<WorkflowFile>, PushError> {
        let named = config.map_or(&[][..], |config| config.workflows.as_slice());
        let mut paths = match named {
            [] => files.workflow_paths().await?,
            named => named.to_vec(),
        };
        paths.retain(|path| is_workflow_path(path));
        let change = self.push.change;
        let mut matching = Vec::new();
        for path in paths.into_iter().take(WORKFLOW_FILES_MAX) {
            let CommitFile::Read(text) = files.read(&path).await? else {
                continue;
            };
            let source = SourceFile::new(&path, text.clone());
            let parsed = block_in_place(|| shipway_workflow::parse(&source));
            let takes = parsed.workflow.is_some_and(|workflow| {
                let mut events = workflow.on.others.iter();
                block_in_place(|| {
                    events.any(|event| {
                        event.takes_pull_request(&change.action, &change.base_branch, changed)
                    })
                })
            });
            if takes {
                matching.push(files.with_calls(path, text).await?);
            }
        }
        Ok(matching)
    }

    async fn send(
        self,
        service: &ServiceName,
        workflows: Vec<WorkflowFile>,
    ) -> Result<(), PushError> {
        if workflows.is_empty() {
            return Ok(());
        }
        let PullRequestPush {
            change, delivery, ..
        } = self.push;
        let runs = PullRequestRuns {
            number: change.number,
            head: change.head.clone(),
            origin: change.origin,
            delivery: *delivery,
            commit: self.commit.clone(),
            reference: self.reference.to_owned(),
            workflows,
            payload: change.payload.clone(),
        };
        let input = ServiceInput::PullRequest(Box::new(runs));
        let by = self.push.by.actor("unknown");
        let sent = self.receiver.engines.send_to_service(service, input, by);
        let sent = sent
            .await
            .map_err(|error| PushError::Refused(error.to_string()))?;
        for event in &sent.events {
            if let ServiceEvent::RunOrdered { order } = &event.body {
                let line = format!(
                    "run {} of {service} ({})",
                    order.number, order.workflow.path
                );
                self.lines.push(line);
            }
        }
        Ok(())
    }
}

/// The configuration of a service in the merge; none where it has mistakes.
async fn read_config(
    files: &mut CommitFiles<'_>,
    located: &LocatedService,
) -> Result<Option<ServiceConfig>, PushError> {
    let path = located.location.config_path();
    let CommitFile::Read(text) = files.read(&path).await? else {
        return Ok(None);
    };
    let source = SourceFile::new(path, text);
    let parsed = block_in_place(|| config::parse(&source));
    Ok(parsed.ok().map(|(config, _)| config))
}
