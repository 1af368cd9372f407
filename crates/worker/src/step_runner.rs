//! Runs steps: those of the job, and those of composite actions.
//!
//! Knows nothing of the journal; [`crate::job_execution::JobExecution`] records what a step of the job did.

use std::{
    cell::Cell, collections::BTreeMap, fs, path::PathBuf, pin::Pin, rc::Rc, sync::Arc,
    time::Duration,
};

use shipway_workflow::{
    expr::{Contexts, EvalError, StatusChecks, Template},
    job::{AnnotationLevel, Conclusion, JobSpec},
    model::StepAction,
};
use tokio::time::Instant;

use crate::{
    action_runner::ActionUse,
    action_stage::ActionStage,
    actions::{StepResult, action_library::ActionLibrary},
    cancellation::{CancelReason, JobCancellation, WhenCancelled},
    cgroup_limits::CgroupLimits,
    command_files::{CommandFileValues, CommandFiles, UnusedFiles},
    containers::{Containers, JobContainer},
    environment::{EnvVars, JobFolders},
    expression_error::ExpressionError,
    file_hash::WorkspaceFiles,
    job_scope::{JobScope, StepChange},
    output_processor::OutputProcessor,
    path_error::PathError,
    processes::has_children,
    program_runner::{self, OutputPipe, ProgramInvocation, RemoteProcess, RunOutcome},
    runtime::RuntimeEndpoints,
    shell::{self, ShellError},
    step_scope::{StepIdentity, StepScope},
    step_task::{OnFailure, PlannedStep, StepOutcome, StepTask},
};

/// Everything that running a step needs.
pub(crate) struct StepRunner {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) folders: JobFolders,
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

impl StepRunner {
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

