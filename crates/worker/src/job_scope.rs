//! The state that the steps of a job share, and the contexts that its expressions see.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    expr::{Contexts, EvalError, ExprObject, ExprValue, PropertyNames},
    job::JobSpec,
};

use crate::{
    base_environment::{base_environment, fixed_environment},
    containers::ContainerPaths,
    environment::{EnvVars, JobFolders, runner_arch},
    file_hash::WorkspaceFiles,
    job_verdict::JobVerdict,
    step_scope::{StepIdentity, StepScope},
};

/// `github.server_url` of a run without a repository and without a server.
const GITHUB: &str = "https://github.com";

/// The state of a job between its steps.
#[derive(Clone)]
pub(crate) struct JobScope {
    /// The variables of the workflow and the job, and those that steps set with `GITHUB_ENV`.
    pub(crate) env: EnvVars,
    /// Folders that steps put before `PATH`, the newest last.
    pub(crate) paths: Vec<String>,
    pub(crate) verdict: JobVerdict,
    /// Changes by steps since the last call of `mem::take`: a background step's changes are applied to the job when
    /// it ends.
    pub(crate) changes: Vec<StepChange>,
    /// The `job` context's entries for containers.
    pub(crate) job: Vec<(&'static str, ExprValue)>,
    /// Path mapping, if the job's steps run in a container.
    places: Option<ContainerPaths>,
    github: ExprValue,
    runner: ExprValue,
}

/// A change that a step makes for later steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepChange {
    Env(String, String),
    /// A folder to put before `PATH`.
    Path(String),
}

impl JobScope {
    pub(crate) fn new(spec: &JobSpec, folders: &JobFolders) -> Self {
        let text = |path: &std::path::Path| ExprValue::from(path.display().to_string());
        let workspace = text(&folders.workspace);
        let mut github = to_object(&spec.contexts.github);
        github.insert("workspace", workspace.clone());
        github.insert("event_path", text(&folders.event));
        github.insert("job", ExprValue::from(spec.job_id.as_str()));
        if github.get("server_url").is_none() {
            let server = spec.server.as_ref().map(|server| server.url.as_str());
            github.insert("server_url", ExprValue::from(server.unwrap_or(GITHUB)));
        }
        let mut runner = vec![
            ("name", ExprValue::from("shipway")),
            ("os", ExprValue::from("Linux")),
            ("arch", ExprValue::from(runner_arch())),
            ("environment", ExprValue::from("self-hosted")),
            ("temp", text(&folders.temp)),
            ("tool_cache", text(&folders.tools_folder())),
            ("workspace", workspace),
        ];
        if is_debug_enabled(spec) {
            runner.push(("debug", ExprValue::from("1")));
        }
        let runner = ExprValue::object(runner);
        Self {
            env: EnvVars::default(),
            paths: Vec::new(),
            verdict: JobVerdict::default(),
            changes: Vec::new(),
            job: Vec::new(),
            places: None,
            github: ExprValue::Object(Arc::new(github)),
            runner,
        }
    }

    /// Applies changes that a step has made.
    pub(crate) fn apply_changes(&mut self, changes: Vec<StepChange>) {
        for change in &changes {
            match change {
                StepChange::Env(name, value) => self.env.set(name.as_str(), value.as_str()),
                StepChange::Path(folder) => self.paths.push(folder.clone()),
            }
        }
        self.changes.extend(changes);
    }

    /// Evaluates the variables of the workflow and the job; each layer sees those before it.
    pub(crate) fn evaluate_env_layers(
        &mut self,
        spec: &JobSpec,
        files: &WorkspaceFiles<'_>,
    ) -> Result<(), EvalError> {
        let step_scope = StepScope::default();
        for layer in &spec.env {
            let resolved = layer.resolve(&self.expression_contexts(
                spec,
                &step_scope,
                &StepIdentity::default(),
                &self.env,
                files,
            ))?;
            self.env.extend(resolved);
        }
        Ok(())
    }

