//! Runs steps: those of the job, and those of composite actions.
//!
//! Knows nothing of the journal; [`crate::job_execution::JobExecution`] records what a step of the job did.

use std::{pin::Pin, time::Duration};

use shipway_workflow::{
    expr::{Contexts, EvalError, ExprValue, StatusChecks},
    job::{AnnotationLevel, Conclusion},
    model::{ActionOutput, StepAction, WorkflowStep},
};
use tokio::time::Instant;

use crate::{
    action_runner::{ActionProgress, ActionRunner, ActionUse, CompositeAction},
    action_stage::ActionStage,
    actions::{ActionError, StepResult, resolved_action::ResolvedAction},
    cancellation::WhenCancelled,
    command_files::{CommandFileValues, CommandFiles, UnusedFiles},
    environment::EnvVars,
    file_hash::WorkspaceFiles,
    job_scope::StepChange,
    processes::has_children,
    program_runner::RunOutcome,
    script_step::{RunStep, prepare_script},
    step_resources::StepResources,
    step_scope::{PostStep, StepScope},
    step_task::{OnFailure, PlannedStep, StepOutcome, StepTask},
};

/// Runs steps, and the steps of composite actions inside them.
pub(crate) struct StepRunner<'r> {
    resources: &'r mut StepResources,
}

impl<'r> StepRunner<'r> {
    pub(crate) const fn new(resources: &'r mut StepResources) -> Self {
        Self { resources }
    }
}