    pub(crate) fn plan_step(
        &self,
        step_scope: &StepScope,
        task: &StepTask,
    ) -> Result<PlannedStep, EvalError> {
        let step = &task.step;
        let files = WorkspaceFiles(&self.folders.workspace);
        let identity = step_scope.step_identity(&step.id);
        let mut env = self.scope.scope_env(step_scope);
        let outer = self.expression_contexts(step_scope, &identity, &env, &files);
        let named = |contexts: &Contexts<'_>| match &step.name {
            Some(name) => name.resolve_text(contexts),
            None => Ok(step.title()),
        };
        let left = step_scope
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let may = !self.cancel.is_grace_over()
            && left.is_none_or(|left| !left.is_zero())
            && (step_scope.depth == 0
                || step_scope.survives_cancellation
                || self.cancel.reason().is_none());
        if !(may && task.condition.holds(&outer)?) {
            // The name of a skipped step may refer to outputs that don't exist: show it unevaluated.
            let name = named(&outer).unwrap_or_else(|_| step.title());
            return Ok(PlannedStep {
                runs: false,
                when_cancelled: WhenCancelled::Stop,
                name: step_scope.stage.title(name),
                env,
                own_env: EnvVars::default(),
                timeout: None,
                on_failure: OnFailure::Fail,
            });
        }
        let mut own = step_scope.env.clone();
        own.extend(step.env.resolve(&outer)?);
        env.extend(own.iter().cloned());
        let contexts = self.expression_contexts(step_scope, &identity, &env, &files);
        let cancelled = outer.with_status(StatusChecks {
            success: step_scope.depth > 0 && step_scope.failed.is_none(),
            failure: step_scope.failed.is_some(),
            cancelled: true,
        });
        let minutes = step.timeout_minutes.as_ref();
        let minutes = minutes
            .map(|minutes| minutes.resolve(&contexts))
            .transpose()?;
        let own_time = minutes.and_then(|it| Duration::try_from_secs_f64(it * 60.0).ok());
        let runs_when_cancelled = (step_scope.depth == 0 || step_scope.survives_cancellation)
            && task.condition.holds(&cancelled).unwrap_or(false);
        Ok(PlannedStep {
            runs: true,
            when_cancelled: match runs_when_cancelled {
                true => WhenCancelled::KeepRunning,
                false => WhenCancelled::Stop,
            },
            name: step_scope.stage.title(named(&contexts)?),
            timeout: own_time.into_iter().chain(left).min(),
            on_failure: match step.continue_on_error.resolve(&contexts)? {
                true => OnFailure::Continue,
                false => OnFailure::Fail,
            },
            env,
            own_env: own,
        })
    }

    /// Runs a step as planned.
    pub(crate) fn run_step<'h>(
        &'h mut self,
        step_scope: &'h mut StepScope,
        task: StepTask,
        plan: PlannedStep,
    ) -> Pin<Box<dyn Future<Output = StepOutcome> + 'h>> {
        // Boxed: a composite action runs further steps.
        Box::pin(self.run_step_unboxed(step_scope, task, plan))
    }

    async fn run_step_unboxed(
        &mut self,
        step_scope: &mut StepScope,
        task: StepTask,
        plan: PlannedStep,
    ) -> StepOutcome {
        let failed = |why: String| StepOutcome::without_output(Conclusion::Failure, Some(why));
        let number = self.files.get();
        self.files.set(number + 1);
        let channel = match CommandFiles::create(&self.folders.temp, number) {
            Ok(channel) => channel,
            Err(error) => return failed(format!("the step's files can't be made: {error}")),
        };
        let (key, timeout) = (task.key.clone(), plan.timeout);
        let action = task.step.action.clone();
        let result: StepResult = match &action {
            StepAction::Run {
                script,
                shell,
                working_directory,
            } => {
                let script = RunStep {
                    text: script,
                    shell: shell.as_deref(),
                    folder: working_directory.as_ref(),
                };
                match self.prepare_script(step_scope, &task, &plan, &channel, script, number) {
                    Ok(invocation) => self.run_program(&invocation, &plan).await.into(),
                    Err(error) => StepResult::failed(error.to_string()),
                }
            }
            StepAction::Wait { .. } | StepAction::WaitAll | StepAction::Cancel { .. } => {
                StepResult::failed("only a job can wait for its steps")
            }
            StepAction::Uses { action, with } => {
                let uses = ActionUse {
                    action,
                    with,
                    command_files: &channel,
                };
                self.run_action(step_scope, task, &plan, uses).await
            }
        };
        let may_come_late = self.containers.job_container().is_some() || has_children();
        let unwritten = if may_come_late {
            UnusedFiles::Remove
        } else {
            UnusedFiles::Reuse
        };
        let written = channel.collect(unwritten);
        self.conclude_step(&key, timeout, result, written)
    }

    /// Combines how a step ended with what it wrote to its command files and printed as commands.
    fn conclude_step(
        &mut self,
        key: &str,
        timeout: Option<Duration>,
        mut result: StepResult,
        mut written: CommandFileValues,
    ) -> StepOutcome {
        let effects = &mut self.output.effects;
        written.error_message = effects.failed.take().or(written.error_message);
        result.outputs.append(&mut effects.outputs);
        result.outputs.append(&mut written.outputs);
        let state = effects.state.drain(..).chain(written.state.drain(..));
        let state: Vec<_> = state.collect();
        if !state.is_empty() {
            self.states.entry(key.to_owned()).or_default().extend(state);
        }
        self.apply_written_changes(&mut written);
        let ended = std::mem::take(&mut result.ended);
        let (outcome, why) = match (ended, written.error_message) {
            (RunOutcome::Succeeded, None) => (Conclusion::Success, None),
            (RunOutcome::Succeeded, Some(why)) | (RunOutcome::Failed(why), _) => {
                (Conclusion::Failure, Some(why))
            }
            (RunOutcome::TimedOut, _) => {
                let minutes = timeout.unwrap_or_default().as_secs_f64() / 60.0;
                let why = format!("the step took longer than {minutes} min");
                (Conclusion::Failure, Some(why))
            }
            (RunOutcome::Unsupported(why), _) => {
                self.output.annotate(AnnotationLevel::Warning, &why);
                let unsupported = &mut self.scope.verdict.unsupported;
                unsupported.get_or_insert_with(|| why.clone());
                (Conclusion::Skipped, Some(why))
            }
            (RunOutcome::Cancelled, _) => {
                self.record_cancellation(self.cancel.reason());
                (Conclusion::Cancelled, self.scope.verdict.cancelled.clone())
            }
        };
        if let Some(summary) = written.summary {
            result.add_summary(&summary);
        }
        StepOutcome {
            outcome,
            why,
            outputs: last_value_per_name(result.outputs),
            entries: result.entries,
            summary: (!result.summary.is_empty()).then_some(result.summary),
        }
    }

    /// Applies the variables and `PATH` entries that the step set for later steps.
    fn apply_written_changes(&mut self, written: &mut CommandFileValues) {
        let effects = &mut self.output.effects;
        let env = effects.env.drain(..).chain(written.env.drain(..));
        let env = env.map(|(name, value)| StepChange::Env(name, value));
        let paths = effects.paths.drain(..).chain(written.paths.drain(..));
        let changes = env.chain(paths.map(StepChange::Path)).collect();
        self.scope.apply_changes(changes);
        for warning in &written.warnings {
            self.output.annotate(AnnotationLevel::Error, warning);
        }
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

    fn prepare_script(
        &mut self,
        step_scope: &StepScope,
        task: &StepTask,
        plan: &PlannedStep,
        channel: &CommandFiles,
        script: RunStep<'_>,
        number: usize,
    ) -> Result<ProgramInvocation, ScriptError> {
        let workspace = self.folders.workspace.clone();
        let mut identity = step_scope.step_identity(&task.step.id);
        // GitHub sets `github.action_repository` and `github.action_ref` for action steps only, not for scripts
        // inside an action.
        identity.remote = None;
        let env = self.step_environment(&identity, &plan.env, channel);
        let files = WorkspaceFiles(&workspace);
        let contexts = self.expression_contexts(step_scope, &identity, &plan.env, &files);
        let text = |template: &Template| {
            let text = template.resolve_text(&contexts);
            text.map_err(ExpressionError::from)
        };
        // `defaults.run` of a job doesn't apply to the steps of composite actions.
        let defaults = (step_scope.depth == 0).then_some(&self.spec.defaults);
        let default_shell = defaults.and_then(|it| it.shell.as_ref());
        let shell_name = match script.shell {
            Some(shell) => Some(shell.to_owned()),
            None => default_shell.map(text).transpose()?,
        };
        let default_folder = defaults.and_then(|it| it.working_directory.as_ref());
        let folder = script.folder.or(default_folder);
        let folder = folder.map(text).transpose()?.unwrap_or_default();
        let workdir = workspace.join(folder);
        let script = text(script.text)?;
        let shell_name = shell_name.as_deref();
        let file = format!("step-{number}.{}", shell::script_extension(shell_name));
        let file = self.folders.temp.join(file);
        let path = env.get("PATH").unwrap_or_default();
        let line = match self.containers.job_container() {
            Some(inside) => inside.script_command_line(shell_name, &file),
            None => shell::command_line(shell_name, &file, path),
        }?;
        self.log_script_head(&script, &line);
        let may = |inside: &JobContainer| inside.may_have_folder(&workdir);
        let inside = self.containers.job_container();
        if !inside.map_or_else(|| workdir.is_dir(), may) {
            return Err(ScriptError::NoWorkdir(workdir));
        }
        fs::write(&file, shell::script_text(shell_name, &script)).map_err(PathError::at(&file))?;
        Ok(ProgramInvocation {
            line,
            workdir,
            env: env.into_vec(),
        })
    }

    /// Logs the script and its shell.
    fn log_script_head(&mut self, script: &str, line: &shell::CommandLine) {
        let mut head: Vec<String> = script.lines().map(|line| format!("  {line}")).collect();
        head.push(format!(
            "  shell: {} {}",
            line.program,
            line.arguments.join(" ")
        ));
        self.output.log_message(&head.join("\n"));
        self.output.log_message("##[endgroup]");
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

    /// Runs a step of a composite action.
    pub(crate) async fn run_nested_step(
        &mut self,
        step_scope: &mut StepScope,
        task: StepTask,
        result: &mut StepResult,
    ) {
        let reason = self.cancel.update();
        self.record_cancellation(reason);
        let outer = self.output.start_nested_step();
        let step = task.step.clone();
        let (name, outcome, on_failure) = match self.plan_step(step_scope, &task) {
            Ok(plan) if plan.runs => {
                let (name, on_failure) = (plan.name.clone(), plan.on_failure);
                self.output.log_message(&format!("##[group]{name}"));
                let outcome = self.run_step(step_scope, task, plan).await;
                (name, outcome, on_failure)
            }
            Ok(plan) => (
                plan.name,
                StepOutcome::without_output(Conclusion::Skipped, None),
                OnFailure::Fail,
            ),
            Err(error) => (
                task.title(step_scope.stage),
                StepOutcome::from_eval_error(&step, error),
                OnFailure::Fail,
            ),
        };
        let late = step_scope.deadline.is_some_and(|it| it <= Instant::now());
        match &outcome.why {
            Some(_) if late => self
                .output
                .log_message("##[error]the time of the whole action is over"),
            Some(why) => self.output.log_message(&format!("##[error]{why}")),
            None => {}
        }
        self.output.finish_nested_step(outer);
        let conclusion = outcome.conclusion(on_failure);
        if conclusion == Conclusion::Failure {
            let failed = format!("its step {name:?}: {}", outcome.short_reason());
            step_scope.failed.get_or_insert(failed);
            step_scope.timed_out |= late;
        }
        step_scope.cancelled |= outcome.outcome == Conclusion::Cancelled;
        if step_scope.stage == ActionStage::Main {
            step_scope.add_finished_step(&step.id, outcome.outcome, conclusion, &outcome.outputs);
        }
        result.entries.extend(outcome.entries);
        if let Some(summary) = outcome.summary {
            result.add_summary(&summary);
        }
    }
}

/// Why a script can't be run.
#[derive(Debug, thiserror::Error)]
enum ScriptError {
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error("the working directory {} does not exist", .0.display())]
    NoWorkdir(PathBuf),
    #[error(transparent)]
    File(#[from] PathError),
}

/// The parts of a `run:` step.
struct RunStep<'s> {
    text: &'s Template,
    shell: Option<&'s str>,
    folder: Option<&'s Template>,
}

/// Removes duplicate outputs: the last value wins.
fn last_value_per_name(outputs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut each = EnvVars::default();
    each.extend(outputs);
    each.into_vec()
}
