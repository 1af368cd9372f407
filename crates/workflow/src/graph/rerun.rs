//! Re-runs: which progress is reset and which is preserved. Pure. Jobs that depend on a re-run job are
//! re-run too, because their inputs may have changed.

use serde::{Deserialize, Serialize};

use super::{
    JobGraph,
    progress::{JobProgress, MatrixCell, WorkflowProgress},
};
use crate::{
    job::{Conclusion, JobKey},
    model::Workflow,
};

/// Which jobs are run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RerunSelection {
    /// All.
    All,
    /// Those that failed or were cancelled, of a matrix these alone; and those after them.
    Failed,
    /// One, or all of its matrix, or all that it calls; and those after it.
    Job(JobKey),
}

/// Resets the progress of the jobs to re-run; returns the keys of the cells that had started.
pub(super) fn forget(
    graph: &JobGraph,
    workflow: &Workflow,
    progress: &mut WorkflowProgress,
    again: &RerunSelection,
) -> Vec<JobKey> {
    let mut forgotten = Vec::new();
    ProgressReset {
        again,
        forgotten: &mut forgotten,
    }
    .workflow(graph, workflow, progress, None);
    forgotten
}

struct ProgressReset<'a> {
    again: &'a RerunSelection,
    forgotten: &'a mut Vec<JobKey>,
}

impl ProgressReset<'_> {
    fn workflow(
        &mut self,
        graph: &JobGraph,
        workflow: &Workflow,
        progress: &mut WorkflowProgress,
        caller: Option<&JobKey>,
    ) {
        progress.cancelled = None;
        let chosen: Vec<usize> = (0..workflow.jobs.len())
            .filter(|&at| {
                let id = &workflow.jobs[at].id;
                let key = super::expansion::key_of(caller, id, None);
                self.takes_job(&key, &progress.jobs[at])
            })
            .collect();
        let mut after = vec![false; workflow.jobs.len()];
        let mut open: Vec<usize> = chosen.clone();
        while let Some(job) = open.pop() {
            for &next in &graph.dependents[job] {
                if !std::mem::replace(&mut after[next], true) {
                    open.push(next);
                }
            }
        }
        for (at, after) in after.into_iter().enumerate() {
            if after {
                self.whole(&mut progress.jobs[at]);
            } else if chosen.contains(&at) {
                self.part(graph, at, &mut progress.jobs[at]);
            }
        }
    }

    fn takes_job(&self, key: &JobKey, job: &JobProgress) -> bool {
        match self.again {
            RerunSelection::All => true,
            RerunSelection::Failed => matches!(
                job.result,
                Some(Conclusion::Failure | Conclusion::Cancelled | Conclusion::Incomplete)
            ),
            RerunSelection::Job(wanted) => {
                leads_to(key, wanted) || job.cells.iter().any(|cell| leads_to(&cell.key, wanted))
            }
        }
    }

    fn takes_cell(&self, job: &JobProgress, cell: &MatrixCell) -> bool {
        match self.again {
            RerunSelection::All => true,
            RerunSelection::Failed => !matches!(
                cell.conclusion(),
                Some(Conclusion::Success | Conclusion::Skipped)
            ),
            // A key without a cell selects the whole matrix.
            RerunSelection::Job(wanted) => {
                leads_to(&cell.key, wanted)
                    || !job.cells.iter().any(|cell| leads_to(&cell.key, wanted))
            }
        }
    }

    /// A job that starts from nothing.
    fn whole(&mut self, job: &mut JobProgress) {
        job.cells.iter().for_each(|cell| self.add(cell));
        *job = JobProgress::default();
    }

    fn add(&mut self, cell: &MatrixCell) {
        self.forgotten.push(cell.key.clone());
        let called = cell.called.iter().flat_map(|called| &called.progress.jobs);
        called
            .flat_map(|job| &job.cells)
            .for_each(|cell| self.add(cell));
    }

    /// A job of which only some cells are re-run. The outputs of the other cells are preserved.
    fn part(&mut self, graph: &JobGraph, at: usize, job: &mut JobProgress) {
        let taken: Vec<bool> = (job.cells.iter())
            .map(|cell| self.takes_cell(job, cell))
            .collect();
        if *self.again == RerunSelection::All || !taken.contains(&true) {
            return self.whole(job);
        }
        for (cell, _) in job.cells.iter_mut().zip(taken).filter(|(_, taken)| *taken) {
            (cell.outcome, cell.stopping) = (None, None);
            let key = cell.key.clone();
            let inside = match self.again {
                RerunSelection::All => false,
                RerunSelection::Failed => true,
                RerunSelection::Job(wanted) => *wanted != key && leads_to(&key, wanted),
            };
            match (cell.called.as_deref_mut(), graph.call(at)) {
                (Some(called), Some(unit)) if inside && !called.progress.jobs.is_empty() => {
                    self.forgotten.push(key.clone());
                    self.workflow(
                        &unit.graph,
                        &unit.workflow,
                        &mut called.progress,
                        Some(&key),
                    );
                }
                (Some(called), Some(unit)) => {
                    self.forgotten.push(key);
                    let jobs = called.progress.jobs.iter();
                    jobs.flat_map(|job| &job.cells)
                        .for_each(|cell| self.add(cell));
                    called.progress = WorkflowProgress::new(unit.workflow.jobs.len());
                }
                _ => self.forgotten.push(key),
            }
        }
        (job.result, job.why, job.clear, job.tainted) = (None, None, false, false);
    }
}

/// Whether `key` is `wanted`, or calls lead from it there.
fn leads_to(key: &JobKey, wanted: &JobKey) -> bool {
    key == wanted || wanted.callers().any(|caller| caller == *key)
}
