//! The job's own steps: pre steps of actions, the steps themselves, post steps. Each is recorded in the journal.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use shipway_workflow::{
    job::{Conclusion, JournalBody},
    model::Action,
};

use crate::{
    job_execution::JobExecution,
    output_processor::CommandEffects,
    step_runner::{StepOutcome, StepTask, apply_continue_on_error},
    step_scope::ActionStage,
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
        self.frame.stage = ActionStage::Pre;
        for (place, step) in self.hand.spec.clone().steps.iter().enumerate() {
            if self.pre_done.contains(&self.frame.step_key(place)) {
                continue;
            }
            if let Some(known) = self.hand.library.action_with_pre_part(step) {
                let mut task = StepTask::new(self.frame.step_key(place), step);
                task.condition = known.stage_condition(ActionStage::Pre);
                task.known = Some(known);
                self.run_job_step(task).await?;
            }
        }
        self.frame.stage = ActionStage::Main;
        Ok(())
    }

    /// Runs the job's steps, beginning at index `from`.
    pub(crate) async fn run_main_steps(&mut self, from: usize) -> io::Result<()> {
        for (place, step) in self.hand.spec.clone().steps.iter().enumerate().skip(from) {
            let task = StepTask::new(self.frame.step_key(place), step);
            self.run_job_step(task).await?;
        }
        self.await_remaining_steps().await
    }

    /// Runs pending post steps, the last one first.
    pub(crate) async fn run_post_steps(&mut self) -> io::Result<()> {
        self.frame.stage = ActionStage::Post;
        while let Some(post) = self.frame.posts.pop() {
            self.run_job_step(StepTask::from(post)).await?;
        }
        Ok(())
    }

    /// Runs or skips a step and records its result. A background step is only started.
    async fn run_job_step(&mut self, task: StepTask) -> io::Result<()> {
        let begun = Instant::now();
        let (hand, frame) = (&mut self.hand, &self.frame);
        let step = task.step.clone();
        let cut = hand.cancel.update();
        hand.record_cancellation(cut);
        hand.output.heard = CommandEffects::default();
        let plan = hand.plan_step(frame, &task);
        let name = plan
            .as_ref()
            .map_or_else(|_| task.title(frame.stage), |plan| plan.name.clone());
        let id = match frame.stage {
            ActionStage::Pre => format!("{}.pre", step.id),
            ActionStage::Main => step.id.clone(),
            ActionStage::Post => format!("{}.post", step.id),
        };
        let line = self.record_step_start(&id, &name, &task.key)?;
        let is_control = matches!(
            step.action,
            Action::Wait { .. } | Action::WaitAll | Action::Cancel { .. }
        );
        let (went, continues) = match plan {
            // Also in a cancelled job: no background step may be left running.
            Ok(plan) if is_control => {
                let continues = plan.continues;
                (self.run_control_step(&step.action).await?, continues)
            }
            Ok(plan) if plan.runs && step.background && self.frame.stage == ActionStage::Main => {
                return self.start_background_step(line, task, plan);
            }
            Ok(plan) if plan.runs => {
                let name = format!("##[group]{}", line.name);
                self.hand.output.log_message(&name);
                let continues = plan.continues;
                let went = self.hand.run_step(&mut self.frame, task, plan).await;
                (went, continues)
            }
            Ok(_) => (
                StepOutcome::without_output(Conclusion::Skipped, None),
                false,
            ),
            Err(error) => (StepOutcome::from_eval_error(&step, &error), false),
        };
        self.hand.record_cancellation(self.hand.cancel.reason());
        self.finish_step(line, went, continues, begun.elapsed())
    }

    /// Records that a step has started.
    pub(crate) fn record_step_start(
        &mut self,
        id: &str,
        name: &str,
        key: &str,
    ) -> io::Result<StartedStep> {
        let output = &mut self.hand.output;
        let line = StartedStep {
            index: self.begun,
            id: id.to_owned(),
            name: output.masker.mask(name).into_owned(),
            key: key.to_owned(),
        };
        self.begun += 1;
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
        went: StepOutcome,
        continues: bool,
        took: Duration,
    ) -> io::Result<()> {
        if apply_continue_on_error(went.outcome, continues) == Conclusion::Failure {
            let why = went.why.as_deref().unwrap_or("failed");
            let why = why.lines().next().unwrap_or(why);
            let why = format!("step {:?}: {why}", line.name);
            self.hand.scope.verdict.failed.get_or_insert(why);
        }
        self.record_step_end(line, went, continues, took)
    }

    /// Records a finished step, and makes its outputs visible to later steps.
    pub(crate) fn record_step_end(
        &mut self,
        line: StartedStep,
        went: StepOutcome,
        continues: bool,
        took: Duration,
    ) -> io::Result<()> {
        let StartedStep { index, id, key, .. } = line;
        let kept = self.record_resume_state((index, &key), &went);
        let hand = &mut self.hand;
        if let Some(why) = &went.why
            && went.outcome != Conclusion::Skipped
        {
            hand.output.log_message(&format!("##[error]{why}"));
        }
        let conclusion = apply_continue_on_error(went.outcome, continues);
        if self.frame.stage == ActionStage::Main {
            self.frame
                .add_finished_step(&id, went.outcome, conclusion, &went.outputs);
        }
        let annotations = std::mem::take(&mut hand.output.heard.annotations);
        let count = u32::try_from(annotations.len()).unwrap_or(u32::MAX);
        let artifacts = hand.runtime.shelf.take_unrecorded();
        for entry in (went.entries.into_iter())
            .chain(artifacts)
            .chain(annotations)
        {
            self.journal.append(entry)?;
        }
        let masker = &hand.output.masker;
        if let Some(summary) = &went.summary {
            let path = hand.folders.summaries.join(format!("{index}.md"));
            // Best effort: a missing summary doesn't fail the step.
            let _ = fs::create_dir_all(&hand.folders.summaries)
                .and_then(|()| fs::write(path, masker.mask(summary).as_bytes()));
        }
        // Outputs that contain a secret are visible to later steps, but never written to the journal.
        let plain = |(_, value): &(String, String)| !masker.contains_secret(value);
        let body = JournalBody::StepFinished {
            index,
            id,
            outcome: went.outcome,
            conclusion,
            outputs: went.outputs.into_iter().filter(plain).collect(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            log_offset: hand.output.log.offset(),
            summary: went.summary.is_some(),
            annotations: count,
            why: went.why.map(|why| masker.mask(&why).into_owned()),
            kept,
            earlier: None,
        };
        self.journal.append_durably(body)
    }
}
