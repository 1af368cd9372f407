//! Background steps: steps that run concurrently with those after them.
//!
//! Each has its own runner with a copy of the job's state from when it started. Its changes are applied to the job
//! when a later step waits for it. At most ten run at once, like at GitHub; the others wait for a slot. Their output
//! goes to the job's log with the prefix `[id]`.

use std::{io, rc::Rc, time::Instant};

use shipway_workflow::{job::Conclusion, model::StepAction};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, spawn_local},
};
use tokio_util::sync::CancellationToken;

use crate::{
    job_execution::JobExecution,
    job_steps::StartedStep,
    program_runner::OutputPipe,
    step_runner::StepRunner,
    step_scope::StepScope,
    step_task::{IMPLICIT_WAIT, OnFailure, PlannedStep, StepOutcome, StepTask},
};

/// GitHub's limit.
const AT_ONCE_MAX: usize = 10;

/// The background steps of a job.
pub(crate) struct BackgroundSteps {
    running: Vec<RunningStep>,
    slots: Rc<Semaphore>,
    /// Number of background steps started so far.
    started: usize,
}

impl Default for BackgroundSteps {
    fn default() -> Self {
        Self {
            running: Vec::new(),
            slots: Rc::new(Semaphore::new(AT_ONCE_MAX)),
            started: 0,
        }
    }
}

struct RunningStep {
    line: StartedStep,
    on_failure: OnFailure,
    stop: CancellationToken,
    handle: JoinHandle<FinishedStep>,
}

struct FinishedStep {
    key: String,
    runner: StepRunner,
    step_scope: StepScope,
    outcome: StepOutcome,
    took: std::time::Duration,
}

impl StepRunner {
    /// A runner for the background step `id`.
    fn for_background_step(&self, id: &str, number: usize) -> io::Result<Self> {
        let mut scope = self.scope.clone();
        scope.changes.clear();
        Ok(Self {
            spec: self.spec.clone(),
            folders: self.folders.clone(),
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
}

impl JobExecution {
    /// Starts a step in the background.
    pub(crate) fn start_background_step(
        &mut self,
        line: StartedStep,
        task: StepTask,
        plan: PlannedStep,
    ) -> io::Result<()> {
        let number = self.background.started;
        self.background.started += 1;
        let mut runner = self.runner.for_background_step(&line.id, number)?;
        let mut step_scope = self.step_scope.clone();
        step_scope.posts.clear();
        let (stop, slots) = (
            runner.cancel.step_token(),
            Rc::clone(&self.background.slots),
        );
        let (name, on_failure) = (line.name.clone(), plan.on_failure);
        let handle = spawn_local(async move {
            // Only fails when the semaphore is closed, which never happens.
            let _slot = slots.acquire().await;
            let started_at = Instant::now();
            runner.output.log_message(&name);
            let key = task.key.clone();
            let outcome = runner.run_step(&mut step_scope, task, plan).await;
            FinishedStep {
                key,
                runner,
                step_scope,
                outcome,
                took: started_at.elapsed(),
            }
        });
        self.background.running.push(RunningStep {
            line,
            on_failure,
            stop,
            handle,
        });
        Ok(())
    }

    /// Runs a step that waits for background steps or cancels one. Fails if one of them has failed.
    pub(crate) async fn run_control_step(
        &mut self,
        action: &StepAction,
    ) -> io::Result<StepOutcome> {
        let is_meant = |running: &RunningStep| match action {
            StepAction::Wait { ids } => ids
                .iter()
                .any(|id| id.eq_ignore_ascii_case(&running.line.id)),
            StepAction::Cancel { id } => id.eq_ignore_ascii_case(&running.line.id),
            StepAction::WaitAll | StepAction::Run { .. } | StepAction::Uses { .. } => true,
        };
        let all = std::mem::take(&mut self.background.running);
        let (meant, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_meant);
        self.background.running = others;
        let mut failed = Vec::new();
        for running in meant {
            if matches!(action, StepAction::Cancel { .. }) {
                running.stop.cancel();
            }
            let id = running.line.id.clone();
            let why = self.join_background_step(running).await?;
            failed.extend(why.map(|why| format!("{id}: {why}")));
        }
        let reason = self.runner.cancel.update();
        self.runner.record_cancellation(reason);
        Ok(if failed.is_empty() {
            StepOutcome::without_output(Conclusion::Success, None)
        } else {
            StepOutcome::without_output(Conclusion::Failure, Some(failed.join("; ")))
        })
    }

    /// Waits for all running background steps; recorded as a step of its own if there are any.
    pub(crate) async fn await_remaining_steps(&mut self) -> io::Result<()> {
        if self.background.running.is_empty() {
            return Ok(());
        }
        let started_at = Instant::now();
        let line = self.record_step_start(IMPLICIT_WAIT, "Wait for all background steps", "")?;
        let outcome = self.run_control_step(&StepAction::WaitAll).await?;
        self.finish_step(line, outcome, OnFailure::Fail, started_at.elapsed())
    }

    /// Waits for a background step and applies its changes; returns why it failed.
    async fn join_background_step(&mut self, running: RunningStep) -> io::Result<Option<String>> {
        let done = running.handle.await.map_err(io::Error::other)?;
        let FinishedStep {
            key,
            mut runner,
            step_scope,
            outcome,
            took,
        } = done;
        self.runner.apply_background_changes(&key, &mut runner);
        for post in step_scope.posts {
            self.step_scope.set_post_step(post);
        }
        let failed = outcome.conclusion(running.on_failure) == Conclusion::Failure;
        let why = outcome.short_reason().to_owned();
        let effects = std::mem::take(&mut runner.output.effects);
        let outer = std::mem::replace(&mut self.runner.output.effects, effects);
        // Not `finish`: the failure is that of the waiting step.
        self.record_step_end(running.line, outcome, running.on_failure, took)?;
        self.runner.output.effects = outer;
        Ok(failed.then_some(why))
    }
}

impl StepRunner {
    fn apply_background_changes(&mut self, key: &str, other: &mut Self) {
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
