//! What a run's events fold into.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_syntax::SourceFile;
use shipway_workflow::{
    graph::{
        CalledText, FoundJob, JobGraph, MatrixCell, RerunSelection, RunContexts, WorkflowProgress,
        in_one_line, link_calls, resolve_run_name,
    },
    job::{Conclusion, JobKey},
    model::Workflow,
};

use super::{
    event::{ArtifactRecord, RunEvent},
    gates::RunGates,
    job_record::JobRecord,
    job_tests::JobTests,
    records::JobRecords,
    spec::RunSpec,
};
use crate::aggregate::Event;

/// A run, once it was opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunState(pub Option<Box<Run>>);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What runs, and why. Never changed; shared by all copies of the run.
    pub spec: Arc<RunSpec>,
    pub by: String,
    pub opened_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub progress: WorkflowProgress,
    /// Records of the jobs that have started.
    pub jobs: JobRecords,
    /// Where the gates of it and its jobs stand.
    pub gates: RunGates,
    pub artifacts: Vec<ArtifactRecord>,
    /// What the tests of its jobs said, in the order in which they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<(JobKey, JobTests)>,
    pub ended: Option<RunEnd>,
    /// Whether the service knows.
    pub service_notified: bool,
    /// Which attempt at it this is, from 1; `github.run_attempt`.
    #[serde(default = "first")]
    pub attempt: u32,
    /// Who asked for this attempt, if it isn't the first; `github.triggering_actor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_by: Option<String>,
    /// The workflow, read once; a cache of what `spec` says.
    #[serde(skip)]
    plan: OnceLock<Result<Arc<RunPlan>, RunPlanError>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    pub at: Timestamp,
    pub conclusion: Conclusion,
    pub why: Option<String>,
}

/// A workflow ready to be scheduled.
#[derive(Clone, Debug)]
pub struct RunPlan {
    pub workflow: Workflow,
    pub graph: JobGraph,
    /// What its expressions see of the run.
    pub ground: RunContexts,
    /// What its `run-name` says.
    pub run_name: Option<String>,
    /// Whether a job of it, or of a workflow that it calls, may wait for a group or for people.
    pub(super) has_gates: bool,
}

impl Run {
    /// A job, by its key: where it stands, and itself.
    #[must_use]
    pub fn cell(&self, key: &JobKey) -> Option<(FoundJob<'_>, &MatrixCell)> {
        let plan = self.plan().ok()?;
        let found = plan.graph.find(&plan.workflow, &self.progress, key)?;
        Some((found, found.progress.cell(found.job, key)?))
    }

    /// What a fact about the job `key` is folded into.
    fn job_progress<'a>(
        &'a mut self,
        plan: Option<&'a RunPlan>,
        key: &JobKey,
    ) -> Option<(&'a JobGraph, &'a mut WorkflowProgress, usize)> {
        plan?.graph.find_mut(&mut self.progress, key)
    }

    fn record(&mut self, key: &JobKey) -> &mut JobRecord {
        self.jobs.entry(key)
    }

    fn again(
        &mut self,
        plan: Option<&RunPlan>,
        (attempt, again): (u32, &RerunSelection),
        from: &[(JobKey, String)],
        event: &Event<RunEvent>,
    ) {
        let Some(plan) = plan else { return };
        for key in (plan.graph).forget(&plan.workflow, &mut self.progress, again) {
            self.gates.forget(&key);
            if let Some(record) = self.jobs.get_mut(&key) {
                record.anew(0);
            }
        }
        for (key, step) in from {
            self.record(key).goes_on_at(step);
        }
        if *again == RerunSelection::All {
            self.artifacts.clear();
        }
        (self.ended, self.service_notified, self.attempt) = (None, false, attempt);
        self.rerun_by = Some(event.by.to_string());
        // It holds what expressions see of the attempt.
        self.plan = OnceLock::new();
    }

    /// The title in lists: the `run-name`, else the commit's message for a push, else the workflow's name.
    #[must_use]
    pub fn title(&self) -> String {
        let plan = self.plan().ok();
        if let Some(name) = plan.and_then(|plan| plan.run_name.clone()) {
            return name;
        }
        let subject = in_one_line(&self.spec.commit.subject);
        if self.spec.event == "push" && !subject.is_empty() {
            return subject;
        }
        let name = plan.and_then(|plan| plan.workflow.name.as_deref());
        in_one_line(name.unwrap_or(&self.spec.workflow.path))
    }

    /// The workflow ready for scheduling, or its error.
    pub fn plan(&self) -> Result<&Arc<RunPlan>, &RunPlanError> {
        self.plan.get_or_init(|| plan(self).map(Arc::new)).as_ref()
    }
}

