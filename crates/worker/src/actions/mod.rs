//! Actions: built-in equivalents of GitHub's, which need no network, and all others ([`perform`], [`known`]).

mod action_error;
mod action_handlers;
pub(crate) mod action_resolver;
pub(crate) mod action_store;
mod artifact;
pub(crate) mod artifact_tar;
mod cache;
mod checkout;
mod cross_run_artifacts;
mod deploy;
mod docker_action;
mod fetch_actions;
mod python_venv;
mod setup_tools;
mod version_ranges;

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use shipway_workflow::{
    job::{JobSpec, JournalBody, Level},
    model::Table,
};

pub(crate) use action_error::{ActionError, EndpointError, NodeProblem};
use setup_tools::MissingTool;

use crate::{
    cache::JobCaches,
    cancellation::StopMode,
    command_files::CommandFiles,
    containers::JobContainer,
    environment::{EnvVars, JobFolders},
    file_hash::WorkspaceFiles,
    output_processor::OutputProcessor,
    program_runner::RunOutcome,
    runtime::{ArtifactStore, RuntimeEndpoints},
    step_runner::{PlannedStep, StepRunner, StepTask},
    step_scope::{ActionStage, PostStep, StepScope},
};

/// What a built-in action gets.
pub(crate) struct ActionContext<'c> {
    spec: &'c JobSpec,
    folders: &'c JobFolders,
    /// The artifacts of the run so far.
    shelf: &'c ArtifactStore,
    /// `None` if the job has no cache store.
    caches: Option<&'c JobCaches>,
    stage: ActionStage,
    /// State that an earlier part of the action has saved.
    state: Option<&'c EnvVars>,
    /// `with:`, with names in lower case.
    with: BTreeMap<String, String>,
    env: &'c [(String, String)],
    output: &'c mut OutputProcessor,
    /// The container that the job's steps run in.
    container: Option<&'c JobContainer>,
}

/// The effects of an action.
#[derive(Debug, Default)]
pub(crate) struct ActionEffects {
    pub(crate) outputs: Vec<(String, String)>,
    /// Journal entries.
    pub(crate) entries: Vec<JournalBody>,
    /// Markdown.
    pub(crate) summary: String,
    /// State for later parts of a built-in action.
    state: Vec<(String, String)>,
    /// Whether a built-in action has a post part, which runs if the job succeeds.
    post: bool,
    /// Why a built-in action can't run here; makes the job incomplete.
    left_out: Option<String>,
    /// A tool that this machine lacks: the real action of the same name must install it.
    missing_tool: Option<MissingTool>,
}

/// The `uses:` part of a step.
pub(crate) struct ActionUse<'u> {
    pub(crate) action: &'u str,
    pub(crate) with: &'u Table,
    pub(crate) channel: &'u CommandFiles,
}

impl ActionEffects {
    fn with_outputs(outputs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let outputs = outputs.into_iter();
        Self {
            outputs: outputs
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            ..Self::default()
        }
    }

    fn unsupported(why: String) -> Self {
        Self {
            left_out: Some(why),
            ..Self::default()
        }
    }

    pub(crate) fn add_summary(&mut self, more: &str) {
        if !self.summary.is_empty() && !self.summary.ends_with('\n') {
            self.summary.push('\n');
        }
        self.summary.push_str(more);
    }
}

impl<'c> ActionContext<'c> {
    pub(crate) fn new(
        spec: &'c JobSpec,
        folders: &'c JobFolders,
        runtime: &'c RuntimeEndpoints,
        with: Vec<(String, String)>,
        env: &'c [(String, String)],
        output: &'c mut OutputProcessor,
    ) -> Self {
        let with = with.into_iter();
        Self {
            spec,
            folders,
            shelf: &runtime.shelf,
            caches: runtime.caches.as_ref(),
            stage: ActionStage::Main,
            state: None,
            with: with
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            env,
            output,
            container: None,
        }
    }

    /// A non-empty input.
    fn input(&self, name: &str) -> Option<&str> {
        let value = self.with.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    }

    /// A value of the saved state.
    fn saved_state(&self, name: &str) -> Option<&str> {
        self.state.and_then(|state| state.get(name))
    }

