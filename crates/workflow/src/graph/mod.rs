//! Which jobs may start, which never will, and why. Pure: of the workflow, how far its jobs are, and what is known of the run.
//!
//! A job is looked at when all jobs that it needs have ended; its `if` decides. `success()` and `failure()` look at all
//! jobs before it, so what was skipped skips what comes after. Each look costs what the job's own edges cost: a run of
//! ten thousand jobs is planned in one walk.
//!
//! A job that calls a workflow is a walk inside the walk: its cell holds how far the called jobs are, and ends when they have.
//!
//! ```
//! use shipway_workflow::graph::{Decision, Graph, Ground, Progress};
//! # let source = shipway_syntax::Source::new("ci.yml", "on: push\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n");
//! # let workflow = shipway_workflow::parse(&source).workflow.unwrap();
//! let graph = Graph::of(&workflow);
//! let mut progress = Progress::of(workflow.jobs.len());
//! let decisions = graph.next(&workflow, &mut progress, &Ground::default());
//! assert!(matches!(&decisions[0], Decision::Expand { job, .. } if job.as_str() == "a"));
//! ```

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    expr::{Contexts, Value},
    job::{Conclusion, JobKey},
    model::Workflow,
};

mod again;
#[cfg(test)]
mod call_tests;
mod calls;
mod cells;
mod gate;
mod matrix;
#[cfg(test)]
mod matrix_tests;
mod progress;
#[cfg(test)]
mod tests;
mod title;
mod walk;

pub use again::Again;
pub use calls::{CALLED_MAX, CalledText, LEVELS_MAX, Place, Unit, called_by, link, name_of_call};
pub(crate) use calls::{CallMistake, call_mistakes};
pub use gate::{Gate, Group, group_of_run};
pub use matrix::{CELLS_MAX, Combination, MatrixError, expand};
pub use progress::{Called, Cell, Expanded, JobProgress, Progress};
pub use title::{TITLE_MAX, in_one_line, run_name};

/// Jobs of one run, those of called workflows counted: what a machine can still list. GitHub's own limits multiply to more.
pub const JOBS_MAX: usize = 20_000;

/// What expressions of jobs see beside `needs`, `strategy` and `matrix`.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// `github`
    pub github: Value,
    /// `inputs`
    pub inputs: Value,
    /// `vars`
    pub vars: Value,
}

impl Ground {
    fn contexts(&self) -> Contexts<'static> {
        Contexts::new()
            .with("github", self.github.clone())
            .with("inputs", self.inputs.clone())
            .with("vars", self.vars.clone())
    }
}

/// What follows from how far the jobs are.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// A job may start: these are its cells.
    Expand {
        /// Its key, without a cell.
        job: JobKey,
        /// What it becomes.
        expanded: Expanded,
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
        /// What later jobs see of it.
        outputs: Vec<(String, String)>,
        /// Why, when it didn't succeed.
        why: Option<String>,
    },
    /// A cell that may be running is told to stop.
    Stop {
        /// Which.
        key: JobKey,
        /// Why.
        why: String,
    },
}

/// The edges between the jobs of a workflow, and the workflows that they call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    places: BTreeMap<String, usize>,
    needs: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
    calls: BTreeMap<usize, Arc<Unit>>,
}

/// Where a key leads, through the calls it names.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The workflow that the job stands in.
    pub workflow: &'a Workflow,
    /// Its edges.
    pub graph: &'a Graph,
    /// How far that workflow is.
    pub progress: &'a Progress,
    /// The place of the job in it.
    pub job: usize,
    /// What the workflow was given, when it is a called one.
    pub called: Option<&'a Called>,
}

