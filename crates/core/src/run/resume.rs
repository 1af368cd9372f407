//! Jobs that go on in the workspace of an earlier attempt, at the step that failed there.
//!
//! What is left of an attempt is on the disk, and whoever asks tells it ([`Left`]). Whether a job may go on from there is decided
//! here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shipway_workflow::{
    expr::join_with_and,
    graph::{RerunSelection, WorkflowProgress},
    job::{Conclusion, JobKey},
};

use super::{
    event::Rejection,
    state::{JobRecord, Run},
};

/// Where jobs that run again begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromStep {
    /// The id of the step; none: the one that failed.
    pub step: Option<String>,
    /// What is left of the attempts before.
    pub left: BTreeMap<JobKey, Left>,
}

/// What is left of the last attempt at a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its workspace, and what its steps had left for later ones.
    Workspace {
        /// The id of the step that failed; none: no step did.
        failed: Option<String>,
        /// The ids of the steps that it may go on from, in order.
        steps: Vec<String>,
    },
    /// Not enough; why.
    Nothing(String),
}

/// What an attempt at a job goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoesOn {
    /// Which attempt at the job was before, from 1.
    pub attempt: u32,
    /// The id of the step that it begins at.
    pub step: String,
}

impl Run {
    /// The jobs that `again` would run again and that have failed, each with its last attempt: those may go on from a step. Jobs
    /// after others that run again are not among them: what those saw may be different now.
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

/// At which step each job goes on.
pub(super) fn decide(
    run: &Run,
    again: &RerunSelection,
    from: &FromStep,
) -> Result<Vec<(JobKey, String)>, Rejection> {
    let id = || run.spec.id.clone();
    let jobs = run.may_go_on(again);
    match (jobs.as_slice(), &from.step) {
        ([], _) => return Err(Rejection::NoneFailed { run: id() }),
        ([_, _, ..], Some(step)) => {
            return Err(Rejection::StepOfSeveral {
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
            Some(Left::Workspace { failed, steps }) => (failed, steps),
            Some(Left::Nothing(why)) => {
                let why = why.clone();
                return Err(Rejection::NothingKept {
                    run: id(),
                    key,
                    why,
                });
            }
            None => {
                let why = "nothing is known of its workspace".to_owned();
                return Err(Rejection::NothingKept {
                    run: id(),
                    key,
                    why,
                });
            }
        };
        let step = match (&from.step, failed) {
            (Some(step), _) if steps.contains(step) => step,
            (Some(step), _) => {
                return Err(Rejection::NotFromThere {
                    run: id(),
                    key,
                    step: step.clone(),
                    known: join_with_and(steps.iter().map(String::as_str)),
                });
            }
            (None, Some(failed)) => failed,
            (None, None) => return Err(Rejection::NoFailedStep { run: id(), key }),
        };
        begins.push((key, step.clone()));
    }
    Ok(begins)
}

impl JobRecord {
    /// The attempt that has just begun goes on at a step of the one before.
    pub(super) fn goes_on_at(&mut self, step: &str) {
        self.goes_on = Some(GoesOn {
            attempt: self.attempt().saturating_sub(1),
            step: step.to_owned(),
        });
    }
}
