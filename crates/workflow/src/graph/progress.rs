//! Progress of the jobs of a run. Plain data, changed only by the methods here, so that deciding and
//! folding events can't drift apart.

use serde::{Deserialize, Serialize};

use super::preconditions::JobPreconditions;
use crate::{
    expr::ExprValue,
    job::{Conclusion, JobKey},
    persistent_vec::PersistentVec,
    runner::RunnerRequest,
};

/// All jobs of a workflow that runs, in the order of the workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredProgress")]
pub struct WorkflowProgress {
    /// By place in [`crate::model::Workflow::jobs`].
    pub jobs: PersistentVec<JobProgress>,
    /// Why the run was cancelled, once it was.
    pub cancelled: Option<String>,
    /// Cached counts of ended jobs and cells: recounting ten thousand jobs whenever one ends would
    /// be a hundred million steps.
    #[serde(skip)]
    counts: ProgressCounts,
}

/// Counts that are kept up to date by the methods of [`WorkflowProgress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ProgressCounts {
    over: usize,
    /// See [`WorkflowProgress::size`].
    size: usize,
}

/// As it is on record.
#[derive(Deserialize)]
struct StoredProgress {
    #[serde(default)]
    jobs: PersistentVec<JobProgress>,
    #[serde(default)]
    cancelled: Option<String>,
}

impl From<StoredProgress> for WorkflowProgress {
    fn from(StoredProgress { jobs, cancelled }: StoredProgress) -> Self {
        let counts = ProgressCounts::count(&jobs);
        Self {
            jobs,
            cancelled,
            counts,
        }
    }
}

impl ProgressCounts {
    fn count(jobs: &PersistentVec<JobProgress>) -> Self {
        let inside = |cell: &MatrixCell| {
            let called = cell.called.as_ref();
            1 + called.map_or(0, |called| called.progress.size())
        };
        Self {
            over: jobs.iter().filter(|job| job.is_over()).count(),
            size: jobs.iter().flat_map(|job| &job.cells).map(inside).sum(),
        }
    }
}

/// One job of the workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Its combinations, or itself alone; empty until it may start.
    pub cells: Vec<MatrixCell>,
    /// Whether one failed cell stops the others.
    pub fail_fast: bool,
    /// How many cells run at once.
    pub max_parallel: Option<usize>,
    /// How it ended.
    pub result: Option<Conclusion>,
    /// Why it didn't run, or how it failed.
    pub why: Option<String>,
    /// Outputs that later jobs can read.
    pub outputs: Vec<(String, String)>,
    /// Whether it and all jobs before it succeeded; known when it has ended.
    pub clear: bool,
    /// Whether it or any job before it failed; known when it has ended.
    pub tainted: bool,
}

/// One job that runs: a combination of a matrix, or a job without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// Its name within the run.
    pub key: JobKey,
    /// Display name.
    pub name: String,
    /// The `matrix` context; null without a matrix.
    pub matrix: ExprValue,
    /// Whether its failure counts as success.
    pub continue_on_error: bool,
    /// How long it may take.
    pub timeout_ms: u64,
    /// Which machine it asks for; empty for a call.
    #[serde(default, skip_serializing_if = "RunnerRequest::is_empty")]
    pub runs_on: RunnerRequest,
    /// What it waits for before it starts.
    #[serde(default, skip_serializing_if = "JobPreconditions::is_open")]
    pub gate: JobPreconditions,
    /// Why it is being stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<String>,
    /// How it ended, `continue-on-error` not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Conclusion>,
    /// The workflow that it calls; none for a job with steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<Box<CalledProgress>>,
}

/// A called workflow: its inputs and its progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalledProgress {
    /// The `inputs` context of its jobs.
    pub inputs: ExprValue,
    /// Progress of its jobs. Not serialized until one of them has started.
    #[serde(default)]
    pub progress: WorkflowProgress,
}

impl MatrixCell {
    /// The outcome after `continue-on-error`.
    #[must_use]
    pub fn conclusion(&self) -> Option<Conclusion> {
        match self.outcome {
            Some(Conclusion::Failure) if self.continue_on_error => Some(Conclusion::Success),
            outcome => outcome,
        }
    }
}

impl JobProgress {
    /// The cells that should run now: those that have not ended, up to `max-parallel`.
    pub fn active(&self) -> impl Iterator<Item = &MatrixCell> {
        let most = self.max_parallel.unwrap_or(usize::MAX);
        self.cells
            .iter()
            .filter(|cell| cell.outcome.is_none())
            .take(most)
    }

    /// Whether it has ended.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.result.is_some()
    }
}