    /// A boolean input.
    fn bool_input(&self, name: &str) -> Result<bool, ActionError> {
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

    fn log_message(&mut self, text: &str) {
        self.output.log_message(text);
        self.output.log.flush();
    }

    fn warn(&mut self, text: &str) {
        self.output.annotate(Level::Warning, text);
    }

    fn notice(&mut self, text: &str) {
        self.output.annotate(Level::Notice, text);
    }

    /// Resolves a path, which must stay in the workspace, the home or the temporary folder.
    fn resolve_path(&self, path: &str) -> Result<PathBuf, ActionError> {
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

/// Runs blocking work on another thread, so that the job can be cancelled meanwhile.
async fn run_blocking<T: Send + 'static, E: Into<ActionError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, ActionError> {
    tokio::task::spawn_blocking(work).await?.map_err(Into::into)
}

impl StepRunner {
    /// Runs a built-in action.
    async fn run_built_in_action(
        &mut self,
        frame: &mut StepScope,
        task: &StepTask,
        plan: &PlannedStep,
        uses: &ActionUse<'_>,
        left: &mut ActionEffects,
    ) -> RunOutcome {
        let seen = frame.step_identity(&task.step.id);
        let env = self
            .step_environment(&seen, &plan.env, uses.channel)
            .into_vec();
        let workspace = self.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let contexts = self.expression_contexts(frame, &seen, &plan.env, &files);
        let with = match uses.with.resolve(&contexts) {
            Ok(with) => self.translate_input_paths(with),
            Err(error) => {
                return RunOutcome::Failed(ActionError::in_expression("with")(error).to_string());
            }
        };
        for (name, value) in &with {
            self.output.log_message(&format!("  {name}: {value}"));
        }
        self.output.log_message("##[endgroup]");
        self.output.log.flush();
        let mut call = ActionContext::new(
            &self.spec,
            &self.folders,
            &self.runtime,
            with,
            &env,
            &mut self.output,
        );
        call.container = self.containers.job_container();
        call.stage = frame.stage;
        call.state = self.states.get(&task.key);
        let late = tokio::time::sleep(plan.timeout.unwrap_or(Duration::MAX));
        tokio::select! {
            result = dispatch_built_in(uses.action, call) => match result {
                Ok(done) => {
                    *left = done;
                    self.save_for_later(frame, task, left);
                    left.left_out.take().map_or(RunOutcome::Succeeded, RunOutcome::Unsupported)
                }
                Err(error) => RunOutcome::Failed(error.to_string()),
            },
            // Built-in actions need no grace period.
            StopMode::Graceful | StopMode::Immediate = self.cancel.wait_for_stop(plan.goes_on) => RunOutcome::Cancelled,
            () = late => RunOutcome::TimedOut,
        }
    }

    /// Saves state and post part of a built-in action.
    fn save_for_later(&mut self, frame: &mut StepScope, task: &StepTask, left: &mut ActionEffects) {
        if !left.state.is_empty() {
            let states = self.states.entry(task.key.clone()).or_default();
            states.extend(left.state.drain(..));
        }
        if left.post {
            frame.register_post_step(PostStep {
                key: task.key.clone(),
                step: task.step.clone(),
                action: None,
                inner: None,
            });
        }
    }
}

/// GitHub's actions with a built-in equivalent, without `actions/setup-*`.
const BUILT_IN: [&str; 6] = [
    "actions/checkout",
    "actions/upload-artifact",
    "actions/download-artifact",
    "actions/cache",
    "actions/cache/restore",
    "actions/cache/save",
];

/// Whether the action (name without version) has a built-in equivalent.
fn has_built_in(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    BUILT_IN.contains(&name.as_str())
        || (name.strip_prefix("actions/setup-")).is_some_and(setup_tools::is_supported)
}

/// The major version in `owner/name@v4`.
fn major_version(action: &str) -> Option<u32> {
    let version = action.split_once("@v")?.1;
    version.split('.').next()?.parse().ok()
}

/// Dispatches to a built-in action.
async fn dispatch_built_in(
    action: &str,
    mut call: ActionContext<'_>,
) -> Result<ActionEffects, ActionError> {
    let name = action.split('@').next().unwrap_or(action);
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "actions/checkout" => checkout::run_checkout(&mut call).await,
        "actions/upload-artifact" => artifact::upload_artifact(&mut call).await,
        "actions/download-artifact" => {
            artifact::download_artifact(&mut call, major_version(action)).await
        }
        "actions/cache" => cache::run_cache(&mut call).await,
        "actions/cache/restore" => cache::restore_cache(&mut call).await,
        "actions/cache/save" => cache::save_cache(&mut call).await,
        "shipway/deploy" => deploy::run_deploy(&mut call).await,
        _ => match name.strip_prefix("actions/setup-") {
            Some(tool) => setup_tools::set_up_tool(tool, &mut call).await,
            None => Err(ActionError::UnknownBuiltIn(action.to_owned())),
        },
    }
}
