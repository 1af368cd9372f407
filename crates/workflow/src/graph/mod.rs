//! Decides which jobs may start, which are skipped, and why. Pure: a function of the workflow, its progress and the contexts of the run.
//!
//! A job is decided when all jobs that it needs have ended, by its `if`. `success()` and `failure()` consider all
//! its ancestors, so a skipped job skips its dependents. A decision costs as much as the job has edges: a run of
//! ten thousand jobs is planned in one walk.
//!
//! A job that calls a workflow is scheduled recursively: its cell holds the progress of the called jobs, and ends when they have.
//!
//! ```
//! use shipway_workflow::graph::{GraphDecision, JobGraph, RunContexts, WorkflowProgress};
//! # let source = shipway_syntax::SourceFile::new("ci.yml", "on: push\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n");
//! # let workflow = shipway_workflow::parse(&source).workflow.unwrap();
//! let graph = JobGraph::new(&workflow);
//! let mut progress = WorkflowProgress::new(workflow.jobs.len());
//! let decisions = graph.next(&workflow, &mut progress, &RunContexts::default());
//! assert!(matches!(&decisions[0], GraphDecision::Expand { job, .. } if job.as_str() == "a"));
//! ```

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    expr::{Contexts, ExprValue},
    job::{Conclusion, JobKey},
    model::Workflow,
};

#[cfg(test)]
mod call_tests;
mod calls;
mod error;
mod expansion;
mod matrix;
#[cfg(test)]
mod matrix_tests;
mod preconditions;
mod progress;
mod rerun;
mod run_name;
mod scheduler;
#[cfg(test)]
mod tests;
mod workflow_location;

pub(crate) use calls::{CallMistake, call_mistakes};
pub use calls::{CalledText, LinkedWorkflow, find_called_workflows, link_calls};
pub use error::{LinkError, RunSettingError};
pub use matrix::{CELLS_MAX, MatrixCombination, MatrixError, expand_matrix};
pub use preconditions::{ConcurrencyGroup, JobPreconditions, resolve_run_group};
pub use progress::{CalledProgress, JobExpansion, JobProgress, MatrixCell, WorkflowProgress};
pub use rerun::RerunSelection;
pub use run_name::{TITLE_MAX, in_one_line, resolve_run_name};
pub use workflow_location::{WorkflowLocation, WorkflowLocationError, resolve_call_name};

/// Jobs of one run, those of called workflows counted: what a machine can still list. GitHub's own limits multiply to more.
pub const JOBS_MAX: usize = 20_000;

/// How deep calls go, the workflow that begins counted; GitHub's limit.
pub const LEVELS_MAX: usize = 10;

/// How many workflows one may call, those called by called ones counted; GitHub's limit.
pub const CALLED_MAX: usize = 50;

/// The contexts of a job's expressions, except `needs`, `strategy` and `matrix`.
#[derive(Clone, Debug, Default)]
pub struct RunContexts {
    /// `github`
    pub github: ExprValue,
    /// `inputs`
    pub inputs: ExprValue,
    /// `vars`
    pub vars: ExprValue,
}

impl RunContexts {
    fn contexts(&self) -> Contexts<'static> {
        Contexts::new()
            .with("github", self.github.clone())
            .with("inputs", self.inputs.clone())
            .with("vars", self.vars.clone())
    }
}

/// A decision that follows from the progress of the jobs.
#[derive(Clone, Debug, PartialEq)]
pub enum GraphDecision {
    /// A job may start: these are its cells.
    Expand {
        /// Its key, without a cell.
        job: JobKey,
        /// What it becomes.
        expanded: JobExpansion,
    },
    /// A job has ended: its cells have, or it never starts.
    End {
        /// Its key, without a cell.
        job: JobKey,
        /// How.
        result: Conclusion,
        /// Why it didn't run, or failed before it could.
        why: Option<String>,
    },
    /// A cell ends of which no worker tells: it never started, or it is a call whose jobs have ended.
    EndCell {
        /// Which.
        key: JobKey,
        /// How.
        outcome: Conclusion,
        /// Outputs that later jobs can read.
        outputs: Vec<(String, String)>,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
    /// A cell that may be running must stop.
    Stop {
        /// Which.
        key: JobKey,
        /// Why.
        why: String,
    },
}

/// The edges between the jobs of a workflow, and the workflows that they call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobGraph {
    indexes: BTreeMap<String, usize>,
    needs: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
    calls: BTreeMap<usize, Arc<LinkedWorkflow>>,
}