impl StepRunner<'_> {
    pub(crate) fn plan_step(
        &self,
        step_scope: &StepScope,
        task: &StepTask,
    ) -> Result<PlannedStep, EvalError> {
        let (step, resources) = (&task.step, &*self.resources);
        let files = WorkspaceFiles(&resources.folders.workspace);
        let identity = step_scope.step_identity(&step.id);
        let mut env = resources.scope.scope_env(step_scope);
        let outer = resources.expression_contexts(step_scope, &identity, &env, &files);
        let named = |contexts: &Contexts<'_>| match &step.name {
            Some(name) => name.resolve_text(contexts),
            None => Ok(step.title()),
        };
        let left = step_scope
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let may = !resources.cancel.is_grace_over()
            && left.is_none_or(|left| !left.is_zero())
            && (step_scope.depth == 0
                || step_scope.survives_cancellation
                || resources.cancel.reason().is_none());
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
        let contexts = resources.expression_contexts(step_scope, &identity, &env, &files);
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
        let number = self.resources.files.get();
        self.resources.files.set(number + 1);
        let channel = match CommandFiles::create(&self.resources.folders.temp, number) {
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
                let resources = &mut *self.resources;
                match prepare_script(
                    resources, step_scope, &task, &plan, &channel, script, number,
                ) {
                    Ok(invocation) => resources.run_program(&invocation, &plan).await.into(),
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
                let mut actions = ActionRunner::new(self.resources);
                match actions.run_action(step_scope, task, &plan, uses).await {
                    ActionProgress::Finished(result) => *result,
                    ActionProgress::Composite(composite) => {
                        self.run_composite(step_scope, &plan, *composite).await
                    }
                }
            }
        };
        let may_come_late = self.resources.containers.job_container().is_some() || has_children();
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
        let effects = &mut self.resources.output.effects;
        written.error_message = effects.failed.take().or(written.error_message);
        result.outputs.append(&mut effects.outputs);
        result.outputs.append(&mut written.outputs);
        let state = effects.state.drain(..).chain(written.state.drain(..));
        let state: Vec<_> = state.collect();
        if !state.is_empty() {
            self.resources
                .states
                .entry(key.to_owned())
                .or_default()
                .extend(state);
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
                self.resources
                    .output
                    .annotate(AnnotationLevel::Warning, &why);
                let unsupported = &mut self.resources.scope.verdict.unsupported;
                unsupported.get_or_insert_with(|| why.clone());
                (Conclusion::Skipped, Some(why))
            }
            (RunOutcome::Cancelled, _) => {
                self.resources
                    .record_cancellation(self.resources.cancel.reason());
                (
                    Conclusion::Cancelled,
                    self.resources.scope.verdict.cancelled.clone(),
                )
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
        let effects = &mut self.resources.output.effects;
        let env = effects.env.drain(..).chain(written.env.drain(..));
        let env = env.map(|(name, value)| StepChange::Env(name, value));
        let paths = effects.paths.drain(..).chain(written.paths.drain(..));
        let changes = env.chain(paths.map(StepChange::Path)).collect();
        self.resources.scope.apply_changes(changes);
        for warning in &written.warnings {
            self.resources
                .output
                .annotate(AnnotationLevel::Error, warning);
        }
    }

    /// Runs a step of a composite action.
    pub(crate) async fn run_nested_step(
        &mut self,
        step_scope: &mut StepScope,
        task: StepTask,
        result: &mut StepResult,
    ) {
        let reason = self.resources.cancel.update();
        self.resources.record_cancellation(reason);
        let outer = self.resources.output.start_nested_step();
        let step = task.step.clone();
        let (name, outcome, on_failure) = match self.plan_step(step_scope, &task) {
            Ok(plan) if plan.runs => {
                let (name, on_failure) = (plan.name.clone(), plan.on_failure);
                self.resources
                    .output
                    .log_message(&format!("##[group]{name}"));
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
                .resources
                .output
                .log_message("##[error]the time limit of the whole action was reached"),
            Some(why) => self
                .resources
                .output
                .log_message(&format!("##[error]{why}")),
            None => {}
        }
        self.resources.output.finish_nested_step(outer);
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

    async fn run_composite(
        &mut self,
        scope: &mut StepScope,
        plan: &PlannedStep,
        composite: CompositeAction,
    ) -> StepResult {
        let CompositeAction {
            action,
            task,
            steps,
            inputs,
            mut identity,
            replacement,
        } = composite;
        let inputs = inputs.iter();
        let inputs = inputs.map(|(name, value)| (name.as_str(), ExprValue::from(value.as_str())));
        identity.path = Some(action.folder.clone());
        let own_env = plan.own_env.clone();
        let mut inner = match task.action_scope {
            Some(inner) => *inner,
            None => scope.for_action(&task.key, own_env, ExprValue::object(inputs), identity),
        };
        inner.stage = scope.stage;
        inner.survives_cancellation = plan.when_cancelled.survives_cancellation();
        inner.deadline = plan.timeout.and_then(|it| Instant::now().checked_add(it));
        let (mut result, mut output_error) = (StepResult::default(), None);
        match scope.stage {
            ActionStage::Pre => self.run_pre_parts(&mut inner, &steps, &mut result).await,
            ActionStage::Post => self.run_post_parts(&mut inner, &mut result).await,
            ActionStage::Main => {
                inner.posts = scope.take_post_steps(&task.key);
                for (index, step) in steps.iter().enumerate() {
                    let task = StepTask::new(inner.step_key(index), step);
                    self.run_nested_step(&mut inner, task, &mut result).await;
                }
                let outputs = self.evaluate_composite_outputs(&inner, &action, &mut result);
                output_error = outputs.err().map(|error| error.to_string());
            }
        }
        result.ended = match (
            inner.cancelled,
            inner.timed_out,
            inner.failed.take(),
            output_error,
        ) {
            (true, ..) => RunOutcome::Cancelled,
            (_, true, ..) => RunOutcome::TimedOut,
            (_, _, Some(why), _) | (.., Some(why)) => RunOutcome::Failed(why),
            _ => RunOutcome::Succeeded,
        };
        if !inner.posts.is_empty() {
            scope.set_post_step(PostStep {
                key: task.key,
                step: task.step,
                action: Some(action),
                inner: Some(Box::new(inner)),
            });
        }
        match replacement {
            Some(replacement) => replacement.explain_failure(result),
            None => result,
        }
    }

    /// Runs the pre parts of a composite action's steps.
    async fn run_pre_parts(
        &mut self,
        inner: &mut StepScope,
        steps: &[WorkflowStep],
        result: &mut StepResult,
    ) {
        for (index, step) in steps.iter().enumerate() {
            if let Some(action) = self.resources.library.action_with_pre_part(step) {
                let task = StepTask::for_pre_part(inner.step_key(index), step, action);
                self.run_nested_step(inner, task, result).await;
            }
        }
    }

    /// Runs the pending post parts of a composite action's steps.
    async fn run_post_parts(&mut self, inner: &mut StepScope, result: &mut StepResult) {
        while let Some(post) = inner.posts.pop() {
            self.run_nested_step(inner, StepTask::from(post), result)
                .await;
        }
    }

    fn evaluate_composite_outputs(
        &self,
        inner: &StepScope,
        action: &ResolvedAction,
        result: &mut StepResult,
    ) -> Result<(), ActionError> {
        let workspace = self.resources.folders.workspace.clone();
        let files = WorkspaceFiles(&workspace);
        let env = self.resources.scope.scope_env(inner);
        let contexts =
            self.resources
                .expression_contexts(inner, &inner.step_identity(""), &env, &files);
        for ActionOutput { name, value } in &action.file.outputs {
            if let Some(value) = value {
                let value = value.resolve_text(&contexts);
                let what = format!("the output {name}");
                let value = value.map_err(ActionError::in_expression(what))?;
                result.outputs.push((name.clone(), value));
            }
        }
        Ok(())
    }
}

/// Removes duplicate outputs: the last value wins.
fn last_value_per_name(outputs: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut each = EnvVars::default();
    each.extend(outputs);
    each.into_vec()
}
