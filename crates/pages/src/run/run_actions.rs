//! The actions that apply to a run, each with a description of its effect.

use serde_json::json;
use shipway_core::run::{JobView, RunStatus, RunView};

use crate::{
    action_button::{ActionButton, ButtonTone, ReasonField},
    foreign_text::cut_text,
};

/// Names of jobs that an effect lists before it counts them.
const NAMES_MAX: usize = 4;

/// The actions that apply to a run now.
pub(super) fn run_actions(run: &RunView) -> Vec<ActionButton> {
    match run.status {
        RunStatus::Waiting | RunStatus::Queued | RunStatus::Running => vec![cancel(run)],
        RunStatus::Success => vec![rerun_all(run)],
        RunStatus::Failure | RunStatus::Cancelled | RunStatus::Incomplete => {
            let mut actions = Vec::new();
            let failed = failed_jobs(run);
            if !failed.is_empty() {
                if failed.iter().any(|job| has_failed_step(job)) {
                    actions.push(resume_failed(run, &failed));
                }
                actions.push(rerun_failed(run, &failed));
            }
            actions.push(rerun_all(run));
            actions
        }
        RunStatus::Skipped => vec![rerun_all(run)],
    }
}

fn failed_jobs(run: &RunView) -> Vec<&JobView> {
    let is_over = |job: &&JobView| {
        matches!(
            job.status,
            RunStatus::Failure | RunStatus::Cancelled | RunStatus::Incomplete
        )
    };
    run.jobs
        .iter()
        .filter(|job| job.calls.is_none())
        .filter(is_over)
        .collect()
}

fn has_failed_step(job: &JobView) -> bool {
    job.steps
        .iter()
        .any(|step| step.status == RunStatus::Failure)
}

fn names(jobs: &[&JobView]) -> String {
    let mut names: Vec<String> = jobs
        .iter()
        .take(NAMES_MAX)
        .map(|job| cut_text(&job.name, 60))
        .collect();
    if jobs.len() > NAMES_MAX {
        names.push(format!("{} more", jobs.len() - NAMES_MAX));
    }
    names.join(", ")
}

fn rerun(
    run: &RunView,
    label: &'static str,
    body: serde_json::Value,
    effect: String,
    flag: &str,
) -> ActionButton {
    let id = &run.id;
    ActionButton {
        label,
        address: format!("/api/v1/runs/{}/{}/rerun", id.service, id.number.0),
        body,
        effect,
        command: format!("shipway retry {id}{flag}"),
        reason: ReasonField::Absent,
        tone: ButtonTone::Plain,
    }
}

fn resume_failed(run: &RunView, failed: &[&JobView]) -> ActionButton {
    let next = run.attempt + 1;
    let effect = format!(
        "Attempt {next} of {} resumes {} at the failed step, in the workspace as that step left it. Earlier steps and successful jobs are not run again; jobs that need the resumed ones follow.",
        run.id,
        names(failed)
    );
    let body = json!({ "from_failed_step": true });
    rerun(
        run,
        "Re-run from the failed step",
        body,
        effect,
        " --from-failed-step",
    )
}

fn rerun_failed(run: &RunView, failed: &[&JobView]) -> ActionButton {
    let next = run.attempt + 1;
    let effect = format!(
        "Attempt {next} of {} runs {} from the first step, and the jobs that need them. Successful jobs keep their results and outputs.",
        run.id,
        names(failed)
    );
    rerun(
        run,
        "Re-run failed jobs",
        json!({ "failed": true }),
        effect,
        " --failed",
    )
}

fn rerun_all(run: &RunView) -> ActionButton {
    let next = run.attempt + 1;
    let effect = format!(
        "Attempt {next} of {} runs all jobs from the first step, on the same commit {}. Results of earlier attempts stay readable.",
        run.id,
        run.commit.short()
    );
    rerun(run, "Re-run all jobs", json!({}), effect, "")
}

fn cancel(run: &RunView) -> ActionButton {
    let id = &run.id;
    let running = run
        .jobs
        .iter()
        .filter(|job| job.status == RunStatus::Running)
        .count();
    ActionButton {
        label: "Cancel run",
        address: format!("/api/v1/runs/{}/{}/cancel", id.service, id.number.0),
        body: json!({}),
        effect: format!(
            "{id} ends as cancelled: {running} running jobs are stopped after their clean-up steps, and jobs that have not started never start. No release is made from it."
        ),
        command: format!("shipway cancel {id}"),
        reason: ReasonField::Optional,
        tone: ButtonTone::Strong,
    }
}
