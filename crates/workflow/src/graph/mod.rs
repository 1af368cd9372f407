//! Which jobs may start, which never will, and why. Pure: of the workflow, how far its jobs are, and what is known of the run.
//!
//! A job is looked at when all jobs that it needs have ended; its `if` decides. `success()` and `failure()` look at all
//! jobs before it, so what was skipped skips what comes after. Each look costs what the job's own edges cost: a run of
//! ten thousand jobs is planned in one walk.
//!
//! ```
//! use shipway_workflow::graph::{Decision, Graph, Ground, Progress};
//! # let source = shipway_syntax::Source::new("ci.yml", "on: push\njobs: { a: { runs-on: x, steps: [{ run: a }] } }\n");
//! # let workflow = shipway_workflow::parse(&source).workflow.unwrap();
//! let graph = Graph::of(&workflow);
//! let mut progress = Progress::of(workflow.jobs.len());
//! let decisions = graph.next(&workflow, &mut progress, &Ground::default());
//! assert!(matches!(decisions[0], Decision::Expand { job: 0, .. }));
//! ```

use std::collections::BTreeMap;

use crate::{
    expr::{Contexts, EvalError, Status, Value},
    job::{Conclusion, JobKey},
    model::{Job, Workflow},
};

mod matrix;
mod progress;
#[cfg(test)]
mod tests;

pub use matrix::{CELLS_MAX, Combination, MatrixError, expand};
pub use progress::{Cell, Expanded, JobProgress, Progress};

/// How long a job may take when it doesn't say; GitHub's.
const TIMEOUT_MINUTES: f64 = 360.0;

/// The longest time that is kept apart from "for ever": ten years.
const TIMEOUT_MINUTES_MAX: f64 = 5_256_000.0;

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

/// What follows from how far the jobs are.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// A job may start: these are its cells.
    Expand {
        /// Its place in the workflow.
        job: usize,
        /// What it becomes.
        expanded: Expanded,
    },
    /// A job has ended: its cells have, or it never starts.
    End {
        /// Its place in the workflow.
        job: usize,
        /// How.
        result: Conclusion,
        /// Why it didn't run, or failed before it could.
        why: Option<String>,
    },
    /// A cell that never started ends.
    EndCell {
        /// Which.
        key: JobKey,
        /// Why.
        why: String,
    },
    /// A cell that may be running is told to stop.
    Stop {
        /// Which.
        key: JobKey,
        /// Why.
        why: String,
    },
}

/// The edges between the jobs of a workflow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    places: BTreeMap<String, usize>,
    needs: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
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

    /// All that follows now, each already folded into `progress`.
    pub fn next(
        &self,
        workflow: &Workflow,
        progress: &mut Progress,
        ground: &Ground,
    ) -> Vec<Decision> {
        let mut walk = Walk {
            graph: self,
            workflow,
            progress,
            ground,
            decisions: Vec::new(),
        };
        // Jobs to look at, the next one last.
        let mut waiting: Vec<usize> = (0..workflow.jobs.len()).rev().collect();
        while let Some(job) = waiting.pop() {
            if walk.look(job) {
                waiting.extend(self.dependents[job].iter().rev());
            }
        }
        walk.decisions
    }

    /// The `needs` context of a job.
    #[must_use]
    pub fn needs_context(&self, workflow: &Workflow, progress: &Progress, job: usize) -> Value {
        Value::object(self.needs(job).iter().map(|&need| {
            let done = &progress.jobs[need];
            let outputs = Value::object(
                done.outputs
                    .iter()
                    .map(|(name, value)| (name.as_str(), Value::from(value.as_str()))),
            );
            let result = done
                .result
                .map_or(Value::Null, |result| Value::from(result.as_str()));
            (
                workflow.jobs[need].id.as_str(),
                Value::object([("result", result), ("outputs", outputs)]),
            )
        }))
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

struct Walk<'a> {
    graph: &'a Graph,
    workflow: &'a Workflow,
    progress: &'a mut Progress,
    ground: &'a Ground,
    decisions: Vec<Decision>,
}