impl WorkflowProgress {
    /// Nothing has begun.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self {
            jobs: (0..jobs).map(|_| JobProgress::default()).collect(),
            ..Self::default()
        }
    }

    /// Counts anew, after jobs were changed by other ways than the methods here.
    pub(super) fn recount(&mut self) {
        for at in 0..self.jobs.len() {
            let calls = |cell: &MatrixCell| cell.called.is_some();
            if self.jobs[at].cells.iter().any(calls) {
                let cells = self.jobs[at].cells.iter_mut();
                cells
                    .filter_map(|cell| cell.called.as_mut())
                    .for_each(|called| called.progress.recount());
            }
        }
        self.counts = ProgressCounts::count(&self.jobs);
    }

    /// A workflow that one of its cells calls has become so many more jobs.
    pub(super) fn grow(&mut self, jobs: usize) {
        self.counts.size += jobs;
    }

    /// Whether all jobs have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.counts.over == self.jobs.len()
    }

    /// How the workflow counts: failed when a job did, cancelled when it or a job was, incomplete when a job could not be run, else
    /// green.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        let any = |conclusion| self.jobs.iter().any(|job| job.result == Some(conclusion));
        if any(Conclusion::Failure) {
            Conclusion::Failure
        } else if self.cancelled.is_some() || any(Conclusion::Cancelled) {
            Conclusion::Cancelled
        } else if any(Conclusion::Incomplete) {
            Conclusion::Incomplete
        } else {
            Conclusion::Success
        }
    }

    /// Whether all jobs were skipped.
    #[must_use]
    pub fn nothing_ran(&self) -> bool {
        let mut jobs = self.jobs.iter();
        jobs.all(|job| job.result == Some(Conclusion::Skipped))
    }

    /// Whether anything of it was decided.
    pub(super) fn has_started(&self) -> bool {
        let mut jobs = self.jobs.iter();
        jobs.any(|job| job.is_over() || !job.cells.is_empty())
    }

    /// The first job that caused the conclusion, and why; `None` for a success.
    #[must_use]
    pub fn blamed(&self) -> Option<(usize, &str)> {
        let conclusion = self.conclusion();
        let to_blame = |job: &JobProgress| job.result == Some(conclusion);
        let at =
            (conclusion != Conclusion::Success).then(|| self.jobs.iter().position(to_blame))??;
        let why = self.jobs[at].why.as_deref();
        Some((at, why.unwrap_or(conclusion.as_str())))
    }

    /// A cell of a job.
    #[must_use]
    pub fn cell(&self, job: usize, key: &JobKey) -> Option<&MatrixCell> {
        self.jobs
            .get(job)?
            .cells
            .iter()
            .find(|cell| cell.key == *key)
    }

    /// The run is cancelled.
    pub fn cancel(&mut self, why: &str) {
        self.cancelled.get_or_insert_with(|| why.to_owned());
    }

    /// The jobs of it and of the workflows it calls that should be under way now.
    #[must_use]
    pub fn active(&self) -> Vec<&MatrixCell> {
        let mut found = Vec::new();
        self.add_active(&mut found);
        found
    }

    fn add_active<'p>(&'p self, found: &mut Vec<&'p MatrixCell>) {
        let jobs = self.jobs.iter().filter(|job| !job.is_over());
        for cell in jobs.flat_map(JobProgress::active) {
            match &cell.called {
                None => found.push(cell),
                Some(called) => called.progress.add_active(found),
            }
        }
    }

    /// All jobs that it has become, calls and what they lead to among them.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.counts.size
    }

    /// A job may start. A workflow that it calls has `called` jobs.
    pub(super) fn expand(&mut self, job: usize, expanded: JobExpansion, called: usize) {
        if let Some(job) = self.jobs.get_mut(job) {
            self.counts.size += expanded.cells.len();
            (job.cells, job.fail_fast, job.max_parallel) =
                (expanded.cells, expanded.fail_fast, expanded.max_parallel);
            for inner in job.cells.iter_mut().filter_map(|cell| cell.called.as_mut()) {
                inner.progress = Self::new(called);
            }
        }
    }

    /// Stops a cell of a job, and cancels the workflow that it calls.
    pub fn stop(&mut self, job: usize, key: &JobKey, why: &str) {
        let Some(job) = self.jobs.get_mut(job) else {
            return;
        };
        let mut cells = job.cells.iter_mut();
        if let Some(cell) = cells.find(|cell| cell.key == *key) {
            cell.stopping.get_or_insert_with(|| why.to_owned());
            if let Some(called) = &mut cell.called {
                called.progress.cancel(why);
            }
        }
    }

    /// A cell of a job has ended. Its outputs are the job's; of several cells the last to end wins.
    pub fn end_cell(
        &mut self,
        job: usize,
        key: &JobKey,
        outcome: Conclusion,
        outputs: &[(String, String)],
        why: Option<&str>,
    ) {
        let Some(job) = self.jobs.get_mut(job) else {
            return;
        };
        let Some(cell) = job
            .cells
            .iter_mut()
            .find(|cell| cell.key == *key && cell.outcome.is_none())
        else {
            return;
        };
        cell.outcome = Some(outcome);
        let counts = cell.conclusion();
        for (name, value) in outputs {
            match job
                .outputs
                .iter_mut()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                Some((_, known)) if !value.is_empty() => known.clone_from(value),
                Some(_) => {}
                None => job.outputs.push((name.clone(), value.clone())),
            }
        }
        let is_bad = match counts {
            Some(Conclusion::Failure | Conclusion::Cancelled | Conclusion::Incomplete) => true,
            Some(Conclusion::Success | Conclusion::Skipped) | None => false,
        };
        if is_bad && job.why.is_none() {
            job.why = why.map(str::to_owned);
        }
    }

    /// A job has ended, or will never start.
    pub fn end(&mut self, job: usize, needs: &[usize], result: Conclusion, why: Option<String>) {
        let clear =
            result == Conclusion::Success && needs.iter().all(|&need| self.jobs[need].clear);
        let tainted =
            result == Conclusion::Failure || needs.iter().any(|&need| self.jobs[need].tainted);
        let Some(job) = self.jobs.get_mut(job) else {
            return;
        };
        if job.result.is_none() {
            self.counts.over += 1;
        }
        (job.result, job.clear, job.tainted) = (Some(result), clear, tainted);
        if job.why.is_none() {
            job.why = why;
        }
    }
}

/// What a job that may start becomes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobExpansion {
    /// Its combinations, or itself alone.
    pub cells: Vec<MatrixCell>,
    /// Whether one failed cell stops the others.
    pub fail_fast: bool,
    /// How many cells run at once.
    pub max_parallel: Option<usize>,
}
