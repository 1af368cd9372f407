//! The job's own steps: pre steps of actions, the steps themselves, post steps. Each is recorded in the journal.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use shipway_workflow::{
    job::{Conclusion, JournalBody},
    model::StepAction,
};

use crate::{
    action_stage::ActionStage,
    job_execution::JobExecution,
    output_processor::CommandEffects,
    step_task::{OnFailure, StepOutcome, StepTask},
};

/// A started step, as the journal knows it.
pub(crate) struct StartedStep {
    pub(crate) index: usize,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) key: String,
}

impl JobExecution {
    /// Runs the pre steps of all actions.
    pub(crate) async fn run_pre_steps(&mut self) -> io::Result<()> {
        self.step_scope.stage = ActionStage::Pre;
        for (position, step) in self.runner.spec.clone().steps.iter().enumerate() {
            if self
                .completed_pre_steps
                .contains(&self.step_scope.step_key(position))
            {
                continue;
            }
            if let Some(known) = self.runner.library.action_with_pre_part(step) {
                let task = StepTask::for_pre_part(self.step_scope.step_key(position), step, known);
                self.run_job_step(task).await?;
            }
        }
        self.step_scope.stage = ActionStage::Main;
        Ok(())
    }

    /// Runs the job's steps, beginning at index `from`.
    pub(crate) async fn run_main_steps(&mut self, from: usize) -> io::Result<()> {
        for (position, step) in self.runner.spec.clone().steps.iter().enumerate().skip(from) {
            let task = StepTask::new(self.step_scope.step_key(position), step);
            self.run_job_step(task).await?;
        }
        self.await_remaining_steps().await
    }

    /// Runs pending post steps, the last one first.
    pub(crate) async fn run_post_steps(&mut self) -> io::Result<()> {
        self.step_scope.stage = ActionStage::Post;
        while let Some(post) = self.step_scope.posts.pop() {
            self.run_job_step(StepTask::from(post)).await?;
        }
        Ok(())
    }

    /// Runs or skips a step and records its result. A background step is only started.
    async fn run_job_step(&mut self, task: StepTask) -> io::Result<()> {
        let started_at = Instant::now();
        let (runner, step_scope) = (&mut self.runner, &self.step_scope);
        let step = task.step.clone();
        let reason = runner.cancel.update();
        runner.record_cancellation(reason);
        runner.output.effects = CommandEffects::default();
        let plan = runner.plan_step(step_scope, &task);
        let name = plan
            .as_ref()
            .map_or_else(|_| task.title(step_scope.stage), |plan| plan.name.clone());
        let id = match step_scope.stage {
            ActionStage::Pre => format!("{}.pre", step.id),
            ActionStage::Main => step.id.clone(),
            ActionStage::Post => format!("{}.post", step.id),
        };
        let line = self.record_step_start(&id, &name, &task.key)?;
        let is_control = matches!(
            step.action,
            StepAction::Wait { .. } | StepAction::WaitAll | StepAction::Cancel { .. }
        );
        let (outcome, on_failure) = match plan {
            // Also in a cancelled job: no background step may be left running.
            Ok(plan) if is_control => {
                let on_failure = plan.on_failure;
                (self.run_control_step(&step.action).await?, on_failure)
            }
            Ok(plan)
                if plan.runs && step.background && self.step_scope.stage == ActionStage::Main =>
            {
                return self.start_background_step(line, task, plan);
            }
            Ok(plan) if plan.runs => {
                let name = format!("##[group]{}", line.name);
                self.runner.output.log_message(&name);
                let on_failure = plan.on_failure;
                let outcome = self.runner.run_step(&mut self.step_scope, task, plan).await;
                (outcome, on_failure)
            }
            Ok(_) => (
                StepOutcome::without_output(Conclusion::Skipped, None),
                OnFailure::Fail,
            ),
            Err(error) => (StepOutcome::from_eval_error(&step, error), OnFailure::Fail),
        };
        self.runner.record_cancellation(self.runner.cancel.reason());
        self.finish_step(line, outcome, on_failure, started_at.elapsed())
    }

    /// Records that a step has started.
    pub(crate) fn record_step_start(
        &mut self,
        id: &str,
        name: &str,
        key: &str,
    ) -> io::Result<StartedStep> {
        let output = &mut self.runner.output;
        let line = StartedStep {
            index: self.started_steps,
            id: id.to_owned(),
            name: output.masker.mask(name).into_owned(),
            key: key.to_owned(),
        };
        self.started_steps += 1;
        self.journal.append(JournalBody::StepStarted {
            index: line.index,
            id: line.id.clone(),
            name: line.name.clone(),
            log_offset: output.log.offset(),
        })?;
        Ok(line)
    }

    /// Records a finished step; a failure fails the job.
    pub(crate) fn finish_step(
        &mut self,
        line: StartedStep,
        outcome: StepOutcome,
        on_failure: OnFailure,
        took: Duration,
    ) -> io::Result<()> {
        if outcome.conclusion(on_failure) == Conclusion::Failure {
            let why = format!("step {:?}: {}", line.name, outcome.short_reason());
            self.runner.scope.verdict.failed.get_or_insert(why);
        }
        self.record_step_end(line, outcome, on_failure, took)
    }

    /// Records a finished step, and makes its outputs visible to later steps.
    pub(crate) fn record_step_end(
        &mut self,
        line: StartedStep,
        outcome: StepOutcome,
        on_failure: OnFailure,
        took: Duration,
    ) -> io::Result<()> {
        let StartedStep { index, id, key, .. } = line;
        let kept = self.record_resume_state(index, &key, &outcome);
        let runner = &mut self.runner;
        if let Some(why) = &outcome.why
            && outcome.outcome != Conclusion::Skipped
        {
            runner.output.log_message(&format!("##[error]{why}"));
        }
        let conclusion = outcome.conclusion(on_failure);
        if self.step_scope.stage == ActionStage::Main {
            self.step_scope
                .add_finished_step(&id, outcome.outcome, conclusion, &outcome.outputs);
        }
        let annotations = std::mem::take(&mut runner.output.effects.annotations);
        let count = u32::try_from(annotations.len()).unwrap_or(u32::MAX);
        let artifacts = runner.runtime.artifact_store.take_unrecorded();
        for entry in (outcome.entries.into_iter())
            .chain(artifacts)
            .chain(annotations)
        {
            self.journal.append(entry)?;
        }
        let masker = &runner.output.masker;
        if let Some(summary) = &outcome.summary {
            let path = runner.folders.summaries.join(format!("{index}.md"));
            // Best effort: a missing summary doesn't fail the step.
            let _ = fs::create_dir_all(&runner.folders.summaries)
                .and_then(|()| fs::write(path, masker.mask(summary).as_bytes()));
        }
        // Outputs that contain a secret are visible to later steps, but never written to the journal.
        let plain = |(_, value): &(String, String)| !masker.contains_secret(value);
        let body = JournalBody::StepFinished {
            index,
            id,
            outcome: outcome.outcome,
            conclusion,
            outputs: outcome.outputs.into_iter().filter(plain).collect(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            log_offset: runner.output.log.offset(),
            summary: outcome.summary.is_some(),
            annotations: count,
            why: outcome.why.map(|why| masker.mask(&why).into_owned()),
            kept,
            earlier: None,
        };
        self.journal.append_durably(body)
    }
}
