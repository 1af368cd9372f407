//! Runs steps: those of the job, and those of composite actions.
//!
//! Knows nothing of the journal; [`crate::job_execution::JobExecution`] records what a step of the job did.

use std::{
    cell::Cell, collections::BTreeMap, fs, path::Path, pin::Pin, rc::Rc, sync::Arc, time::Duration,
};

use shipway_workflow::{
    expr::{Condition, Contexts, EvalError, Status, Template},
    job::{Conclusion, JobSpec, JournalBody, Level},
    model::{Action, Step},
};
use tokio::time::Instant;

use crate::{
    actions::{
        ActionEffects,
        action_resolver::{ActionLibrary, ResolvedAction},
    },
    cancellation::{CancelReason, JobCancellation},
    cgroup_limits::CgroupLimits,
    command_files::{CommandFileValues, CommandFiles, UnusedFiles},
    containers::{Containers, JobContainer},
    environment::{EnvVars, JobFolders},
    file_hash::WorkspaceFiles,
    job_scope::{JobScope, StepChange},
    output_processor::OutputProcessor,
    processes::has_children,
    program_runner::{self, OutputPipe, ProgramInvocation, RunLimits, RunOutcome},
    runtime::RuntimeEndpoints,
    shell,
    step_scope::{ActionStage, StepIdentity, StepScope},
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
    pub(crate) confinement: CgroupLimits,
}

/// A step to run.
pub(crate) struct StepTask {
    /// Unique within the job, e.g. `2.0` for the first step of the action of the third step.
    pub(crate) key: String,
    pub(crate) step: Step,
    /// The condition to check: the step's own, or `pre-if` or `post-if` of its action.
    pub(crate) condition: Condition,
    /// The resolved action, if an earlier stage resolved it.
    pub(crate) known: Option<Arc<ResolvedAction>>,
    /// The scope of its composite action, if an earlier stage created it.
    pub(crate) inner: Option<Box<StepScope>>,
}

/// A step with its evaluated condition, name, variables and limits.
pub(crate) struct PlannedStep {
    pub(crate) runs: bool,
    /// Whether the step also runs, or keeps running, in a cancelled job (`if: always()`).
    pub(crate) goes_on: bool,
    pub(crate) name: String,
    /// All variables: those of the job, of the enclosing steps and of the step itself.
    pub(crate) env: EnvVars,
    /// The variables of the step itself and of the enclosing steps.
    pub(crate) own: EnvVars,
    pub(crate) timeout: Option<Duration>,
    pub(crate) continues: bool,
}

/// How a step ended, before `continue-on-error` is applied.
#[derive(Debug)]
pub(crate) struct StepOutcome {
    pub(crate) outcome: Conclusion,
    pub(crate) why: Option<String>,
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) entries: Vec<JournalBody>,
    pub(crate) summary: Option<String>,
}

impl StepOutcome {
    pub(crate) fn without_output(outcome: Conclusion, why: Option<String>) -> Self {
        Self {
            outcome,
            why,
            outputs: Vec::new(),
            entries: Vec::new(),
            summary: None,
        }
    }

    /// A step whose expressions can't be evaluated has failed.
    pub(crate) fn from_eval_error(step: &Step, error: &EvalError) -> Self {
        let why = format!("line {}: {error}\n{}", step.at.line, error.snippet());
        Self::without_output(Conclusion::Failure, Some(why))
    }
}

impl StepTask {
    pub(crate) fn new(key: String, step: &Step) -> Self {
        Self {
            key,
            condition: step.if_.clone(),
            step: step.clone(),
            known: None,
            inner: None,
        }
    }

    /// The title with its stage, for a step whose `name` can't be evaluated.
    pub(crate) fn title(&self, stage: ActionStage) -> String {
        stage_title(stage, self.step.title())
    }
}

fn stage_title(stage: ActionStage, name: String) -> String {
    match stage {
        ActionStage::Pre => format!("Pre {name}"),
        ActionStage::Main => name,
        ActionStage::Post => format!("Post {name}"),
    }
}