    /// The contexts that expressions in `step_scope` see, with `env` as the `env` context.
    pub(crate) fn expression_contexts<'c>(
        &self,
        spec: &JobSpec,
        step_scope: &StepScope,
        identity: &StepIdentity,
        env: &EnvVars,
        files: &'c WorkspaceFiles<'c>,
    ) -> Contexts<'c> {
        let mut contexts = Contexts::new();
        for (name, value) in spec.contexts.iter() {
            contexts.set(name, value.clone());
        }
        if let Some(inputs) = step_scope.action_inputs() {
            contexts.set("inputs", inputs.clone());
        }
        contexts.set("github", self.github_context(identity));
        contexts.set("runner", self.runner.clone());
        let mut variables = ExprObject::new(PropertyNames::Exact);
        for (name, value) in env.iter() {
            variables.insert(name.as_str(), ExprValue::from(value.as_str()));
        }
        contexts.set("env", ExprValue::Object(Arc::new(variables)));
        contexts.set("steps", step_scope.steps_context());
        let status = ExprValue::from(self.verdict.conclusion().in_expressions());
        let job = [("status", status)].into_iter().chain(self.job.clone());
        contexts.set("job", ExprValue::object(job));
        contexts
            .with_status(step_scope.expression_status(&self.verdict))
            .with_files(files)
    }

    /// Translates paths in the `github` and `runner` contexts to those in the job's container.
    pub(crate) fn map_paths(&mut self, places: &ContainerPaths) {
        for context in [&mut self.github, &mut self.runner] {
            let entries = to_object(context);
            let entries = entries.iter().map(|(name, value)| {
                let value = match value {
                    ExprValue::String(text) => ExprValue::from(places.to_container(text)),
                    other => other.clone(),
                };
                (name.clone(), value)
            });
            *context = ExprValue::object(entries);
        }
        self.places = Some(places.clone());
    }

    /// The `github` context with the fields of a step.
    pub(crate) fn github_context(&self, identity: &StepIdentity) -> ExprValue {
        let mut github = to_object(&self.github);
        for (name, value) in identity.iter() {
            let value = match &self.places {
                Some(places) => places.to_container(&value),
                None => value,
            };
            github.insert(name, ExprValue::from(value));
        }
        ExprValue::Object(Arc::new(github))
    }

    pub(crate) const fn runner_context(&self) -> &ExprValue {
        &self.runner
    }

    /// The complete environment of a step's processes, except the variables for command files.
    pub(crate) fn process_environment(
        &self,
        spec: &JobSpec,
        folders: &JobFolders,
        identity: &StepIdentity,
        own: &EnvVars,
    ) -> EnvVars {
        let mut env = base_environment(folders);
        env.extend(own.iter().cloned());
        if !self.paths.is_empty() {
            let path = env.get("PATH").unwrap_or_default().to_owned();
            let added = self.paths.iter().rev().map(String::as_str);
            let all: Vec<&str> = added.chain([path.as_str()]).collect();
            env.set("PATH", all.join(":"));
        }
        env.extend(
            fixed_environment(spec, &self.github_context(identity), self.runner_context())
                .into_vec(),
        );
        env
    }

    /// The variables of the job and of the steps that enclose `step_scope`.
    pub(crate) fn scope_env(&self, step_scope: &StepScope) -> EnvVars {
        let mut env = self.env.clone();
        env.extend(step_scope.env.iter().cloned());
        env
    }
}

/// Whether debug messages are shown: the secret or variable `ACTIONS_STEP_DEBUG`.
pub(crate) fn is_debug_enabled(spec: &JobSpec) -> bool {
    let contexts = &spec.contexts;
    [&contexts.secrets, &contexts.vars]
        .into_iter()
        .any(|context| {
            context
                .get("ACTIONS_STEP_DEBUG")
                .to_text()
                .eq_ignore_ascii_case("true")
        })
}

fn to_object(value: &ExprValue) -> ExprObject {
    match value {
        ExprValue::Object(object) => ExprObject::clone(object),
        _ => ExprObject::default(),
    }
}