const fn first() -> u32 {
    1
}

/// Why a run's workflow can't be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunPlanError {
    #[error("{}", .0.join("\n"))]
    Syntax(Vec<String>),
    #[error("{path} can't be started manually: add `workflow_dispatch` to its `on`")]
    NotDispatchable { path: String },
    /// An expression that can't be evaluated, or a call that can't be linked.
    #[error("{0}")]
    Unresolved(String),
}

fn plan(run: &Run) -> Result<RunPlan, RunPlanError> {
    let spec = &run.spec;
    let source = SourceFile::new(spec.workflow.path.as_str(), spec.workflow.text.as_str());
    let parsed = shipway_workflow::parse(&source);
    let Some(workflow) = parsed.workflow else {
        let mistakes: Vec<String> = parsed
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .take(10)
            .map(|diagnostic| diagnostic.one_line(&source))
            .collect();
        return Err(RunPlanError::Syntax(mistakes));
    };
    if spec.event == "workflow_dispatch" && !workflow.on.takes_dispatch() {
        let path = spec.workflow.path.clone();
        return Err(RunPlanError::NotDispatchable { path });
    }
    let unresolved = |error: &dyn std::fmt::Display| RunPlanError::Unresolved(error.to_string());
    let ground = (spec.ground(&workflow, run)).map_err(|error| unresolved(&error))?;
    let called: Vec<CalledText<'_>> = (spec.workflow.called.iter())
        .map(|file| CalledText {
            name: &file.name,
            text: (file.text.as_deref())
                .ok_or_else(|| file.why.as_deref().unwrap_or("no such file")),
        })
        .collect();
    let graph =
        link_calls(&spec.workflow.path, &workflow, &called).map_err(|error| unresolved(&error))?;
    Ok(RunPlan {
        has_gates: has_gates(&workflow, &graph),
        graph,
        run_name: resolve_run_name(&workflow, &ground).map_err(|error| unresolved(&error))?,
        workflow,
        ground,
    })
}

/// Whether a job may wait for a group or for people.
fn has_gates(workflow: &Workflow, graph: &JobGraph) -> bool {
    workflow.jobs.iter().enumerate().any(|(at, job)| {
        let called = graph.call(at);
        job.concurrency.is_some()
            || job.environment.is_some()
            || called.is_some_and(|unit| {
                unit.workflow.concurrency.is_some() || has_gates(&unit.workflow, &unit.graph)
            })
    })
}

