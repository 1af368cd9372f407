//! A run as lists and pages show it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_workflow::{
    graph::{JobGraph, JobProgress, MatrixCell, WorkflowProgress},
    job::{Conclusion, JobKey},
    model::{Workflow, WorkflowJob},
};

use super::{
    event::{Annotation, ArtifactRecord, RunEvent, StepLine},
    gate::{self, AwaitedApproval},
    job_record::EarlierAttempt,
    state::Run,
    test_results::TestsView,
};
use crate::{
    access::JobIdentity,
    aggregate::{Event, ViewRow},
    gate::{ApprovalPolicy, BrokenGlass},
    ids::{CommitId, RunId, RunNumber},
};

/// The read model of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunView {
    /// `shop/r12`.
    pub id: RunId,
    /// `12`.
    pub number: RunNumber,
    pub status: RunStatus,
    pub conclusion: Option<Conclusion>,
    pub commit: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The branch or tag to run on.
    pub branch: String,
    /// `push`, `workflow_dispatch`, …
    pub event: String,
    pub workflow: String,
    pub name: String,
    /// What the run is called: what its `run-name` says, else the commit's message for a push, else the workflow's name. Empty in
    /// rows of before this was known.
    pub title: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Its jobs, in the order of the workflow, those of a matrix one by one.
    pub jobs: Vec<JobView>,
    pub artifacts: Vec<ArtifactRecord>,
    /// What its tests said; none when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestsView>,
    pub by: String,
    pub why: Option<String>,
    /// What it waits for as a whole before its first job, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Which attempt at it this is, from 1.
    pub attempt: u32,
}

/// The newest run of each workflow, the newest first.
#[must_use]
pub fn newest_run_of_each_workflow(mut runs: Vec<RunView>) -> Vec<RunView> {
    runs.sort_by_key(|run| std::cmp::Reverse(run.number));
    let mut seen = BTreeSet::new();
    runs.retain(|run| seen.insert(run.workflow.clone()));
    runs
}

/// Where a run, a job or a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// A job that waits for others.
    Waiting,
    /// It may start and has not yet.
    Queued,
    Running,
    Success,
    Failure,
    Cancelled,
    Skipped,
    /// The machine could not run it, or a part of it.
    Incomplete,
}