impl Graph {
    /// The edges of a workflow. Unknown names are left out; the parser refuses them.
    #[must_use]
    pub fn of(workflow: &Workflow) -> Self {
        let places = workflow
            .jobs
            .iter()
            .enumerate()
            .map(|(at, job)| (job.id.to_ascii_lowercase(), at))
            .collect();
        let count = workflow.jobs.len();
        let mut graph = Self {
            places,
            needs: Vec::with_capacity(count),
            dependents: vec![Vec::new(); count],
            calls: BTreeMap::new(),
        };
        for (at, job) in workflow.jobs.iter().enumerate() {
            let mut needs: Vec<usize> = job.needs.iter().filter_map(|id| graph.place(id)).collect();
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
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(&id.to_ascii_lowercase()).copied()
    }

    /// The places of the jobs that a job needs.
    #[must_use]
    pub fn needs(&self, job: usize) -> &[usize] {
        self.needs.get(job).map_or(&[], Vec::as_slice)
    }

    /// The workflow that the job at a place calls, when it was linked.
    #[must_use]
    pub fn call(&self, job: usize) -> Option<&Arc<Unit>> {
        self.calls.get(&job)
    }

    /// The job that a key names, through calls that have begun. Its cell, if it names one, need not exist.
    #[must_use]
    pub fn find<'a>(
        &'a self,
        workflow: &'a Workflow,
        progress: &'a Progress,
        key: &JobKey,
    ) -> Option<Found<'a>> {
        let mut found = Found {
            workflow,
            graph: self,
            progress,
            job: 0,
            called: None,
        };
        for caller in key.callers() {
            let job = found.graph.place(caller.job_id())?;
            let called = found.progress.cell(job, &caller)?.called.as_deref()?;
            let unit = found.graph.call(job)?;
            found = Found {
                workflow: &unit.workflow,
                graph: &unit.graph,
                progress: &called.progress,
                job: 0,
                called: Some(called),
            };
        }
        found.job = found.graph.place(key.job_id())?;
        Some(found)
    }

    /// As [`Graph::find`], for folding a fact about the job: the graph and the progress it belongs to, and its place.
    pub fn find_mut<'a>(
        &'a self,
        progress: &'a mut Progress,
        key: &JobKey,
    ) -> Option<(&'a Self, &'a mut Progress, usize)> {
        self.descend(progress, key, 0)
    }

    /// On the way to a job all that calls it has become `more` jobs.
    fn descend<'a>(
        &'a self,
        progress: &'a mut Progress,
        key: &JobKey,
        more: usize,
    ) -> Option<(&'a Self, &'a mut Progress, usize)> {
        let (mut graph, mut progress) = (self, progress);
        for caller in key.callers() {
            progress.grow(more);
            let job = graph.place(caller.job_id())?;
            let cells = &mut progress.jobs.get_mut(job)?.cells;
            let cell = cells.iter_mut().find(|cell| cell.key == caller)?;
            progress = &mut cell.called.as_deref_mut()?.progress;
            graph = &graph.call(job)?.graph;
        }
        let job = graph.place(key.job_id())?;
        Some((graph, progress, job))
    }

    /// Folds that a job may start.
    pub fn expand(&self, progress: &mut Progress, key: &JobKey, expanded: Expanded) {
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
        progress: &mut Progress,
        ground: &Ground,
    ) -> Vec<Decision> {
        walk::all(self, workflow, progress, ground, None)
    }

    /// The same, when all that has happened since nothing followed any more is that the cell `ended` has: only what hangs on it is
    /// looked at.
    pub fn next_after(
        &self,
        workflow: &Workflow,
        progress: &mut Progress,
        ground: &Ground,
        ended: &JobKey,
    ) -> Vec<Decision> {
        walk::all(self, workflow, progress, ground, Some(ended))
    }

    /// Forgets how the jobs went that are run again; gives the keys of those of them that had begun.
    pub fn forget(
        &self,
        workflow: &Workflow,
        progress: &mut Progress,
        again: &Again,
    ) -> Vec<JobKey> {
        let forgotten = again::forget(self, workflow, progress, again);
        progress.recount();
        forgotten
    }

    /// The `needs` context of a job.
    #[must_use]
    pub fn needs_context(&self, workflow: &Workflow, progress: &Progress, job: usize) -> Value {
        Value::object(self.needs(job).iter().map(|&need| {
            let id = workflow.jobs[need].id.as_str();
            (id, Self::job_context(progress, need))
        }))
    }

    /// What other jobs see of a job: its result and outputs.
    fn job_context(progress: &Progress, job: usize) -> Value {
        let done = &progress.jobs[job];
        let outputs = done.outputs.iter();
        let outputs = outputs.map(|(name, value)| (name.as_str(), Value::from(value.as_str())));
        let result =
            (done.result).map_or(Value::Null, |result| Value::from(result.in_expressions()));
        Value::object([("result", result), ("outputs", Value::object(outputs))])
    }

    /// The `strategy` context of a cell.
    #[must_use]
    pub fn strategy_context(progress: &JobProgress, cell: usize) -> Value {
        let (total, most) = (progress.cells.len(), progress.max_parallel);
        strategy(progress.fail_fast, cell, total, most.unwrap_or(total))
    }
}

fn strategy(fail_fast: bool, index: usize, total: usize, most: usize) -> Value {
    Value::object([
        ("fail-fast", Value::Bool(fail_fast)),
        ("job-index", Value::Number(index as f64)),
        ("job-total", Value::Number(total as f64)),
        ("max-parallel", Value::Number(most as f64)),
    ])
}
