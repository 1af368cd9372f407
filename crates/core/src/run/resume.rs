//! Jobs that resume in the workspace of an earlier attempt, at the step that failed there.
//!
//! The leftovers of an attempt are on disk; the caller reports them ([`LeftoverState`]). Whether a job may be resumed from them is
//! decided here.

use shipway_workflow::{
    expr::join_with_and,
    graph::{RerunSelection, WorkflowProgress},
    job::{Conclusion, JobKey},
};

use super::{
    event::RunRejection,
    resume_point::{FromStep, LeftoverState},
    state::Run,
};

impl Run {
    /// The failed jobs that `again` would run again, each with its last attempt: those may be resumed. Jobs that depend on
    /// others that run again are excluded: their inputs may change.
    #[must_use]
    pub fn may_go_on(&self, again: &RerunSelection) -> Vec<(JobKey, u32)> {
        let Ok(plan) = self.plan() else {
            return Vec::new();
        };
        let mut progress = self.progress.clone();
        let forgotten = plan.graph.forget(&plan.workflow, &mut progress, again);
        let mut kept = Vec::new();
        add_cells(&progress, &mut kept);
        let begun = |key: &JobKey| {
            let (_, cell) = self.cell(key)?;
            let failed = cell.outcome.filter(|it| *it != Conclusion::Success);
            let record = self.jobs.get(key).filter(|_| failed.is_some())?;
            record.started_at.map(|_| (key.clone(), record.attempt()))
        };
        let stays = forgotten.iter().filter(|key| kept.contains(key));
        stays.filter_map(begun).collect()
    }
}

/// The keys of the jobs that are still known, but for calls.
fn add_cells<'p>(progress: &'p WorkflowProgress, found: &mut Vec<&'p JobKey>) {
    for cell in progress.jobs.iter().flat_map(|job| job.cells.iter()) {
        match &cell.called {
            None => found.push(&cell.key),
            Some(called) => add_cells(&called.progress, found),
        }
    }
}

/// The step at which each job resumes.
pub(super) fn decide(
    run: &Run,
    again: &RerunSelection,
    from: &FromStep,
) -> Result<Vec<(JobKey, String)>, RunRejection> {
    let id = || run.spec.id.clone();
    let jobs = run.may_go_on(again);
    match (jobs.as_slice(), &from.step) {
        ([], _) => return Err(RunRejection::NoneFailed { run: id() }),
        ([_, _, ..], Some(step)) => {
            return Err(RunRejection::StepOfSeveral {
                run: id(),
                step: step.clone(),
                jobs: join_with_and(jobs.iter().take(20).map(|(key, _)| key.as_str())),
            });
        }
        _ => {}
    }
    let mut begins = Vec::new();
    for (key, _) in jobs {
        let (failed, steps) = match from.left.get(&key) {
            Some(LeftoverState::Workspace { failed, steps }) => (failed, steps),
            Some(LeftoverState::Nothing(why)) => {
                let why = why.clone();
                return Err(RunRejection::NothingKept {
                    run: id(),
                    key,
                    why,
                });
            }
            None => {
                let why = "nothing is known of its workspace".to_owned();
                return Err(RunRejection::NothingKept {
                    run: id(),
                    key,
                    why,
                });
            }
        };
        let step = match (&from.step, failed) {
            (Some(step), _) if steps.contains(step) => step,
            (Some(step), _) => {
                return Err(RunRejection::NotFromThere {
                    run: id(),
                    key,
                    step: step.clone(),
                    known: join_with_and(steps.iter().map(String::as_str)),
                });
            }
            (None, Some(failed)) => failed,
            (None, None) => return Err(RunRejection::NoFailedStep { run: id(), key }),
        };
        begins.push((key, step.clone()));
    }
    Ok(begins)
}
