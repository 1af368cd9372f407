//! The scheduler: decides which jobs start, end or are stopped now. Called workflows are scheduled recursively.

use super::{
    GraphDecision, JOBS_MAX, JobGraph, RunContexts,
    calls::LinkedWorkflow,
    error::ExpansionError,
    expansion::{self, CallingJob, expanded},
    progress::WorkflowProgress,
};
use crate::{
    expr::{Contexts, StatusChecks},
    job::{Conclusion, JobKey},
    model::Workflow,
};

/// All that follows now, each already folded into `progress`.
pub(super) fn decide_all(
    graph: &JobGraph,
    workflow: &Workflow,
    progress: &mut WorkflowProgress,
    ground: &RunContexts,
    ended: Option<&JobKey>,
) -> Vec<GraphDecision> {
    let mut size = progress.size();
    let mut scheduler = JobScheduler {
        graph,
        workflow,
        progress,
        ground,
        caller: None,
        size: &mut size,
        decisions: Vec::new(),
        path: ended.map(PathToEnded::new),
    };
    scheduler.run();
    scheduler.decisions
}

/// The calling cells of an ended cell, the outermost first, and the cell itself.
#[derive(Clone)]
struct PathToEnded {
    keys: std::sync::Arc<[JobKey]>,
    /// How many calls have been entered.
    depth: usize,
}

impl PathToEnded {
    fn new(ended: &JobKey) -> Self {
        let keys = ended.callers().chain([ended.clone()]).collect();
        Self { keys, depth: 0 }
    }

    /// The cell that belongs to this workflow.
    fn key(&self) -> &JobKey {
        &self.keys[self.depth.min(self.keys.len() - 1)]
    }

    /// The path on from a call, if it is on the path.
    fn next_call(&self, call: &JobKey) -> Option<Self> {
        let continues = self.depth + 1 < self.keys.len() && self.key() == call;
        continues.then(|| Self {
            keys: self.keys.clone(),
            depth: self.depth + 1,
        })
    }
}

/// The calls of a job that are run by [`JobScheduler::run_calls`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum CallsToRun {
    /// All active ones: the job was stopped, which cancels what they call.
    All,
    /// Those on the path to the cell that has ended, and new ones.
    Changed,
}

struct JobScheduler<'a> {
    graph: &'a JobGraph,
    workflow: &'a Workflow,
    progress: &'a mut WorkflowProgress,
    ground: &'a RunContexts,
    /// The calling job; `None` for the workflow of the run.
    caller: Option<CallingJob>,
    /// How many jobs the run has become.
    size: &'a mut usize,
    decisions: Vec<GraphDecision>,
    /// Where something has happened; none: anywhere.
    path: Option<PathToEnded>,
}

