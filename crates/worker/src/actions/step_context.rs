//! What a built-in action gets and what it returns: it never calls back into the runner of steps.
//!
//! A cancelled or late action is dropped by [`crate::action_runner`], so that no action needs to check for it.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use shipway_workflow::{
    expr::ExprValue,
    job::{AnnotationLevel, JobSpec, JournalBody, ServerAccess, SourceTree},
};

use super::{action_error::ActionError, action_log::ActionLog, tool_table::MissingTool};
use crate::{
    action_stage::ActionStage,
    cache::JobCaches,
    containers::JobContainer,
    environment::{EnvVars, JobFolders},
    job_inputs::JobInputProvider,
    program_runner::RunOutcome,
    runtime::ArtifactStore,
};

/// The data of a step, and the capabilities that built-in actions need.
pub(crate) struct StepContext<'c> {
    /// The `github` context.
    pub(super) github: &'c ExprValue,
    pub(super) source: &'c SourceTree,
    pub(super) inputs: &'c dyn JobInputProvider,
    /// `None` for a job of `shipway run`, which has no server.
    pub(super) server: Option<&'c ServerAccess>,
    /// Whether versions of tools other than the requested ones may be used.
    pub(super) allow_other_versions: bool,
    pub(super) folders: &'c JobFolders,
    /// The artifacts of the run so far.
    pub(super) artifact_store: &'c ArtifactStore,
    /// `None` if the job has no cache store.
    pub(super) caches: Option<&'c JobCaches>,
    pub(super) stage: ActionStage,
    /// State that an earlier part of the action has saved.
    pub(super) state: Option<&'c EnvVars>,
    /// `with:`, with names in lower case.
    pub(super) with: BTreeMap<String, String>,
    pub(super) env: &'c [(String, String)],
    pub(super) log: &'c mut dyn ActionLog,
    /// The container that the job's steps run in.
    pub(super) container: Option<&'c JobContainer>,
}

/// The result of an action.
#[derive(Debug, Default)]
pub(crate) struct StepResult {
    pub(crate) ended: RunOutcome,
    pub(crate) outputs: Vec<(String, String)>,
    /// Variables that a built-in action sets for later steps.
    pub(crate) env: Vec<(String, String)>,
    /// Folders that a built-in action puts before `PATH` for later steps.
    pub(crate) paths: Vec<String>,
    /// Journal entries.
    pub(crate) entries: Vec<JournalBody>,
    /// Markdown.
    pub(crate) summary: String,
    /// State for later parts of a built-in action.
    pub(crate) state: Vec<(String, String)>,
    /// Whether a built-in action has a post part, which runs if the job succeeds.
    pub(crate) has_post_part: bool,
    /// A tool that this machine lacks: the real action of the same name must install it.
    pub(crate) missing_tool: Option<MissingTool>,
}

impl StepResult {
    pub(super) fn with_outputs(outputs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let outputs = outputs.into_iter();
        Self {
            outputs: outputs
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            ..Self::default()
        }
    }

    pub(super) fn unsupported(why: String) -> Self {
        RunOutcome::Unsupported(why).into()
    }

    pub(crate) fn failed(why: impl Into<String>) -> Self {
        RunOutcome::Failed(why.into()).into()
    }

    pub(crate) fn add_summary(&mut self, more: &str) {
        if !self.summary.is_empty() && !self.summary.ends_with('\n') {
            self.summary.push('\n');
        }
        self.summary.push_str(more);
    }
}

impl From<RunOutcome> for StepResult {
    fn from(ended: RunOutcome) -> Self {
        Self {
            ended,
            ..Self::default()
        }
    }
}

impl From<Result<Self, ActionError>> for StepResult {
    fn from(result: Result<Self, ActionError>) -> Self {
        result.unwrap_or_else(|error| Self::failed(error.to_string()))
    }
}

impl<'c> StepContext<'c> {
    pub(crate) fn new(
        spec: &'c JobSpec,
        folders: &'c JobFolders,
        inputs: &'c dyn JobInputProvider,
        stores: (&'c ArtifactStore, Option<&'c JobCaches>),
        with: Vec<(String, String)>,
        env: &'c [(String, String)],
        log: &'c mut dyn ActionLog,
    ) -> Self {
        let with = with.into_iter();
        let (artifact_store, caches) = stores;
        Self {
            github: &spec.contexts.github,
            source: &spec.source,
            inputs,
            server: spec.server.as_ref(),
            allow_other_versions: spec.actions.allow_other_versions,
            folders,
            artifact_store,
            caches,
            stage: ActionStage::Main,
            state: None,
            with: with
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            env,
            log,
            container: None,
        }
    }

    /// For a part of an action, with the state of earlier parts.
    pub(crate) fn for_stage(mut self, stage: ActionStage, state: Option<&'c EnvVars>) -> Self {
        (self.stage, self.state) = (stage, state);
        self
    }

    /// In a job whose steps run in a container.
    pub(crate) fn in_container(mut self, container: Option<&'c JobContainer>) -> Self {
        self.container = container;
        self
    }

    /// A non-empty input.
    pub(super) fn input(&self, name: &str) -> Option<&str> {
        let value = self.with.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    }

    /// A value of the saved state.
    pub(super) fn saved_state(&self, name: &str) -> Option<&str> {
        self.state.and_then(|state| state.get(name))
    }

    /// A boolean input.
    pub(super) fn bool_input(&self, name: &str) -> Result<bool, ActionError> {
        match self.input(name) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(value) => Err(ActionError::InvalidInput {
                input: name.to_owned(),
                expected: "true or false".to_owned(),
                value: value.to_owned(),
            }),
        }
    }

    pub(super) fn log_message(&mut self, text: &str) {
        self.log.log_message(text);
    }

    pub(super) fn warn(&mut self, text: &str) {
        self.log.annotate(AnnotationLevel::Warning, text);
    }

    pub(super) fn notice(&mut self, text: &str) {
        self.log.annotate(AnnotationLevel::Notice, text);
    }

    /// Resolves a path, which must stay in the workspace, the home or the temporary folder.
    pub(super) fn resolve_path(&self, path: &str) -> Result<PathBuf, ActionError> {
        let JobFolders { home, temp, .. } = self.folders;
        let leaves = || ActionError::PathLeavesWorkspace(path.to_owned());
        let asked = Path::new(path);
        let (root, relative) = match (asked.strip_prefix("~"), asked.strip_prefix(temp)) {
            (Ok(relative), _) => (home, relative),
            (_, Ok(relative)) => (temp, relative),
            _ => (&self.folders.workspace, asked),
        };
        let relative = relative.strip_prefix(root).unwrap_or(relative);
        let mut inside = root.clone();
        for step in relative.components() {
            match step {
                Component::Normal(step) => inside.push(step),
                Component::CurDir => {}
                Component::ParentDir if inside != *root => {
                    inside.pop();
                }
                _ => return Err(leaves()),
            }
        }
        // Also check symlinks in the existing part of the path.
        let mut there = inside.as_path();
        while !there.exists() && there != root.as_path() {
            there = there.parent().unwrap_or(root);
        }
        let real = (there.canonicalize().ok()).zip(root.canonicalize().ok());
        match real {
            Some((there, root)) if there.starts_with(&root) => Ok(inside),
            _ => Err(leaves()),
        }
    }
}
