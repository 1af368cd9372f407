//! Jobs that are run again: by themselves after a failure (`retry:`), and because somebody asks once the run is over.

use shipway_workflow::{
    graph::RerunSelection,
    job::{Conclusion, JobKey},
    model::RetryWhen,
};

use super::{
    decide::unknown,
    event::{Body, RUN_ATTEMPTS_MAX, Rejection},
    resume::{self, FromStep},
    state::Run,
};

/// Whether a failed attempt at a job is followed by another one; `after` says what it failed of.
pub(super) fn retries(run: &Run, key: &JobKey, after: RetryWhen) -> bool {
    let Some((found, cell)) = run.cell(key) else {
        return false;
    };
    let Some(retry) = found.workflow.jobs[found.job].retry else {
        return false;
    };
    let retried = run.jobs.get(key).map_or(0, |record| record.retried);
    cell.stopping.is_none()
        && retried < retry.max
        && (after == RetryWhen::WorkerLost || retry.when == RetryWhen::Any)
}

/// What follows from somebody's wish to run jobs again.
pub(super) fn decide(
    run: &Run,
    again: RerunSelection,
    from: Option<&FromStep>,
) -> Result<Body, Rejection> {
    let id = || run.spec.id.clone();
    if run.ended.is_none() || !run.told {
        return Err(Rejection::UnderWay(id()));
    }
    if run.attempt >= RUN_ATTEMPTS_MAX {
        return Err(Rejection::TooOften { run: id() });
    }
    let plan = run.plan().map_err(|why| Rejection::NoPlan {
        run: id(),
        why: why.to_owned(),
    })?;
    match &again {
        RerunSelection::All => {}
        RerunSelection::Failed => {
            let failed = |job: &shipway_workflow::graph::JobProgress| {
                matches!(
                    job.result,
                    Some(Conclusion::Failure | Conclusion::Cancelled | Conclusion::Incomplete)
                )
            };
            if !run.progress.jobs.iter().any(failed) {
                return Err(Rejection::NothingFailed(id()));
            }
        }
        RerunSelection::Job(key) => {
            let found = plan.graph.find(&plan.workflow, &run.progress, key);
            let found = found.ok_or_else(|| unknown(run, key))?;
            let has_cell = found.progress.cell(found.job, key).is_some();
            if !has_cell && key.as_str().rsplit('~').next() != Some(key.job_id()) {
                return Err(unknown(run, key));
            }
        }
    }
    let from = from.map(|from| resume::decide(run, &again, from));
    Ok(Body::RunAgain {
        attempt: run.attempt + 1,
        again,
        from: from.transpose()?.unwrap_or_default(),
    })
}