/// Where a key leads, through the calls it names.
#[derive(Clone, Copy, Debug)]
pub struct FoundJob<'a> {
    /// The workflow that contains the job.
    pub workflow: &'a Workflow,
    /// Its edges.
    pub graph: &'a JobGraph,
    /// How far that workflow is.
    pub progress: &'a WorkflowProgress,
    /// The place of the job in it.
    pub job: usize,
    /// What the workflow was given, when it is a called one.
    pub called: Option<&'a CalledProgress>,
}

impl JobGraph {
    /// The edges of a workflow. Unknown names are left out; the parser refuses them.
    #[must_use]
    pub fn new(workflow: &Workflow) -> Self {
        let indexes = workflow
            .jobs
            .iter()
            .enumerate()
            .map(|(at, job)| (job.id.to_ascii_lowercase(), at))
            .collect();
        let count = workflow.jobs.len();
        let mut graph = Self {
            indexes,
            needs: Vec::with_capacity(count),
            dependents: vec![Vec::new(); count],
            calls: BTreeMap::new(),
        };
        for (at, job) in workflow.jobs.iter().enumerate() {
            let mut needs: Vec<usize> = job
                .needs
                .iter()
                .filter_map(|id| graph.job_index(id))
                .collect();
            needs.sort_unstable();
            needs.dedup();
            needs
                .iter()
                .for_each(|&need| graph.dependents[need].push(at));
            graph.needs.push(needs);
        }
        graph
    }

    /// The place of a job in the workflow, by its id.
    #[must_use]
    pub fn job_index(&self, id: &str) -> Option<usize> {
        self.indexes.get(&id.to_ascii_lowercase()).copied()
    }

    /// The indexes of the jobs that a job needs.
    #[must_use]
    pub fn needs(&self, job: usize) -> &[usize] {
        self.needs.get(job).map_or(&[], Vec::as_slice)
    }

    /// The workflow that the job at a place calls, when it was linked.
    #[must_use]
    pub fn call(&self, job: usize) -> Option<&Arc<LinkedWorkflow>> {
        self.calls.get(&job)
    }

