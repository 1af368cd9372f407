//! Re-runs: automatic ones after a failure (`retry:`), and those that a person requests once the run has ended.

use shipway_workflow::{
    graph::RerunSelection,
    job::{Conclusion, JobKey},
    model::RetryWhen,
};

use super::{
    event::{RUN_ATTEMPTS_MAX, RunEvent, RunRejection},
    job_lookup::unknown,
    resume,
    resume_point::FromStep,
    state::Run,
};

/// Whether a failed attempt of a job is followed by another one; `after` is the kind of failure.
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

/// Decides on a person's request to run jobs again.
pub(super) fn decide(
    run: &Run,
    again: RerunSelection,
    from: Option<&FromStep>,
) -> Result<RunEvent, RunRejection> {
    let id = || run.spec.id.clone();
    if run.ended.is_none() || !run.service_notified {
        return Err(RunRejection::UnderWay(id()));
    }
    if run.attempt >= RUN_ATTEMPTS_MAX {
        return Err(RunRejection::TooOften { run: id() });
    }
    let plan = run.plan().map_err(|why| RunRejection::NoPlan {
        run: id(),
        why: why.to_string(),
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
                return Err(RunRejection::NothingFailed(id()));
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
    Ok(RunEvent::RerunStarted {
        attempt: run.attempt + 1,
        again,
        from: from.transpose()?.unwrap_or_default(),
    })
}
