//! Background steps: steps that run concurrently with those after them.
//!
//! Each has its own resources with a copy of the job's state from when it started. Its changes are applied to the job
//! when a later step waits for it. At most ten run at once, like at GitHub; the others wait for a slot. Their output
//! goes to the job's log with the prefix `[id]`.

use std::{io, rc::Rc, time::Instant};

use shipway_workflow::model::StepAction;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, spawn_local},
};
use tokio_util::sync::CancellationToken;

use crate::{
    step_resources::StepResources,
    step_runner::StepRunner,
    step_scope::StepScope,
    step_task::{OnFailure, PlannedStep, StartedStep, StepOutcome, StepTask},
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

/// A background step that was started and is not awaited yet.
pub(crate) struct RunningStep {
    pub(crate) line: StartedStep,
    pub(crate) on_failure: OnFailure,
    stop: CancellationToken,
    handle: JoinHandle<FinishedStep>,
}

/// A background step that ended, with the copies that it changed.
pub(crate) struct FinishedStep {
    pub(crate) key: String,
    pub(crate) resources: StepResources,
    pub(crate) step_scope: StepScope,
    pub(crate) outcome: StepOutcome,
    pub(crate) took: std::time::Duration,
}

impl BackgroundSteps {
    pub(crate) const fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Starts a step with a copy of the job's state.
    pub(crate) fn start_step(
        &mut self,
        job: (&StepResources, &StepScope),
        line: StartedStep,
        task: StepTask,
        plan: PlannedStep,
    ) -> io::Result<()> {
        let (resources, step_scope) = job;
        let number = self.started;
        self.started += 1;
        let mut resources = resources.for_background_step(&line.id, number)?;
        let mut step_scope = step_scope.clone();
        step_scope.posts.clear();
        let (stop, slots) = (resources.cancel.step_token(), Rc::clone(&self.slots));
        let (name, on_failure) = (line.name.clone(), plan.on_failure);
        let handle = spawn_local(async move {
            // Only fails when the semaphore is closed, which never happens.
            let _slot = slots.acquire().await;
            let started_at = Instant::now();
            resources.output.log_message(&name);
            let key = task.key.clone();
            let outcome = StepRunner::new(&mut resources)
                .run_step(&mut step_scope, task, plan)
                .await;
            FinishedStep {
                key,
                resources,
                step_scope,
                outcome,
                took: started_at.elapsed(),
            }
        });
        self.running.push(RunningStep {
            line,
            on_failure,
            stop,
            handle,
        });
        Ok(())
    }

    /// Takes the running steps that a step with this action waits for, or cancels.
    pub(crate) fn take_steps_of(&mut self, action: &StepAction) -> Vec<RunningStep> {
        let is_meant = |running: &RunningStep| match action {
            StepAction::Wait { ids } => ids
                .iter()
                .any(|id| id.eq_ignore_ascii_case(&running.line.id)),
            StepAction::Cancel { id } => id.eq_ignore_ascii_case(&running.line.id),
            StepAction::WaitAll | StepAction::Run { .. } | StepAction::Uses { .. } => true,
        };
        let all = std::mem::take(&mut self.running);
        let (meant, others) = all.into_iter().partition(is_meant);
        self.running = others;
        meant
    }
}

impl RunningStep {
    pub(crate) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Waits until the step has ended.
    pub(crate) async fn wait_for_end(self) -> io::Result<(StartedStep, OnFailure, FinishedStep)> {
        let finished = self.handle.await.map_err(io::Error::other)?;
        Ok((self.line, self.on_failure, finished))
    }
}
