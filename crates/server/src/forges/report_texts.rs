//! Runs and rollouts as reports for a forge.

use std::time::Duration;

use shipway_core::{
    duration_text::DurationText,
    forge::{CommitStatusReport, DeploymentReport, ReportedProgress, workflow_context},
    ids::{CommitId, EnvironmentName, RolloutId, RunId},
    release::{Commit, Release},
    rollout::{RolloutOutcome, RolloutSpec},
    run::Run,
    service::{RunOrder, RunPurpose},
};

/// The commit that the forge knows, and the pull request that a run is for.
fn reported_commit(purpose: &RunPurpose, commit: &Commit) -> (CommitId, Option<u64>) {
    match purpose {
        RunPurpose::PullRequest { number, head, .. } => (head.clone(), Some(*number)),
        RunPurpose::Push { .. }
        | RunPurpose::Dispatch
        | RunPurpose::ByItself
        | RunPurpose::Tests { .. } => (commit.id.clone(), None),
    }
}

/// The status of a run that was just ordered.
pub(super) fn ordered_run(server_url: &str, run: &RunId, order: &RunOrder) -> CommitStatusReport {
    let (commit, pull_request) = reported_commit(&order.purpose, &order.commit);
    CommitStatusReport {
        commit,
        context: workflow_context(&run.service, &order.workflow.path, &order.event),
        progress: ReportedProgress::Queued,
        description: format!("run {} is queued", run.number),
        url: run_url(server_url, run),
        pull_request,
    }
}

/// The status of a run as it is now.
pub(super) fn current_run(server_url: &str, run: &Run) -> CommitStatusReport {
    let spec = &run.spec;
    let (commit, pull_request) = reported_commit(&spec.purpose, &spec.commit);
    let number = spec.id.number;
    let (progress, description) = match &run.ended {
        None => {
            let text = format!("run {number} is in progress");
            (ReportedProgress::Running, text)
        }
        Some(end) => {
            let started = run.started_at.unwrap_or(run.opened_at);
            let took: Duration = end
                .at
                .duration_since(started)
                .try_into()
                .unwrap_or_default();
            let took = DurationText(took);
            let word = end.conclusion.to_string();
            let text = match &end.why {
                Some(why) => format!("{word} after {took}: {why}"),
                None => format!("{word} after {took}"),
            };
            (ReportedProgress::from_conclusion(end.conclusion), text)
        }
    };
    CommitStatusReport {
        commit,
        context: workflow_context(&spec.id.service, &spec.workflow.path, &spec.event),
        progress,
        description,
        url: run_url(server_url, &spec.id),
        pull_request,
    }
}

fn run_url(server_url: &str, run: &RunId) -> String {
    format!("{server_url}/runs/{}/{}", run.service, run.number.0)
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug)]
pub(super) enum RolloutStage<'a> {
    Started,
    Promoted,
    Ended {
        outcome: RolloutOutcome,
        why: &'a str,
    },
}

/// What a rollout brings where.
pub(super) struct ReportedRollout<'a> {
    pub(super) id: RolloutId,
    pub(super) release: &'a Release,
    pub(super) environment: EnvironmentName,
}

impl<'a> ReportedRollout<'a> {
    pub(super) fn from_spec(spec: &'a RolloutSpec) -> Self {
        Self {
            id: spec.id.clone(),
            release: spec.release(),
            environment: spec.environment.name.clone(),
        }
    }

    pub(super) fn report(
        &self,
        server_url: &str,
        stage: RolloutStage<'_>,
        pull_requests: Vec<u64>,
    ) -> DeploymentReport {
        let Self {
            id,
            release,
            environment,
        } = self;
        let number = release.number;
        let (progress, description) = match stage {
            RolloutStage::Started => {
                let text = format!("{number} is rolled out to {environment}");
                (ReportedProgress::Running, text)
            }
            RolloutStage::Promoted => {
                let text = format!("{number} is in {environment}");
                (ReportedProgress::Success, text)
            }
            RolloutStage::Ended { outcome, why } => {
                let text = format!("{number} was {outcome} in {environment}: {why}");
                (ReportedProgress::from_outcome(outcome), text)
            }
        };
        DeploymentReport {
            service: id.service.clone(),
            rollout: id.number,
            release: number,
            commit: release.commit.id.clone(),
            environment: environment.clone(),
            progress,
            description,
            url: format!("{server_url}/rollouts/{}/{}", id.service, id.number.0),
            environment_url: None,
            pull_requests,
        }
    }
}