impl Walk<'_> {
    /// Decides what can be decided of a job; true when it has ended by that.
    fn look(&mut self, job: usize) -> bool {
        let state = &self.progress.jobs[job];
        if state.is_over()
            || !self.graph.needs[job]
                .iter()
                .all(|&need| self.progress.jobs[need].is_over())
        {
            return false;
        }
        if state.cells.is_empty() {
            self.begin(job)
        } else {
            self.watch(job)
        }
    }

    fn end(&mut self, job: usize, result: Conclusion, why: Option<String>) -> bool {
        self.progress
            .end(job, &self.graph.needs[job], result, why.clone());
        self.decisions.push(Decision::End { job, result, why });
        true
    }

    /// A job whose needs have ended: it starts, is skipped, or fails before it could.
    fn begin(&mut self, job: usize) -> bool {
        let description = &self.workflow.jobs[job];
        let contexts = self.contexts(job);
        let outcome = match description.if_.holds(&contexts) {
            Err(error) => {
                return self.end(
                    job,
                    Conclusion::Failure,
                    Some(explained(description, "if", &error)),
                );
            }
            Ok(false) if self.progress.cancelled.is_some() => {
                let why = format!(
                    "the run was cancelled: {}",
                    self.progress.cancelled.as_deref().unwrap_or_default()
                );
                return self.end(job, Conclusion::Cancelled, Some(why));
            }
            Ok(false) => return self.end(job, Conclusion::Skipped, Some(self.why_skipped(job))),
            Ok(true) => match description.unsupported() {
                Some(why) => Err(why),
                None => expanded(description, contexts),
            },
        };
        match outcome {
            Err(why) => self.end(job, Conclusion::Failure, Some(why)),
            Ok(expanded) => {
                self.progress.expand(job, expanded.clone());
                self.decisions.push(Decision::Expand { job, expanded });
                false
            }
        }
    }

    /// A job that has started: whether its cells have ended, or must be stopped.
    fn watch(&mut self, job: usize) -> bool {
        if let Some(why) = self.why_stop(job) {
            self.stop(job, &why);
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
        let result = [Conclusion::Failure, Conclusion::Cancelled]
            .into_iter()
            .find(|conclusion| any(*conclusion));
        let why = state.why.clone();
        self.end(job, result.unwrap_or(Conclusion::Success), why)
    }

    /// Why all cells of a job that haven't ended should: a sister failed, or the run was cancelled and its `if` agrees.
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
        let why = self.progress.cancelled.as_ref()?;
        // A condition that can't be asked any more protects nothing.
        let goes_on = self.workflow.jobs[job]
            .if_
            .holds(&self.contexts(job))
            .unwrap_or_default();
        (!goes_on).then(|| format!("the run was cancelled: {why}"))
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
            self.decisions.push(Decision::EndCell {
                key,
                why: why.to_owned(),
            });
        }
        for key in active {
            self.progress.stop(job, &key, why);
            self.decisions.push(Decision::Stop {
                key,
                why: why.to_owned(),
            });
        }
    }

    fn contexts(&self, job: usize) -> Contexts<'static> {
        let needs = &self.graph.needs[job];
        let cancelled = self.progress.cancelled.is_some();
        let status = Status {
            success: !cancelled && needs.iter().all(|&need| self.progress.jobs[need].clear),
            failure: needs.iter().any(|&need| self.progress.jobs[need].tainted),
            cancelled,
        };
        Contexts::new()
            .with("github", self.ground.github.clone())
            .with("inputs", self.ground.inputs.clone())
            .with("vars", self.ground.vars.clone())
            .with(
                "needs",
                self.graph.needs_context(self.workflow, self.progress, job),
            )
            .with_status(status)
    }

    /// Which job before it is to blame, or its own condition.
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

fn explained(job: &Job, what: &str, error: &EvalError) -> String {
    format!(
        "the `{what}` of the job `{}` (line {}) has no value: {error}",
        job.id, job.at.line
    )
}

/// The cells of a job that may start.
fn expanded(job: &Job, contexts: Contexts<'static>) -> Result<Expanded, String> {
    let strategy_of = job.strategy.as_ref();
    let fail_fast = strategy_of
        .map_or(Ok(true), |strategy| strategy.fail_fast.resolve(&contexts))
        .map_err(|error| explained(job, "fail-fast", &error))?;
    let most = strategy_of
        .and_then(|strategy| strategy.max_parallel.as_ref())
        .map(|setting| setting.resolve(&contexts))
        .transpose();
    let max_parallel = most
        .map_err(|error| explained(job, "max-parallel", &error))?
        .map(|most| (most as usize).max(1));
    let combinations = match strategy_of.and_then(|strategy| strategy.matrix.as_ref()) {
        None => vec![None],
        Some(matrix) => {
            let made = expand(matrix, &contexts).map_err(|error| {
                format!(
                    "the matrix of the job `{}` (line {}): {error}",
                    job.id, job.at.line
                )
            })?;
            made.into_iter().map(Some).collect()
        }
    };
    let total = combinations.len();
    let mut cells = Vec::with_capacity(total);
    for (index, combination) in combinations.into_iter().enumerate() {
        let contexts = contexts
            .clone()
            .with(
                "strategy",
                strategy(fail_fast, index, total, max_parallel.unwrap_or(total)),
            )
            .with(
                "matrix",
                combination
                    .as_ref()
                    .map(|combination| combination.values.clone())
                    .unwrap_or_default(),
            );
        cells.push(cell(job, index, combination, &contexts)?);
    }
    Ok(Expanded {
        cells,
        fail_fast,
        max_parallel,
    })
}

fn cell(
    job: &Job,
    index: usize,
    combination: Option<Combination>,
    contexts: &Contexts<'_>,
) -> Result<Cell, String> {
    let label = combination
        .as_ref()
        .map(|combination| combination.label.as_str())
        .unwrap_or_default();
    let name = match &job.name {
        Some(name) if name.as_literal().is_none() => matrix::name(
            &name
                .resolve_text(contexts)
                .map_err(|error| explained(job, "name", &error))?,
            "",
        ),
        Some(name) => matrix::name(name.text(), label),
        None => matrix::name(&job.id, label),
    };
    let minutes = job
        .timeout_minutes
        .as_ref()
        .map(|setting| setting.resolve(contexts))
        .transpose();
    let minutes = minutes
        .map_err(|error| explained(job, "timeout-minutes", &error))?
        .unwrap_or(TIMEOUT_MINUTES);
    Ok(Cell {
        key: JobKey::new(&job.id, combination.is_some().then_some(index)),
        name,
        matrix: combination
            .map(|combination| combination.values)
            .unwrap_or_default(),
        continue_on_error: job
            .continue_on_error
            .resolve(contexts)
            .map_err(|error| explained(job, "continue-on-error", &error))?,
        timeout_ms: (minutes.min(TIMEOUT_MINUTES_MAX) * 60_000.0) as u64,
        stopping: None,
        outcome: None,
    })
}
