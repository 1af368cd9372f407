//! Finds jobs of a run by their keys, with the refusal where there is none.

use shipway_workflow::{
    expr::join_with_and,
    graph::{MatrixCell, WorkflowProgress},
    job::JobKey,
};

use super::{event::RunRejection, state::Run};

/// Whether no more reports about a job are expected.
pub(super) fn is_over(run: &Run, key: &JobKey) -> Result<bool, RunRejection> {
    // Of a call no worker tells: it ends with its jobs.
    match run.cell(key).filter(|(_, cell)| cell.called.is_none()) {
        Some((_, cell)) => Ok(cell.outcome.is_some()),
        None => Err(unknown(run, key)),
    }
}

/// The run has no job of this key.
pub(super) fn unknown(run: &Run, key: &JobKey) -> RunRejection {
    let mut cells = Vec::new();
    add_cells(&run.progress, &mut cells);
    let known = join_with_and(cells.iter().take(20).map(|cell| cell.key.as_str()));
    RunRejection::UnknownJob {
        run: run.spec.id.clone(),
        key: key.clone(),
        known,
    }
}

/// The jobs that have been ready, but for calls.
fn add_cells<'p>(progress: &'p WorkflowProgress, found: &mut Vec<&'p MatrixCell>) {
    for cell in progress.jobs.iter().flat_map(|job| &job.cells) {
        match &cell.called {
            None => found.push(cell),
            Some(called) => add_cells(&called.progress, found),
        }
    }
}
