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
    background_steps::{FinishedStep, RunningStep},
    job_execution::JobExecution,
    output_processor::CommandEffects,
    resume_state::StepChanges,
    step_runner::StepRunner,
    step_task::{IMPLICIT_WAIT, OnFailure, StartedStep, StepOutcome, StepTask},
};

impl JobExecution {
    /// Runs the pre steps of all actions.
    pub(crate) async fn run_pre_steps(&mut self) -> io::Result<()> {
        self.step_scope.stage = ActionStage::Pre;
        for (position, step) in self.resources.spec.clone().steps.iter().enumerate() {
            if self
                .completed_pre_steps
                .contains(&self.step_scope.step_key(position))
            {
                continue;
            }
            if let Some(known) = self.resources.library.action_with_pre_part(step) {
                let task = StepTask::for_pre_part(self.step_scope.step_key(position), step, known);
                self.run_job_step(task).await?;
            }
        }
        self.step_scope.stage = ActionStage::Main;
        Ok(())
    }

    /// Runs the job's steps, beginning at index `from`.
    pub(crate) async fn run_main_steps(&mut self, from: usize) -> io::Result<()> {
        for (position, step) in self
            .resources
            .spec
            .clone()
            .steps
            .iter()
            .enumerate()
            .skip(from)
        {
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
        let (resources, step_scope) = (&mut self.resources, &self.step_scope);
        let step = task.step.clone();
        let reason = resources.cancel.update();
        resources.record_cancellation(reason);
        resources.output.effects = CommandEffects::default();
        let plan = StepRunner::new(resources).plan_step(step_scope, &task);
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
                let job = (&self.resources, &self.step_scope);
                return self.background.start_step(job, line, task, plan);
            }
            Ok(plan) if plan.runs => {
                let name = format!("##[group]{}", line.name);
                self.resources.output.log_message(&name);
                let on_failure = plan.on_failure;
                let outcome = StepRunner::new(&mut self.resources)
                    .run_step(&mut self.step_scope, task, plan)
                    .await;
                (outcome, on_failure)
            }
            Ok(_) => (
                StepOutcome::without_output(Conclusion::Skipped, None),
                OnFailure::Fail,
            ),
            Err(error) => (StepOutcome::from_eval_error(&step, error), OnFailure::Fail),
        };
        self.resources
            .record_cancellation(self.resources.cancel.reason());
        self.finish_step(line, outcome, on_failure, started_at.elapsed())
    }

    /// Records that a step has started.
    pub(crate) fn record_step_start(
        &mut self,
        id: &str,
        name: &str,
        key: &str,
    ) -> io::Result<StartedStep> {
        let output = &mut self.resources.output;
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
            self.resources.scope.verdict.failed.get_or_insert(why);
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
        let resources = &mut self.resources;
        if let Some(why) = &outcome.why
            && outcome.outcome != Conclusion::Skipped
        {
            resources.output.log_message(&format!("##[error]{why}"));
        }
        let conclusion = outcome.conclusion(on_failure);
        if self.step_scope.stage == ActionStage::Main {
            self.step_scope
                .add_finished_step(&id, outcome.outcome, conclusion, &outcome.outputs);
        }
        let annotations = std::mem::take(&mut resources.output.effects.annotations);
        let count = u32::try_from(annotations.len()).unwrap_or(u32::MAX);
        let artifacts = resources.runtime.artifact_store.take_unrecorded();
        for entry in (outcome.entries.into_iter())
            .chain(artifacts)
            .chain(annotations)
        {
            self.journal.append(entry)?;
        }
        let masker = &resources.output.masker;
        if let Some(summary) = &outcome.summary {
            let path = resources.folders.summaries.join(format!("{index}.md"));
            // Best effort: a missing summary doesn't fail the step.
            let _ = fs::create_dir_all(&resources.folders.summaries)
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
            log_offset: resources.output.log.offset(),
            summary: outcome.summary.is_some(),
            annotations: count,
            why: outcome.why.map(|why| masker.mask(&why).into_owned()),
            kept,
            earlier: None,
        };
        self.journal.append_durably(body)
    }

    /// Writes the resume state of a step; returns whether there was any.
    fn record_resume_state(&mut self, index: usize, key: &str, outcome: &StepOutcome) -> bool {
        let resources = &mut self.resources;
        match self.step_scope.stage {
            ActionStage::Pre | ActionStage::Main => self.resume_writer.record_step(StepChanges {
                index,
                key,
                changes: std::mem::take(&mut resources.scope.changes),
                states: &resources.states,
                posts: &self.step_scope.posts,
                outputs: &outcome.outputs,
                masker: &resources.output.masker,
                matchers: resources.output.matchers.definitions(),
            }),
            // Post steps are never resumed from: only their masks matter.
            ActionStage::Post => {
                self.resume_writer.record_masks(&resources.output.masker);
                false
            }
        }
    }

    /// Runs a step that waits for background steps or cancels one. Fails if one of them has failed.
    async fn run_control_step(&mut self, action: &StepAction) -> io::Result<StepOutcome> {
        let mut failed = Vec::new();
        for running in self.background.take_steps_of(action) {
            if matches!(action, StepAction::Cancel { .. }) {
                running.cancel();
            }
            let id = running.line.id.clone();
            let why = self.join_background_step(running).await?;
            failed.extend(why.map(|why| format!("{id}: {why}")));
        }
        let reason = self.resources.cancel.update();
        self.resources.record_cancellation(reason);
        Ok(if failed.is_empty() {
            StepOutcome::without_output(Conclusion::Success, None)
        } else {
            StepOutcome::without_output(Conclusion::Failure, Some(failed.join("; ")))
        })
    }

    /// Waits for all running background steps; recorded as a step of its own if there are any.
    async fn await_remaining_steps(&mut self) -> io::Result<()> {
        if self.background.is_empty() {
            return Ok(());
        }
        let started_at = Instant::now();
        let line = self.record_step_start(IMPLICIT_WAIT, "Wait for all background steps", "")?;
        let outcome = self.run_control_step(&StepAction::WaitAll).await?;
        self.finish_step(line, outcome, OnFailure::Fail, started_at.elapsed())
    }

    /// Waits for a background step and applies its changes; returns why it failed.
    async fn join_background_step(&mut self, running: RunningStep) -> io::Result<Option<String>> {
        let (line, on_failure, finished) = running.wait_for_end().await?;
        let FinishedStep {
            key,
            mut resources,
            step_scope,
            outcome,
            took,
        } = finished;
        self.resources
            .apply_background_changes(&key, &mut resources);
        for post in step_scope.posts {
            self.step_scope.set_post_step(post);
        }
        let failed = outcome.conclusion(on_failure) == Conclusion::Failure;
        let why = outcome.short_reason().to_owned();
        let effects = std::mem::take(&mut resources.output.effects);
        let outer = std::mem::replace(&mut self.resources.output.effects, effects);
        // Not `finish`: the failure is that of the waiting step.
        self.record_step_end(line, outcome, on_failure, took)?;
        self.resources.output.effects = outer;
        Ok(failed.then_some(why))
    }
}