impl StepRunner {
    pub(crate) fn record_cancellation(&mut self, cut: Option<CancelReason>) {
        if let Some(cut) = cut {
            let minutes = self.spec.timeout_ms as f64 / 60_000.0;
            self.scope.verdict.cut.get_or_insert_with(|| match cut {
                CancelReason::Requested => "cancelled".to_owned(),
                CancelReason::TimedOut => format!("the job took longer than {minutes} min"),
            });
        }
    }

    /// The contexts that expressions in `frame` see; `files` are those of [`Hand::workspace`].
    pub(crate) fn expression_contexts<'c>(
        &self,
        frame: &StepScope,
        seen: &StepIdentity,
        env: &EnvVars,
        files: &'c WorkspaceFiles<'c>,
    ) -> Contexts<'c> {
        self.scope
            .expression_contexts(&self.spec, frame, seen, env, files)
    }

    pub(crate) fn plan_step(
        &self,
        frame: &StepScope,
        task: &StepTask,
    ) -> Result<PlannedStep, EvalError> {
        let step = &task.step;
        let files = WorkspaceFiles(&self.folders.workspace);
        let seen = frame.step_identity(&step.id);
        let mut env = self.scope.scope_env(frame);
        let outer = self.expression_contexts(frame, &seen, &env, &files);
        let named = |contexts: &Contexts<'_>| match &step.name {
            Some(name) => name.resolve_text(contexts),
            None => Ok(step.title()),
        };
        let left = frame
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let may = !self.cancel.is_grace_over()
            && left.is_none_or(|left| !left.is_zero())
            && (frame.depth == 0 || frame.goes_on || self.cancel.reason().is_none());
        if !(may && task.condition.holds(&outer)?) {
            // The name of a skipped step may refer to outputs that don't exist: show it unevaluated.
            let name = named(&outer).unwrap_or_else(|_| step.title());
            return Ok(PlannedStep {
                runs: false,
                goes_on: false,
                name: stage_title(frame.stage, name),
                env,
                own: EnvVars::default(),
                timeout: None,
                continues: false,
            });
        }
        let mut own = frame.env.clone();
        own.extend(step.env.resolve(&outer)?);
        env.extend(own.iter().cloned());
        let contexts = self.expression_contexts(frame, &seen, &env, &files);
        let cancelled = outer.with_status(Status {
            success: frame.depth > 0 && frame.failed.is_none(),
            failure: frame.failed.is_some(),
            cancelled: true,
        });
        let minutes = step.timeout_minutes.as_ref();
        let minutes = minutes
            .map(|minutes| minutes.resolve(&contexts))
            .transpose()?;
        let own_time = minutes.and_then(|it| Duration::try_from_secs_f64(it * 60.0).ok());
        Ok(PlannedStep {
            runs: true,
            goes_on: (frame.depth == 0 || frame.goes_on)
                && task.condition.holds(&cancelled).unwrap_or(false),
            name: stage_title(frame.stage, named(&contexts)?),
            timeout: own_time.into_iter().chain(left).min(),
            continues: step.continue_on_error.resolve(&contexts)?,
            env,
            own,
        })
    }

    /// Runs a step as planned.
    pub(crate) fn run_step<'h>(
        &'h mut self,
        frame: &'h mut StepScope,
        task: StepTask,
        plan: PlannedStep,
    ) -> Pin<Box<dyn Future<Output = StepOutcome> + 'h>> {
        // Boxed: a composite action runs further steps.
        Box::pin(self.run_step_unboxed(frame, task, plan))
    }

    async fn run_step_unboxed(
        &mut self,
        frame: &mut StepScope,
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
        let mut left = ActionEffects::default();
        let action = task.step.action.clone();
        let ended = match &action {
            Action::Run {
                script,
                shell,
                working_directory,
            } => {
                let script = RunStep {
                    text: script,
                    shell: shell.as_deref(),
                    folder: working_directory.as_ref(),
                };
                match self.prepare_script(frame, &task, &plan, &channel, script, number) {
                    Ok(invocation) => self.run_program(&invocation, &plan).await,
                    Err(why) => RunOutcome::Failed(why),
                }
            }
            Action::Wait { .. } | Action::WaitAll | Action::Cancel { .. } => {
                RunOutcome::Failed("only a job can wait for its steps".to_owned())
            }
            Action::Uses { action, with } => {
                let uses = crate::actions::ActionUse {
                    action,
                    with,
                    channel: &channel,
                };
                self.run_action(frame, task, &plan, uses, &mut left).await
            }
        };
        let may_come_late = self.containers.job_container().is_some() || has_children();
        let unwritten = if may_come_late {
            UnusedFiles::Remove
        } else {
            UnusedFiles::Reuse
        };
        let written = channel.collect(unwritten);
        self.conclude_step(&key, timeout, ended, written, left)
    }

    /// Combines how a step ended with what it wrote to its command files and printed as commands.
    fn conclude_step(
        &mut self,
        key: &str,
        timeout: Option<Duration>,
        ended: RunOutcome,
        mut written: CommandFileValues,
        mut left: ActionEffects,
    ) -> StepOutcome {
        let heard = &mut self.output.heard;
        written.mistake = heard.failed.take().or(written.mistake);
        left.outputs.append(&mut heard.outputs);
        left.outputs.append(&mut written.outputs);
        let state = heard.state.drain(..).chain(written.state.drain(..));
        let state: Vec<_> = state.collect();
        if !state.is_empty() {
            self.states.entry(key.to_owned()).or_default().extend(state);
        }
        self.apply_written_changes(&mut written);
        let (outcome, why) = match (ended, written.mistake) {
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
                self.output.annotate(Level::Warning, &why);
                let left_out = &mut self.scope.verdict.left_out;
                left_out.get_or_insert_with(|| why.clone());
                (Conclusion::Skipped, Some(why))
            }
            (RunOutcome::Cancelled, _) => {
                self.record_cancellation(self.cancel.reason());
                (Conclusion::Cancelled, self.scope.verdict.cut.clone())
            }
        };
        if let Some(summary) = written.summary {
            left.add_summary(&summary);
        }
        StepOutcome {
            outcome,
            why,
            outputs: last_value_per_name(left.outputs),
            entries: left.entries,
            summary: (!left.summary.is_empty()).then_some(left.summary),
        }
    }

    /// Applies the variables and `PATH` entries that the step set for later steps.
    fn apply_written_changes(&mut self, written: &mut CommandFileValues) {
        let heard = &mut self.output.heard;
        let env = heard.env.drain(..).chain(written.env.drain(..));
        let env = env.map(|(name, value)| StepChange::Env(name, value));
        let paths = heard.paths.drain(..).chain(written.paths.drain(..));
        let changes = env.chain(paths.map(StepChange::Path)).collect();
        self.scope.apply_changes(changes);
        for complaint in &written.complaints {
            self.output.annotate(Level::Error, complaint);
        }
    }

    /// The complete environment of a step's processes.
    pub(crate) fn step_environment(
        &mut self,
        seen: &StepIdentity,
        own: &EnvVars,
        channel: &CommandFiles,
    ) -> EnvVars {
        let mut env = self
            .scope
            .process_environment(&self.spec, &self.folders, seen, own);
        let unsecure = env.get("ACTIONS_ALLOW_UNSECURE_COMMANDS");
        self.output.heard.unsecure = unsecure.is_some_and(|it| it.eq_ignore_ascii_case("true"));
        channel.set_variables(&mut env);
        env
    }

    fn prepare_script(
        &mut self,
        frame: &StepScope,
        task: &StepTask,
        plan: &PlannedStep,
        channel: &CommandFiles,
        script: RunStep<'_>,
        number: usize,
    ) -> Result<ProgramInvocation, String> {
        let workspace = self.folders.workspace.clone();
        let mut seen = frame.step_identity(&task.step.id);
        // GitHub sets `github.action_repository` and `github.action_ref` for action steps only, not for scripts
        // inside an action.
        seen.remote = None;
        let env = self.step_environment(&seen, &plan.env, channel);
        let files = WorkspaceFiles(&workspace);
        let contexts = self.expression_contexts(frame, &seen, &plan.env, &files);
        let text = |template: &Template| {
            let text = template.resolve_text(&contexts);
            text.map_err(|error| format!("{error}\n{}", error.snippet()))
        };
        // `defaults.run` of a job doesn't apply to the steps of composite actions.
        let defaults = (frame.depth == 0).then_some(&self.spec.defaults);
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
        }
        .map_err(|error| error.to_string())?;
        self.log_script_head(&script, &line);
        let may = |inside: &JobContainer| inside.may_have_folder(&workdir);
        let inside = self.containers.job_container();
        if !inside.map_or_else(|| workdir.is_dir(), may) {
            let workdir = workdir.display();
            return Err(format!("the working directory {workdir} does not exist"));
        }
        fs::write(&file, shell::script_text(shell_name, &script))
            .map_err(|error| format!("{}: {error}", file.display()))?;
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
        let bounds = RunLimits {
            timeout: plan.timeout,
            cancel: &mut self.cancel,
            goes_on: plan.goes_on,
        };
        let (pipe, output) = (&mut self.pipe, &mut self.output);
        let result = match self.containers.job_container() {
            Some(inside) => {
                let (entered, reach) = inside.translate_invocation(invocation, &self.folders);
                program_runner::run_container_client(&entered, reach, bounds, pipe, output).await
            }
            None => program_runner::run_program(invocation, bounds, pipe, output).await,
        };
        let program = &invocation.line.program;
        let ended = result
            .unwrap_or_else(|error| RunOutcome::Failed(format!("{program} can't be run: {error}")));
        match (ended, self.confinement.take_oom_message()) {
            (RunOutcome::Failed(why), Some(memory)) => {
                RunOutcome::Failed(format!("{why}; {memory}"))
            }
            (ended, _) => ended,
        }
    }

    /// Runs a step of a composite action.
    pub(crate) async fn run_nested_step(
        &mut self,
        frame: &mut StepScope,
        task: StepTask,
        left: &mut ActionEffects,
    ) {
        let cut = self.cancel.update();
        self.record_cancellation(cut);
        let outer = self.output.start_nested_step();
        let step = task.step.clone();
        let (name, went, continues) = match self.plan_step(frame, &task) {
            Ok(plan) if plan.runs => {
                let (name, continues) = (plan.name.clone(), plan.continues);
                self.output.log_message(&format!("##[group]{name}"));
                (name, self.run_step(frame, task, plan).await, continues)
            }
            Ok(plan) => (
                plan.name,
                StepOutcome::without_output(Conclusion::Skipped, None),
                false,
            ),
            Err(error) => (
                task.title(frame.stage),
                StepOutcome::from_eval_error(&step, &error),
                false,
            ),
        };
        let late = frame.deadline.is_some_and(|it| it <= Instant::now());
        match &went.why {
            Some(_) if late => self
                .output
                .log_message("##[error]the time of the whole action is over"),
            Some(why) => self.output.log_message(&format!("##[error]{why}")),
            None => {}
        }
        self.output.finish_nested_step(outer);
        let conclusion = apply_continue_on_error(went.outcome, continues);
        if conclusion == Conclusion::Failure {
            let why = went.why.as_deref().unwrap_or("failed");
            let why = why.lines().next().unwrap_or(why);
            let failed = format!("its step {name:?}: {why}");
            frame.failed.get_or_insert(failed);
            frame.late |= late;
        }
        frame.cut |= went.outcome == Conclusion::Cancelled;
        if frame.stage == ActionStage::Main {
            frame.add_finished_step(&step.id, went.outcome, conclusion, &went.outputs);
        }
        left.entries.extend(went.entries);
        if let Some(summary) = went.summary {
            left.add_summary(&summary);
        }
    }

    /// The working directory of the job's steps.
    pub(crate) fn workspace(&self) -> &Path {
        &self.folders.workspace
    }
}

/// The parts of a `run:` step.
struct RunStep<'s> {
    text: &'s Template,
    shell: Option<&'s str>,
    folder: Option<&'s Template>,
}

/// The conclusion of a step: `continue-on-error` turns a failure into a success.
pub(crate) fn apply_continue_on_error(outcome: Conclusion, continues: bool) -> Conclusion {
    match outcome {
        Conclusion::Failure if continues => Conclusion::Success,
        other => other,
    }
}

/// Removes duplicate outputs: the last value wins.
fn last_value_per_name(outputs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut each = EnvVars::default();
    each.extend(outputs);
    each.into_vec()
}
