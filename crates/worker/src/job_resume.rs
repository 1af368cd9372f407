//! Resuming a job: restores the state of the previous attempt's completed steps and records them as done there.

use std::{fs, io, path::PathBuf};

use shipway_workflow::job::JournalBody;

use crate::{
    action_stage::ActionStage,
    job_execution::JobExecution,
    previous_attempt::{CompletedStep, PreviousAttempt},
    resume_state::{SecretAccess, StepResumeState, restore_matchers},
};

impl JobExecution {
    /// Restores the completed steps of the previous attempt; returns the index of the first step to run.
    pub(crate) fn restore_previous_steps(&mut self) -> io::Result<usize> {
        let (Some(previous_attempt), Some(resume)) = (
            self.previous_attempt.take(),
            self.resources.spec.resume.clone(),
        ) else {
            return Ok(0);
        };
        self.journal.append(JournalBody::Resumed {
            attempt: resume.attempt,
            step: resume.step.clone(),
            base: previous_attempt.base.clone(),
        })?;
        let PreviousAttempt {
            position,
            done,
            masks,
            ..
        } = previous_attempt;
        self.resume_writer.write_state(&StepResumeState {
            masks,
            ..StepResumeState::default()
        });
        self.log_resume_head(&done, resume.attempt);
        self.resources.output.matchers =
            restore_matchers(done.iter().filter_map(|done| done.kept.as_ref()));
        let resumed = self.resources.spec.mounts.resumed.as_ref();
        let summaries = resumed.map_or_else(PathBuf::new, |folder| folder.join("summaries"));
        for done in done {
            self.restore_step(done, &summaries)?;
        }
        Ok(position)
    }

    /// Writes the head of the log: which steps are not run again.
    fn log_resume_head(&mut self, done: &[CompletedStep], attempt: u32) {
        let output = &mut self.resources.output;
        output.log_message(&format!("##[group]Resuming from attempt {attempt}"));
        output.log_message(
            "  using the workspace of that attempt; finished steps are not run again:",
        );
        for done in done {
            let (outcome, attempt) = (done.outcome, done.earlier.attempt);
            output.log_message(&format!("  {}: {outcome} in attempt {attempt}", done.name));
        }
        output.log_message("##[endgroup]");
        let spec = &self.resources.spec;
        let new = match (&spec.container, spec.services.is_empty()) {
            (Some(_), true) => Some("the job's container is new"),
            (Some(_), false) => Some("the job's container and services are new"),
            (None, false) => Some("the job's services are new"),
            (None, true) => None,
        };
        if let Some(new) = new {
            let text =
                format!("{new}: changes of earlier steps outside the job's folders are missing");
            let level = shipway_workflow::job::AnnotationLevel::Warning;
            self.resources.output.annotate(level, &text);
        }
    }

    fn restore_step(&mut self, done: CompletedStep, summaries: &std::path::Path) -> io::Result<()> {
        let key = self.step_scope.step_key(done.position);
        let line = self.record_step_start(&done.id, &done.name, &key)?;
        let mut kept = done.kept.unwrap_or_default();
        kept.restore_into(&mut self.resources.scope, SecretAccess::Granted);
        self.resources.states.extend(kept.states.clone());
        if let Some(post) = kept.post.clone() {
            self.step_scope.set_post_step(post);
        }
        let outputs: Vec<(String, String)> =
            done.outputs.iter().chain(&kept.outputs).cloned().collect();
        match done.stage {
            ActionStage::Pre => self.completed_pre_steps.push(key),
            ActionStage::Main => {
                (self.step_scope).add_finished_step(
                    &done.id,
                    done.outcome,
                    done.conclusion,
                    &outputs,
                );
            }
            ActionStage::Post => {}
        }
        let (old, new) = (done.index, line.index);
        let folder = &self.resources.folders.summaries;
        let copied = done.summary
            && fs::create_dir_all(folder).is_ok()
            && fs::copy(
                summaries.join(format!("{old}.md")),
                folder.join(format!("{new}.md")),
            )
            .is_ok();
        kept.index = Some(line.index);
        kept.masks.clear();
        let kept = self.resume_writer.write_state(&kept);
        self.journal.append_durably(JournalBody::StepFinished {
            index: line.index,
            id: line.id,
            outcome: done.outcome,
            conclusion: done.conclusion,
            outputs: done.outputs,
            took_ms: done.took_ms,
            log_offset: self.resources.output.log.offset(),
            summary: copied,
            annotations: 0,
            why: done.why,
            kept,
            earlier: Some(done.earlier),
        })
    }
}
