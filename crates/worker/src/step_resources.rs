//! What the steps of a job use and change: output, variables, containers, cancellation.
//!
//! It runs no steps, so that [`crate::action_runner`] can use it without depending on [`crate::step_runner`].

use std::{cell::Cell, collections::BTreeMap, io, rc::Rc, sync::Arc};

use shipway_workflow::{expr::Contexts, job::JobSpec};

use crate::{
    actions::action_library::ActionLibrary,
    cancellation::{CancelReason, JobCancellation},
    cgroup_limits::CgroupLimits,
    command_files::CommandFiles,
    containers::Containers,
    environment::{EnvVars, JobFolders},
    file_hash::WorkspaceFiles,
    job_inputs::JobInputProvider,
    job_scope::JobScope,
    output_processor::OutputProcessor,
    program_runner::{self, OutputPipe, ProgramInvocation, RemoteProcess, RunOutcome},
    runtime::RuntimeEndpoints,
    step_scope::{StepIdentity, StepScope},
    step_task::PlannedStep,
};

/// The state of a job that its steps use and change.
pub(crate) struct StepResources {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) folders: JobFolders,
    pub(crate) inputs: Arc<dyn JobInputProvider>,
    pub(crate) output: OutputProcessor,
    pub(crate) pipe: OutputPipe,
    pub(crate) scope: JobScope,
    pub(crate) cancel: JobCancellation,
    pub(crate) library: ActionLibrary,
    pub(crate) runtime: RuntimeEndpoints,
    /// `GITHUB_STATE` of the actions, by step key.
    pub(crate) states: BTreeMap<String, EnvVars>,
    /// Counter for the names of the steps' command files.
    pub(crate) files: Rc<Cell<usize>>,
    pub(crate) containers: Containers,
    pub(crate) cgroup_limits: CgroupLimits,
}

impl StepResources {
    pub(crate) fn record_cancellation(&mut self, reason: Option<CancelReason>) {
        if let Some(reason) = reason {
            let minutes = self.spec.timeout_ms as f64 / 60_000.0;
            self.scope
                .verdict
                .cancelled
                .get_or_insert_with(|| match reason {
                    CancelReason::Requested => "cancelled".to_owned(),
                    CancelReason::TimedOut => format!("the job took longer than {minutes} min"),
                });
        }
    }

    /// The contexts that expressions in `step_scope` see; `files` are those of the workspace.
    pub(crate) fn expression_contexts<'c>(
        &self,
        step_scope: &StepScope,
        identity: &StepIdentity,
        env: &EnvVars,
        files: &'c WorkspaceFiles<'c>,
    ) -> Contexts<'c> {
        self.scope
            .expression_contexts(&self.spec, step_scope, identity, env, files)
    }

    /// The complete environment of a step's processes.
    pub(crate) fn step_environment(
        &mut self,
        identity: &StepIdentity,
        own: &EnvVars,
        channel: &CommandFiles,
    ) -> EnvVars {
        let mut env = self
            .scope
            .process_environment(&self.spec, &self.folders, identity, own);
        let unsecure = env.get("ACTIONS_ALLOW_UNSECURE_COMMANDS");
        self.output.effects.unsecure = unsecure.is_some_and(|it| it.eq_ignore_ascii_case("true"));
        channel.set_variables(&mut env);
        env
    }

    /// Runs a program until it exits.
    pub(crate) async fn run_program(
        &mut self,
        invocation: &ProgramInvocation,
        plan: &PlannedStep,
    ) -> RunOutcome {
        let bounds = plan.limits(&mut self.cancel);
        let (pipe, output) = (&mut self.pipe, &mut self.output);
        let result = match self.containers.job_container() {
            Some(inside) => {
                let (entered, reach) = inside.translate_invocation(invocation, &self.folders);
                let reach = reach.as_ref().map(|it| it as &dyn RemoteProcess);
                program_runner::run_container_client(&entered, reach, bounds, pipe, output).await
            }
            None => program_runner::run_program(invocation, bounds, pipe, output).await,
        };
        let program = &invocation.line.program;
        let ended = result
            .unwrap_or_else(|error| RunOutcome::Failed(format!("{program} can't be run: {error}")));
        match (ended, self.cgroup_limits.take_oom_message()) {
            (RunOutcome::Failed(why), Some(memory)) => {
                RunOutcome::Failed(format!("{why}; {memory}"))
            }
            (ended, _) => ended,
        }
    }

    /// A copy for the background step `id`.
    pub(crate) fn for_background_step(&self, id: &str, number: usize) -> io::Result<Self> {
        let mut scope = self.scope.clone();
        scope.changes.clear();
        Ok(Self {
            spec: self.spec.clone(),
            folders: self.folders.clone(),
            inputs: Arc::clone(&self.inputs),
            output: self.output.for_background_step(id),
            pipe: OutputPipe::new()?,
            scope,
            cancel: self.cancel.for_background_step(),
            library: self.library.clone(),
            runtime: self.runtime.for_background_step(number),
            states: self.states.clone(),
            files: self.files.clone(),
            containers: self.containers.for_background_step(number),
            cgroup_limits: self.cgroup_limits.clone(),
        })
    }

    /// Applies what a finished background step, `key`, has changed in its copy.
    pub(crate) fn apply_background_changes(&mut self, key: &str, other: &mut Self) {
        let changes = std::mem::take(&mut other.scope.changes);
        self.scope.apply_changes(changes);
        if let Some(why) = other.scope.verdict.unsupported.take() {
            self.scope.verdict.unsupported.get_or_insert(why);
        }
        for (of, state) in std::mem::take(&mut other.states) {
            if of == key || of.starts_with(&format!("{key}.")) {
                self.states.insert(of, state);
            }
        }
        let fetched = std::mem::take(&mut other.library.fetched);
        self.library.fetched.extend(fetched);
        self.containers.take_over_containers(&mut other.containers);
    }
}