impl JobScheduler<'_> {
    fn run(&mut self) {
        // Jobs to look at, the next one last.
        let mut queue: Vec<usize> = match &self.path {
            Some(path) => self
                .graph
                .job_index(path.key().job_id())
                .into_iter()
                .collect(),
            None => (0..self.workflow.jobs.len()).rev().collect(),
        };
        while let Some(job) = queue.pop() {
            if self.decide_job(job) {
                queue.extend(self.graph.dependents[job].iter().rev());
            }
        }
    }

    /// Decides what can be decided of a job; true when it has ended by that.
    fn decide_job(&mut self, job: usize) -> bool {
        let state = &self.progress.jobs[job];
        if state.is_over()
            || !self.graph.needs[job]
                .iter()
                .all(|&need| self.progress.jobs[need].is_over())
        {
            return false;
        }
        if state.cells.is_empty() {
            self.start_job(job)
        } else {
            self.follow_job(job)
        }
    }

    fn end(&mut self, job: usize, result: Conclusion, why: Option<String>) -> bool {
        self.progress
            .end(job, &self.graph.needs[job], result, why.clone());
        let job = self.key(job);
        self.decisions.push(GraphDecision::End { job, result, why });
        true
    }

    /// The key of a job, without a cell.
    fn key(&self, job: usize) -> JobKey {
        expansion::key(self.caller.as_ref(), &self.workflow.jobs[job].id, None)
    }

    /// Why jobs of this workflow are cancelled. In a called workflow the caller's reason is already complete.
    fn why_cancelled(&self) -> Option<String> {
        let why = self.progress.cancelled.as_ref()?;
        Some(match self.caller {
            None => format!("the run was cancelled: {why}"),
            Some(_) => why.clone(),
        })
    }

    /// A job whose needs have ended: it starts, is skipped, or fails before it could.
    fn start_job(&mut self, job: usize) -> bool {
        let description = &self.workflow.jobs[job];
        let contexts = self.contexts(job);
        let outcome = match description.if_.holds(&contexts) {
            Err(error) => {
                return self.end(
                    job,
                    Conclusion::Failure,
                    Some(ExpansionError::setting(description, "if", error).to_string()),
                );
            }
            Ok(false) if self.progress.cancelled.is_some() => {
                return self.end(job, Conclusion::Cancelled, self.why_cancelled());
            }
            Ok(false) => return self.end(job, Conclusion::Skipped, Some(self.why_skipped(job))),
            Ok(true) if *self.size >= JOBS_MAX => {
                Err(ExpansionError::TooManyJobs(description.into()))
            }
            Ok(true) if description.calls.is_some() && self.graph.call(job).is_none() => {
                Err(ExpansionError::CallNotRead)
            }
            Ok(true) => {
                let unit = self.graph.call(job).map(|unit| &**unit);
                expanded(description, self.caller.as_ref(), unit, contexts)
            }
        };
        let called = self.graph.jobs_called(job);
        let outcome = outcome.and_then(|expanded| {
            *self.size += expanded.cells.len().saturating_mul(1 + called);
            if *self.size <= JOBS_MAX {
                return Ok(expanded);
            }
            Err(ExpansionError::TooManyJobs(description.into()))
        });
        match outcome {
            Err(error) => self.end(job, Conclusion::Failure, Some(error.to_string())),
            Ok(expanded) => {
                self.progress.expand(job, expanded.clone(), called);
                let key = self.key(job);
                self.decisions
                    .push(GraphDecision::Expand { job: key, expanded });
                // Workers report the progress of jobs; calls are decided here.
                called > 0 && self.follow_job(job)
            }
        }
    }

    /// A job that has started: whether its cells have ended, or must be stopped.
    fn follow_job(&mut self, job: usize) -> bool {
        loop {
            let calls = match self.why_stop(job) {
                Some(why) => {
                    self.stop(job, &why);
                    CallsToRun::All
                }
                None => CallsToRun::Changed,
            };
            // A call that has ended makes room for others, or is a reason to stop them.
            if !self.run_calls(job, calls) {
                break;
            }
        }
        let state = &self.progress.jobs[job];
        if state.cells.iter().any(|cell| cell.outcome.is_none()) {
            return false;
        }
        let any = |conclusion| {
            state
                .cells
                .iter()
                .any(|cell| cell.conclusion() == Some(conclusion))
        };
        let worst_first = [
            Conclusion::Failure,
            Conclusion::Cancelled,
            Conclusion::Incomplete,
        ];
        let result = worst_first.into_iter().find(|conclusion| any(*conclusion));
        let nothing_ran =
            (state.cells.iter()).all(|cell| cell.outcome == Some(Conclusion::Skipped));
        let is_call = state.cells.iter().any(|cell| cell.called.is_some());
        let green = if nothing_ran {
            Conclusion::Skipped
        } else {
            Conclusion::Success
        };
        let why = match result {
            None if nothing_ran && is_call => {
                Some("all jobs of the workflow it calls were skipped".to_owned())
            }
            None if nothing_ran => Some("all jobs of its matrix were skipped".to_owned()),
            _ => state.why.clone(),
        };
        self.end(job, result.unwrap_or(green), why)
    }

    /// Advances the workflows that the cells of a job call, where something can have changed. True if one of them ended, as
    /// `stopped` ones do.
    fn run_calls(&mut self, job: usize, calls: CallsToRun) -> bool {
        let Some(unit) = self.graph.call(job) else {
            return false;
        };
        let mut open = Vec::new();
        for cell in self.progress.jobs[job].active() {
            let inside = self
                .path
                .as_ref()
                .and_then(|path| path.next_call(&cell.key));
            let has_begun =
                (cell.called.as_ref()).is_some_and(|called| called.progress.has_started());
            if calls == CallsToRun::All || self.path.is_none() || !has_begun {
                open.push((cell.key.clone(), None));
            } else if inside.is_some() {
                open.push((cell.key.clone(), inside));
            }
        }
        let mut ended = false;
        for (key, path) in open {
            ended |= self.run_call(job, unit, &key, path);
        }
        ended
    }

    fn run_call(
        &mut self,
        job: usize,
        unit: &LinkedWorkflow,
        key: &JobKey,
        path: Option<PathToEnded>,
    ) -> bool {
        let mut cells = self.progress.jobs[job].cells.iter_mut();
        let Some(cell) = cells.find(|cell| cell.key == *key) else {
            return false;
        };
        let Some(called) = cell.called.as_deref_mut() else {
            return false;
        };
        let ground = RunContexts {
            inputs: called.inputs.clone(),
            ..self.ground.clone()
        };
        let mut scheduler = JobScheduler {
            graph: &unit.graph,
            workflow: &unit.workflow,
            progress: &mut called.progress,
            ground: &ground,
            caller: Some((key.clone(), cell.name.clone())),
            size: &mut *self.size,
            decisions: std::mem::take(&mut self.decisions),
            path,
        };
        let before = scheduler.progress.size();
        scheduler.run();
        self.decisions = scheduler.decisions;
        let more = called.progress.size() - before;
        let over = called.progress.is_over();
        let ended = over.then(|| unit.conclusion(&called.progress, &ground));
        self.progress.grow(more);
        let Some((outcome, outputs, why)) = ended else {
            return false;
        };
        self.progress
            .end_cell(job, key, outcome, &outputs, why.as_deref());
        self.decisions.push(GraphDecision::EndCell {
            key: key.clone(),
            outcome,
            outputs,
            why,
        });
        true
    }

    /// Why the unfinished cells of a job must stop: another cell failed with `fail-fast`, or the run was cancelled and the `if` doesn't hold.
    fn why_stop(&self, job: usize) -> Option<String> {
        let state = &self.progress.jobs[job];
        if state
            .cells
            .iter()
            .all(|cell| cell.outcome.is_some() || cell.stopping.is_some())
        {
            return None;
        }
        let failed = state
            .cells
            .iter()
            .find(|cell| cell.conclusion() == Some(Conclusion::Failure));
        if let (true, Some(failed)) = (state.fail_fast, failed) {
            return Some(format!(
                "`{}` failed, and the matrix is fail-fast",
                failed.name
            ));
        }
        let why = self.why_cancelled()?;
        // A condition that can't be evaluated doesn't keep the job running.
        let continues = self.workflow.jobs[job]
            .if_
            .holds(&self.contexts(job))
            .unwrap_or_default();
        (!continues).then_some(why)
    }

    fn stop(&mut self, job: usize, why: &str) {
        let state = &self.progress.jobs[job];
        let active: Vec<JobKey> = state
            .active()
            .filter(|cell| cell.stopping.is_none())
            .map(|cell| cell.key.clone())
            .collect();
        let started = state.active().count();
        let never: Vec<JobKey> = state
            .cells
            .iter()
            .filter(|cell| cell.outcome.is_none())
            .skip(started)
            .map(|cell| cell.key.clone())
            .collect();
        // Those behind first: else ending one would make room for the next.
        for key in never.into_iter().rev() {
            self.progress
                .end_cell(job, &key, Conclusion::Cancelled, &[], Some(why));
            self.decisions.push(GraphDecision::EndCell {
                key,
                outcome: Conclusion::Cancelled,
                outputs: Vec::new(),
                why: Some(why.to_owned()),
            });
        }
        for key in active {
            self.progress.stop(job, &key, why);
            self.decisions.push(GraphDecision::Stop {
                key,
                why: why.to_owned(),
            });
        }
    }

    fn contexts(&self, job: usize) -> Contexts<'static> {
        let needs = &self.graph.needs[job];
        let cancelled = self.progress.cancelled.is_some();
        let status = StatusChecks {
            success: !cancelled && needs.iter().all(|&need| self.progress.jobs[need].clear),
            failure: needs.iter().any(|&need| self.progress.jobs[need].tainted),
            cancelled,
        };
        (self.ground.contexts())
            .with(
                "needs",
                self.graph.needs_context(self.workflow, self.progress, job),
            )
            .with_status(status)
    }

    /// The job that caused the skip, or its own condition.
    fn why_skipped(&self, job: usize) -> String {
        let description = &self.workflow.jobs[job];
        let needs = &self.graph.needs[job];
        let name = |need: usize| &self.workflow.jobs[need].id;
        let blame = |need: &&usize| self.progress.jobs[**need].result != Some(Conclusion::Success);
        if description.if_.calls_status()
            || needs.iter().all(|&need| self.progress.jobs[need].clear)
        {
            return format!(
                "its condition is false: `{}`",
                description.if_.text().trim()
            );
        }
        if let Some(&need) = needs.iter().find(blame) {
            let how = match self.progress.jobs[need].result {
                Some(Conclusion::Failure) => "failed",
                Some(Conclusion::Cancelled) => "was cancelled",
                Some(Conclusion::Incomplete) => "could not be run completely on this machine",
                Some(Conclusion::Skipped | Conclusion::Success) | None => "was skipped",
            };
            return format!("`{}`, which it needs, {how}", name(need));
        }
        let need = needs
            .iter()
            .find(|&&need| !self.progress.jobs[need].clear)
            .copied()
            .unwrap_or_default();
        format!(
            "a job before `{}`, which it needs, did not succeed; `if: always() && …` would let it run",
            name(need)
        )
    }
}