pub(super) fn apply(state: &mut RunState, event: &Event<RunEvent>) {
    if let RunEvent::Opened { spec } = &event.body {
        state.0.get_or_insert_with(|| Box::new(opened(spec, event)));
        return;
    }
    let Some(run) = state.0.as_deref_mut() else {
        return;
    };
    // Without a plan no other fact about jobs was ever recorded.
    let plan = run.plan().ok().cloned();
    match &event.body {
        RunEvent::Opened { .. } => {}
        RunEvent::JobReady { job, expanded } => {
            expanded
                .cells
                .iter()
                .for_each(|cell| run.gates.forget(&cell.key));
            if let Some(plan) = &plan {
                (plan.graph).expand(&mut run.progress, job, expanded.as_ref().clone());
            }
        }
        RunEvent::StopRequested { key, why } => {
            if let Some((_, progress, at)) = run.job_progress(plan.as_deref(), key) {
                progress.stop(at, key, why);
            }
        }
        RunEvent::JobEnded {
            key,
            conclusion,
            outputs,
            why,
        } => {
            if let Some((_, progress, at)) = run.job_progress(plan.as_deref(), key) {
                progress.end_cell(at, key, *conclusion, outputs, why.as_deref());
            }
            run.record(key).end(event.at, why.clone());
        }
        RunEvent::JobRetried { key, why } => run.record(key).retry(event.at, why.clone()),
        RunEvent::RerunStarted {
            attempt,
            again,
            from,
        } => run.again(plan.as_deref(), (*attempt, again), from, event),
        RunEvent::JobCompleted { job, result, why } => {
            if let Some((graph, progress, at)) = run.job_progress(plan.as_deref(), job) {
                progress.end(at, graph.needs(at), *result, why.clone());
            }
        }
        RunEvent::CancellationRequested { reason } => run.progress.cancel(reason),
        RunEvent::Ended { conclusion, why } => run.end(event.at, *conclusion, why.clone()),
        RunEvent::Gate(fact) => run.gates.apply(event, fact),
        RunEvent::ServiceNotified => run.service_notified = true,
        // Recorded for the audit only.
        RunEvent::SecretsShown { .. } => {}
        RunEvent::JobStarted { .. }
        | RunEvent::StepFinished { .. }
        | RunEvent::Annotated { .. }
        | RunEvent::ArtifactStored { .. }
        | RunEvent::StorageDelayed { .. }
        | RunEvent::TestsReported { .. } => apply_report(run, event),
    }
}

/// Reports about a running job.
fn apply_report(run: &mut Run, event: &Event<RunEvent>) {
    match &event.body {
        RunEvent::JobStarted { key } => {
            run.started_at.get_or_insert(event.at);
            run.record(key).started_at.get_or_insert(event.at);
        }
        RunEvent::StepFinished { key, step } => run.record(key).steps.push(step.clone()),
        RunEvent::Annotated { key, annotations } => {
            run.record(key).annotations.clone_from(annotations);
        }
        RunEvent::ArtifactStored { artifact } => run.add_artifact(artifact.clone()),
        RunEvent::StorageDelayed { key, reason } => run.record(key).storage.clone_from(reason),
        RunEvent::TestsReported { key, tests } => run.add_tests(key, tests.as_ref().clone()),
        _ => {}
    }
}

impl Run {
    fn end(&mut self, at: Timestamp, conclusion: Conclusion, why: Option<String>) {
        self.ended = Some(RunEnd {
            at,
            conclusion,
            why,
        });
    }

    /// Stores an artifact in place of one with the same name.
    fn add_artifact(&mut self, artifact: ArtifactRecord) {
        self.artifacts.retain(|known| known.name != artifact.name);
        self.artifacts.push(artifact);
    }

    fn add_tests(&mut self, key: &JobKey, mut tests: JobTests) {
        tests.attempt = self.attempt_of(key);
        self.tests.push((key.clone(), tests));
    }
}

fn opened(spec: &RunSpec, event: &Event<RunEvent>) -> Run {
    let mut run = Run {
        spec: Arc::new(spec.clone()),
        by: event.by.to_string(),
        opened_at: event.at,
        started_at: None,
        progress: WorkflowProgress::default(),
        jobs: JobRecords::default(),
        gates: RunGates::default(),
        artifacts: Vec::new(),
        tests: Vec::new(),
        ended: None,
        service_notified: false,
        attempt: 1,
        rerun_by: None,
        plan: OnceLock::new(),
    };
    run.progress = WorkflowProgress::new(run.plan().map_or(0, |plan| plan.workflow.jobs.len()));
    run
}