impl From<Conclusion> for RunStatus {
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::Success => Self::Success,
            Conclusion::Failure => Self::Failure,
            Conclusion::Cancelled => Self::Cancelled,
            Conclusion::Skipped => Self::Skipped,
            Conclusion::Incomplete => Self::Incomplete,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobView {
    /// Its key within the run, for requests for its log.
    pub key: String,
    pub name: String,
    pub status: RunStatus,
    /// Why it didn't run, or isn't green.
    pub why: Option<String>,
    /// The jobs that it waits for.
    pub needs: Vec<String>,
    /// The workflow that it calls: then it has no steps and no log, and the jobs after it whose keys begin with its own do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<String>,
    /// The commit that the ref of another repository pointed to when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_commit: Option<CommitId>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub steps: Vec<StepView>,
    /// What its steps pointed out, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
    /// The environment that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_url: Option<String>,
    /// Reason why it waits apart from `needs`: a concurrency group or an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Whom it waits for, when that is people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<AwaitedApproval>,
    /// Set when its gates were opened in an emergency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_glass: Option<BrokenGlass>,
    /// Earlier attempts; their logs are requested with `attempt=1` and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierAttempt>,
}

impl JobView {
    /// Which attempt at it this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.earlier.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    /// The attempt as an identity; `None` if the key is not one of a job.
    #[must_use]
    pub fn identity(&self, run: &RunId) -> Option<JobIdentity> {
        Some(JobIdentity {
            run: run.clone(),
            key: self.key.parse().ok()?,
            attempt: self.attempt(),
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepView {
    pub name: String,
    pub status: RunStatus,
    pub took_ms: u64,
    /// The attempt at the job in which it ran, when that was an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_attempt: Option<u32>,
}

impl From<&StepLine> for StepView {
    fn from(step: &StepLine) -> Self {
        Self {
            name: step.name.clone(),
            status: step.outcome.unwrap_or(step.conclusion).into(),
            took_ms: step.took_ms,
            in_attempt: step.in_attempt,
        }
    }
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        let spec = &run.spec;
        let waits_for = gate::run_waits_for(run);
        let status = match (&run.ended, run.started_at) {
            (Some(end), _) => end.conclusion.into(),
            (None, Some(_)) => RunStatus::Running,
            (None, None) if waits_for.is_some() => RunStatus::Waiting,
            (None, None) => RunStatus::Queued,
        };
        let name = run.plan().ok().and_then(|plan| plan.workflow.name.clone());
        Self {
            id: spec.id.clone(),
            number: spec.id.number,
            status,
            conclusion: run.ended.as_ref().map(|end| end.conclusion),
            commit: spec.commit.id.clone(),
            subject: spec.commit.subject.clone(),
            branch: spec.ref_name().to_owned(),
            event: spec.event.clone(),
            workflow: spec.workflow.path.clone(),
            name: name.unwrap_or_else(|| spec.workflow.path.clone()),
            title: run.title(),
            created_at: run.opened_at,
            started_at: run.started_at,
            finished_at: run.ended.as_ref().map(|end| end.at),
            jobs: jobs(run),
            artifacts: run.artifacts.clone(),
            tests: run.tests_view(),
            by: spec.actor.clone().unwrap_or_else(|| run.by.clone()),
            why: run.ended.as_ref().and_then(|end| end.why.clone()),
            waits_for,
            attempt: run.attempt,
        }
    }
}

fn jobs(run: &Run) -> Vec<JobView> {
    let mut views = Vec::new();
    if let Ok(plan) = run.plan() {
        let all = ListedWorkflow {
            run,
            workflow: &plan.workflow,
            graph: &plan.graph,
            caller: None,
        };
        all.add(&run.progress, &mut views);
    }
    views
}

/// A workflow whose jobs are listed.
struct ListedWorkflow<'r> {
    run: &'r Run,
    workflow: &'r Workflow,
    graph: &'r JobGraph,
    /// The cell that calls it.
    caller: Option<&'r MatrixCell>,
}

impl ListedWorkflow<'_> {
    /// The jobs in the order of the workflow; behind each that calls, those it calls.
    fn add(&self, progress: &WorkflowProgress, views: &mut Vec<JobView>) {
        for (at, (job, progress)) in self.workflow.jobs.iter().zip(&progress.jobs).enumerate() {
            if progress.cells.is_empty() {
                views.push(self.unbegun(at, job, progress));
            }
            for cell in &progress.cells {
                views.push(self.cell(at, job, cell));
                if let (Some(called), Some(unit)) = (&cell.called, self.graph.call(at)) {
                    let inside = ListedWorkflow {
                        run: self.run,
                        workflow: &unit.workflow,
                        graph: &unit.graph,
                        caller: Some(cell),
                    };
                    inside.add(&called.progress, views);
                }
            }
        }
    }

    /// The jobs that a job waits for, as keys of this run.
    fn needs(&self, job: &WorkflowJob) -> Vec<String> {
        let key = |id: &String| match self.caller {
            None => id.clone(),
            Some(caller) => format!("{}~{id}", caller.key),
        };
        job.needs.iter().map(key).collect()
    }

    /// The commit of the workflow that a job calls, when that is of another repository.
    fn calls_commit(&self, at: usize) -> Option<CommitId> {
        let name = &self.graph.call(at)?.name;
        let mut called = self.run.spec.workflow.called.iter();
        called.find(|file| file.name == *name)?.commit.clone()
    }

    fn unbegun(&self, at: usize, job: &WorkflowJob, progress: &JobProgress) -> JobView {
        let name = (job.name.as_ref()).map_or(job.id.as_str(), |name| name.text());
        let (key, name) = match self.caller {
            None => (job.id.clone(), name.to_owned()),
            Some(caller) => (
                format!("{}~{}", caller.key, job.id),
                format!("{} / {name}", caller.name),
            ),
        };
        JobView {
            key,
            name,
            status: progress.result.map_or(RunStatus::Waiting, RunStatus::from),
            why: progress.why.clone(),
            needs: self.needs(job),
            calls: job.calls.as_ref().map(|call| call.workflow.clone()),
            calls_commit: self.calls_commit(at),
            started_at: None,
            finished_at: None,
            steps: Vec::new(),
            annotations: Vec::new(),
            environment: None,
            environment_url: None,
            waits_for: None,
            approval: None,
            broken_glass: None,
            earlier: Vec::new(),
        }
    }

    fn cell(&self, at: usize, job: &WorkflowJob, cell: &MatrixCell) -> JobView {
        let record = self.run.jobs.get(&cell.key).cloned().unwrap_or_default();
        let mut started_at = record.started_at;
        if cell.called.is_some() {
            let prefix = format!("{}~", cell.key);
            let inside = self
                .run
                .jobs
                .unsorted()
                .filter(|(key, _)| key.as_str().starts_with(&prefix));
            started_at = inside.filter_map(|(_, record)| record.started_at).min();
        }
        let waits_for = gate::job_waits_for(self.run, cell);
        JobView {
            key: cell.key.to_string(),
            name: cell.name.clone(),
            status: match (cell.outcome, started_at) {
                (Some(outcome), _) => outcome.into(),
                (None, Some(_)) => RunStatus::Running,
                (None, None) if waits_for.is_some() => RunStatus::Waiting,
                (None, None) => RunStatus::Queued,
            },
            why: record.why.or_else(|| cell.stopping.clone()),
            needs: self.needs(job),
            calls: job.calls.as_ref().map(|call| call.workflow.clone()),
            calls_commit: self.calls_commit(at),
            started_at,
            finished_at: record.finished_at,
            steps: record.steps.iter().map(StepView::from).collect(),
            annotations: record.annotations,
            environment: cell.gate.environment.clone(),
            environment_url: self.run.gates.url(&cell.key).map(str::to_owned),
            waits_for: waits_for.or(record.storage),
            approval: gate::awaited(self.run, cell),
            broken_glass: gate::broken_glass(self.run, &cell.key).cloned(),
            earlier: record.earlier,
        }
    }
}

/// A job that is waiting for approval, or whose break-glass is waiting for its review.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobApproval {
    /// The run.
    pub id: RunId,
    /// The key of the job.
    pub job: String,
    pub environment: String,
    pub commit: CommitId,
    /// The first line of the commit's message.
    pub subject: String,
    pub approval: AwaitedApproval,
    /// Set when its gates were opened in an emergency, and that is not reviewed: the approval is not needed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_glass: Option<BrokenGlass>,
    /// In words.
    pub waits_for: Option<String>,
}

/// The kind of the rows of [`JobApproval`]: one for each job that has waited, live as long as it waits.
pub const JOB_APPROVAL_ROWS: &str = "job-approval";

/// The row of the run, and those of its jobs that wait for approval, or waited before these events.
pub(super) fn rows(run: &Run, events: &[Event<RunEvent>]) -> Vec<ViewRow> {
    let view = RunView::from(run);
    let mut rows = vec![row(run, &view)];
    let may_end_approvals = events.iter().any(|event| {
        matches!(
            event.body,
            RunEvent::Gate(_)
                | RunEvent::JobEnded { .. }
                | RunEvent::StopRequested { .. }
                | RunEvent::CancellationRequested { .. }
                | RunEvent::JobCompleted { .. }
                | RunEvent::Ended { .. }
        )
    });
    for key in run.gates.approval_keys() {
        let job = view.jobs.iter().find(|job| job.key == key.as_str());
        let awaited = job.and_then(|job| job_approval(&view, job));
        if awaited.is_some() || may_end_approvals {
            rows.push(approval_row(&run.spec.id, key, awaited.as_ref()));
        }
    }
    rows
}

fn job_approval(run: &RunView, job: &JobView) -> Option<JobApproval> {
    let glass = job.broken_glass.clone();
    let glass = glass.filter(|glass| glass.review.is_none());
    let unneeded = |glass: &BrokenGlass| AwaitedApproval {
        environment: job.environment.clone().unwrap_or_default(),
        rule: ApprovalPolicy {
            rules: Vec::new(),
            expires: None,
        },
        by: Vec::new(),
        since: glass.at,
        subject: None,
    };
    let approval = (job.approval.clone()).or_else(|| glass.as_ref().map(unneeded))?;
    Some(JobApproval {
        id: run.id.clone(),
        job: job.key.clone(),
        environment: approval.environment.clone(),
        commit: run.commit.clone(),
        subject: run.subject.clone(),
        waits_for: job.waits_for.clone(),
        broken_glass: glass,
        approval,
    })
}

fn approval_row(id: &RunId, key: &JobKey, awaited: Option<&JobApproval>) -> ViewRow {
    ViewRow {
        kind: JOB_APPROVAL_ROWS.to_owned(),
        key: format!("{}/{}/{key}", id.service, id.number.0),
        service: id.service.to_string(),
        live: awaited.is_some(),
        doc: serde_json::to_value(awaited).expect("a view is plain data"),
    }
}

fn row(run: &Run, view: &RunView) -> ViewRow {
    let id = &run.spec.id;
    ViewRow {
        kind: "run".to_owned(),
        key: format!("{}/{}", id.service, id.number.0),
        service: id.service.to_string(),
        live: run.ended.is_none(),
        doc: serde_json::to_value(view).expect("a view is plain data"),
    }
}