    /// The job that a key names, through calls that have begun. Its cell, if it names one, need not exist.
    #[must_use]
    pub fn find<'a>(
        &'a self,
        workflow: &'a Workflow,
        progress: &'a WorkflowProgress,
        key: &JobKey,
    ) -> Option<FoundJob<'a>> {
        let mut found = FoundJob {
            workflow,
            graph: self,
            progress,
            job: 0,
            called: None,
        };
        for caller in key.callers() {
            let job = found.graph.job_index(caller.job_id())?;
            let called = found.progress.cell(job, &caller)?.called.as_deref()?;
            let unit = found.graph.call(job)?;
            found = FoundJob {
                workflow: &unit.workflow,
                graph: &unit.graph,
                progress: &called.progress,
                job: 0,
                called: Some(called),
            };
        }
        found.job = found.graph.job_index(key.job_id())?;
        Some(found)
    }

    /// As [`JobGraph::find`], for folding a fact about the job: the graph and the progress it belongs to, and its place.
    pub fn find_mut<'a>(
        &'a self,
        progress: &'a mut WorkflowProgress,
        key: &JobKey,
    ) -> Option<(&'a Self, &'a mut WorkflowProgress, usize)> {
        self.descend(progress, key, 0)
    }

    /// On the way to a job all that calls it has become `more` jobs.
    fn descend<'a>(
        &'a self,
        progress: &'a mut WorkflowProgress,
        key: &JobKey,
        more: usize,
    ) -> Option<(&'a Self, &'a mut WorkflowProgress, usize)> {
        let (mut graph, mut progress) = (self, progress);
        for caller in key.callers() {
            progress.grow(more);
            let job = graph.job_index(caller.job_id())?;
            let cells = &mut progress.jobs.get_mut(job)?.cells;
            let cell = cells.iter_mut().find(|cell| cell.key == caller)?;
            progress = &mut cell.called.as_deref_mut()?.progress;
            graph = &graph.call(job)?.graph;
        }
        let job = graph.job_index(key.job_id())?;
        Some((graph, progress, job))
    }

    /// Folds that a job may start.
    pub fn expand(&self, progress: &mut WorkflowProgress, key: &JobKey, expanded: JobExpansion) {
        let more = expanded.cells.len();
        if let Some((graph, progress, at)) = self.descend(progress, key, more) {
            progress.expand(at, expanded, graph.jobs_called(at));
        }
    }

    /// How many jobs the workflow has that a job calls; none without a call.
    #[must_use]
    pub fn jobs_called(&self, job: usize) -> usize {
        self.call(job).map_or(0, |unit| unit.workflow.jobs.len())
    }

    /// All that follows now, each already folded into `progress`.
    pub fn next(
        &self,
        workflow: &Workflow,
        progress: &mut WorkflowProgress,
        ground: &RunContexts,
    ) -> Vec<GraphDecision> {
        scheduler::decide_all(self, workflow, progress, ground, None)
    }

    /// The same, when all that has happened since nothing followed any more is that the cell `ended` has: only what hangs on it is
    /// looked at.
    pub fn next_after(
        &self,
        workflow: &Workflow,
        progress: &mut WorkflowProgress,
        ground: &RunContexts,
        ended: &JobKey,
    ) -> Vec<GraphDecision> {
        scheduler::decide_all(self, workflow, progress, ground, Some(ended))
    }

    /// Resets the progress of the jobs to re-run; returns the keys of the cells that had started.
    pub fn forget(
        &self,
        workflow: &Workflow,
        progress: &mut WorkflowProgress,
        again: &RerunSelection,
    ) -> Vec<JobKey> {
        let forgotten = rerun::forget(self, workflow, progress, again);
        progress.recount();
        forgotten
    }

    /// The `needs` context of a job.
    #[must_use]
    pub fn needs_context(
        &self,
        workflow: &Workflow,
        progress: &WorkflowProgress,
        job: usize,
    ) -> ExprValue {
        ExprValue::object(self.needs(job).iter().map(|&need| {
            let id = workflow.jobs[need].id.as_str();
            (id, Self::job_context(progress, need))
        }))
    }

    /// What other jobs see of a job: its result and outputs.
    fn job_context(progress: &WorkflowProgress, job: usize) -> ExprValue {
        let done = &progress.jobs[job];
        let outputs = done.outputs.iter();
        let outputs = outputs.map(|(name, value)| (name.as_str(), ExprValue::from(value.as_str())));
        let result = (done.result).map_or(ExprValue::Null, |result| {
            ExprValue::from(result.in_expressions())
        });
        ExprValue::object([("result", result), ("outputs", ExprValue::object(outputs))])
    }

    /// The `strategy` context of a cell.
    #[must_use]
    pub fn strategy_context(progress: &JobProgress, cell: usize) -> ExprValue {
        let job_total = progress.cells.len();
        let strategy = StrategyContext {
            fail_fast: progress.fail_fast,
            job_index: cell,
            job_total,
            max_parallel: progress.max_parallel.unwrap_or(job_total),
        };
        strategy.into()
    }
}

/// The `strategy` context of one cell.
struct StrategyContext {
    fail_fast: bool,
    job_index: usize,
    job_total: usize,
    max_parallel: usize,
}

impl From<StrategyContext> for ExprValue {
    fn from(strategy: StrategyContext) -> Self {
        Self::object([
            ("fail-fast", Self::Bool(strategy.fail_fast)),
            ("job-index", Self::Number(strategy.job_index as f64)),
            ("job-total", Self::Number(strategy.job_total as f64)),
            ("max-parallel", Self::Number(strategy.max_parallel as f64)),
        ])
    }
}
