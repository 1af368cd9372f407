//! The workflow files of a commit: those that a push starts, and those that start later.

use shipway_core::{config::ServiceConfig, release::WorkflowFile, service::ScheduledWorkflow};
use shipway_syntax::SourceFile;
use shipway_workflow::model::{PushEvent, Workflow};
use tokio::task::block_in_place;

use super::{
    PushError,
    commit_files::{CommitFile, CommitFiles, WORKFLOWS, shown},
};

/// Workflow files that are read of a commit, in the order of their names.
pub(super) const WORKFLOW_FILES_MAX: usize = 200;

pub(super) fn is_workflow_path(path: &str) -> bool {
    path.ends_with(".yml") || path.ends_with(".yaml")
}

/// Workflows of a commit, for one service.
#[derive(Default)]
pub(super) struct PushedWorkflows {
    /// Workflows that the push starts.
    pub(super) matching: Vec<WorkflowFile>,
    /// Workflows that start on a schedule or after another workflow; `None` on other branches than the released one.
    pub(super) standing: Option<Vec<ScheduledWorkflow>>,
}

/// Reads the workflow files of a commit.
pub(super) struct PushedWorkflowReader<'a, 'f> {
    pub(super) files: &'a mut CommitFiles<'f>,
    pub(super) config: Option<&'a ServiceConfig>,
    /// The path of the configuration.
    pub(super) config_path: &'a str,
    pub(super) event: &'a PushEvent,
    pub(super) workflows: PushedWorkflows,
    pub(super) problems: &'a mut Vec<String>,
}

impl PushedWorkflowReader<'_, '_> {
    pub(super) async fn read_all(mut self) -> Result<PushedWorkflows, PushError> {
        for path in self.paths().await? {
            match self.files.read(&path).await? {
                CommitFile::Read(text) => self.add(path, text).await?,
                CommitFile::Missing => self.problems.push(format!(
                    "{}: the workflow {path} is not in the commit",
                    self.config_path
                )),
                CommitFile::Unusable(why) => {
                    let problem = format!("{} does not run: {why}", shown(&path));
                    self.problems.push(problem);
                }
            }
        }
        Ok(self.workflows)
    }

    /// The files that the configuration names, else all of the folder; at most [`WORKFLOW_FILES_MAX`].
    async fn paths(&mut self) -> Result<Vec<String>, PushError> {
        let named = (self.config).map_or(&[][..], |config| config.workflows.as_slice());
        let mut paths = if named.is_empty() {
            self.files.workflow_paths().await?
        } else {
            named.to_vec()
        };
        paths.retain(|path| is_workflow_path(path));
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
        let is_standing = self.workflows.standing.is_some() && starts_later;
        if !is_matching && !is_standing {
            return Ok(());
        }
        (self.problems).extend(self.unknown_environments(&path, &workflow));
        let file = self.files.with_calls(path, text).await?;
        if let Some(standing) = self.workflows.standing.as_mut().filter(|_| is_standing) {
            standing.push(ScheduledWorkflow {
                workflow: file.clone(),
                schedules: schedules.clone(),
                after: after.cloned(),
            });
        }
        if is_matching {
            self.workflows.matching.push(file);
        }
        Ok(())
    }

    /// Warnings for environments that jobs name and `shipway.yaml` doesn't: they have no gates, which may surprise.
    fn unknown_environments(&self, path: &str, workflow: &Workflow) -> Vec<String> {
        let Some(config) = self.config else {
            return Vec::new();
        };
        let unknown = workflow.jobs.iter().filter_map(|job| {
            let name = job.environment.as_ref()?.name.as_literal()?;
            let mut known = config.environments.iter();
            if known.any(|it| it.name.as_str().eq_ignore_ascii_case(name)) {
                return None;
            }
            Some(format!(
                "{path}:{}: the job `{}` uses the environment `{name}`, which {} doesn't define: it has no gates",
                job.at, job.id, self.config_path
            ))
        });
        unknown.collect()
    }
}
