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
    event::{Annotation, Artifact, Body, StepLine},
    gate::Gates,
    records::Records,
    reported::JobTests,
    resume::GoesOn,
    spec::RunSpec,
};
use crate::aggregate::Event;

/// A run, once it was opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State(pub Option<Box<Run>>);

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What runs, and why. Never changed; shared by all copies of the run.
    pub spec: Arc<RunSpec>,
    /// Who opened it.
    pub by: String,
    /// When.
    pub opened_at: Timestamp,
    /// When its first job started.
    pub started_at: Option<Timestamp>,
    /// How far its jobs are.
    pub progress: WorkflowProgress,
    /// What was seen of the jobs that have started.
    pub jobs: Records,
    /// Where the gates of it and its jobs stand.
    #[serde(default)]
    pub gates: Gates,
    /// What they stored, by name.
    pub artifacts: Vec<Artifact>,
    /// What the tests of its jobs said, in the order in which they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<(JobKey, JobTests)>,
    /// How it ended.
    pub ended: Option<End>,
    /// Whether the service knows.
    pub told: bool,
    /// Which attempt at it this is, from 1; `github.run_attempt`.
    #[serde(default = "first")]
    pub attempt: u32,
    /// Who asked for this attempt, if it isn't the first; `github.triggering_actor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_by: Option<String>,
    /// The workflow, read once; a cache of what `spec` says.
    #[serde(skip)]
    plan: OnceLock<Result<Arc<Plan>, String>>,
}

/// What was seen of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// When a worker began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The steps that are over, in order.
    pub steps: Vec<StepLine>,
    /// Why it didn't succeed.
    pub why: Option<String>,
    /// What its steps pointed out, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
    /// Why a file that it left can't be stored for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// How often it began anew by itself in this attempt at the run.
    #[serde(default)]
    pub retried: u32,
    /// What this attempt goes on from; none: it begins at its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goes_on: Option<GoesOn>,
    /// The attempts before this one, each with its own folder and log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierAttempt>,
}

/// An attempt at a job that another one followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierAttempt {
    /// When a worker began.
    pub started_at: Option<Timestamp>,
    /// When it ended, or was given up.
    pub finished_at: Option<Timestamp>,
    /// Why it didn't succeed, if it didn't.
    pub why: Option<String>,
}

impl JobRecord {
    /// Which attempt at the job this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.earlier.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    /// Another attempt begins.
    fn anew(&mut self, retried: u32) {
        let mut earlier = std::mem::take(&mut self.earlier);
        earlier.push(EarlierAttempt {
            started_at: self.started_at,
            finished_at: self.finished_at,
            why: self.why.take(),
        });
        *self = Self {
            earlier,
            retried,
            ..Self::default()
        };
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How.
    pub conclusion: Conclusion,
    /// Why, when it isn't green.
    pub why: Option<String>,
}

/// A workflow ready to be scheduled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The workflow.
    pub workflow: Workflow,
    /// Its edges.
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
    fn place<'a>(
        &'a mut self,
        plan: Option<&'a Plan>,
        key: &JobKey,
    ) -> Option<(&'a JobGraph, &'a mut WorkflowProgress, usize)> {
        plan?.graph.find_mut(&mut self.progress, key)
    }

    fn record(&mut self, key: &JobKey) -> &mut JobRecord {
        self.jobs.entry(key)
    }

    fn again(
        &mut self,
        plan: Option<&Plan>,
        (attempt, again): (u32, &RerunSelection),
        from: &[(JobKey, String)],
        event: &Event<Body>,
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
        (self.ended, self.told, self.attempt) = (None, false, attempt);
        self.again_by = Some(event.by.to_string());
        // It holds what expressions see of the attempt.
        self.plan = OnceLock::new();
    }

    /// What it is called in lists: what its `run-name` says, else the commit's message for a push, else the workflow's name.
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

    /// The workflow ready to be scheduled, or what is wrong with it.
    pub fn plan(&self) -> Result<&Arc<Plan>, &str> {
        self.plan
            .get_or_init(|| plan(self).map(Arc::new))
            .as_ref()
            .map_err(String::as_str)
    }
}

const fn first() -> u32 {
    1
}

fn plan(run: &Run) -> Result<Plan, String> {
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
        return Err(mistakes.join("\n"));
    };
    if spec.event == "workflow_dispatch" && !workflow.on.takes_dispatch() {
        return Err(format!(
            "{} can't be started by hand: add `workflow_dispatch` to its `on`",
            spec.workflow.path
        ));
    }
    let ground = spec
        .ground(&workflow, run)
        .map_err(|error| error.to_string())?;
    let called: Vec<CalledText<'_>> = (spec.workflow.called.iter())
        .map(|file| CalledText {
            name: &file.name,
            text: (file.text.as_deref())
                .ok_or_else(|| file.why.as_deref().unwrap_or("there is no such file")),
        })
        .collect();
    let graph =
        link_calls(&spec.workflow.path, &workflow, &called).map_err(|error| error.to_string())?;
    Ok(Plan {
        has_gates: has_gates(&workflow, &graph),
        graph,
        run_name: resolve_run_name(&workflow, &ground).map_err(|error| error.to_string())?,
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

/// Folds one fact.
pub(super) fn apply(state: &mut State, event: &Event<Body>) {
    if let Body::Opened { spec } = &event.body {
        state.0.get_or_insert_with(|| Box::new(opened(spec, event)));
        return;
    }
    let Some(run) = state.0.as_deref_mut() else {
        return;
    };
    // Without a plan no other fact about jobs was ever recorded.
    let plan = run.plan().ok().cloned();
    match &event.body {
        Body::Opened { .. } => {}
        Body::JobReady { job, expanded } => {
            for cell in &expanded.cells {
                run.gates.forget(&cell.key);
            }
            if let Some(plan) = &plan {
                let expanded = expanded.as_ref().clone();
                plan.graph.expand(&mut run.progress, job, expanded);
            }
        }
        Body::JobStarted { key } => {
            run.started_at.get_or_insert(event.at);
            run.record(key).started_at.get_or_insert(event.at);
        }
        Body::StepFinished { key, step } => run.record(key).steps.push(step.clone()),
        Body::Annotated { key, annotations } => {
            run.record(key).annotations.clone_from(annotations);
        }
        Body::ArtifactStored { artifact } => {
            run.artifacts.retain(|known| known.name != artifact.name);
            run.artifacts.push(artifact.clone());
        }
        Body::StorageDelayed { key, reason } => run.record(key).storage.clone_from(reason),
        Body::TestsReported { key, tests } => {
            let mut tests = tests.as_ref().clone();
            tests.attempt = run.attempt_of(key);
            run.tests.push((key.clone(), tests));
        }
        Body::StopAsked { key, why } => {
            if let Some((_, progress, at)) = run.place(plan.as_deref(), key) {
                progress.stop(at, key, why);
            }
        }
        Body::JobEnded {
            key,
            conclusion,
            outputs,
            why,
        } => {
            if let Some((_, progress, at)) = run.place(plan.as_deref(), key) {
                progress.end_cell(at, key, *conclusion, outputs, why.as_deref());
            }
            let record = run.record(key);
            (record.finished_at, record.why) = (Some(event.at), why.clone());
            record.storage = None;
        }
        Body::JobRetried { key, why } => {
            let record = run.record(key);
            (record.finished_at, record.why) = (Some(event.at), Some(why.clone()));
            let retried = record.retried + 1;
            record.anew(retried);
        }
        Body::RunAgain {
            attempt,
            again,
            from,
        } => run.again(plan.as_deref(), (*attempt, again), from, event),
        Body::JobSettled { job, result, why } => {
            if let Some((graph, progress, at)) = run.place(plan.as_deref(), job) {
                progress.end(at, graph.needs(at), *result, why.clone());
            }
        }
        Body::CancelAsked { reason } => run.progress.cancel(reason),
        Body::Ended { conclusion, why } => {
            run.ended = Some(End {
                at: event.at,
                conclusion: *conclusion,
                why: why.clone(),
            })
        }
        Body::Gate(fact) => run.gates.apply(event, fact),
        // It is on record; the run is as it was.
        Body::SecretsShown { .. } => {}
        Body::ServiceTold => run.told = true,
    }
}

fn opened(spec: &RunSpec, event: &Event<Body>) -> Run {
    let mut run = Run {
        spec: Arc::new(spec.clone()),
        by: event.by.to_string(),
        opened_at: event.at,
        started_at: None,
        progress: WorkflowProgress::default(),
        jobs: Records::default(),
        gates: Gates::default(),
        artifacts: Vec::new(),
        tests: Vec::new(),
        ended: None,
        told: false,
        attempt: 1,
        again_by: None,
        plan: OnceLock::new(),
    };
    run.progress = WorkflowProgress::new(run.plan().map_or(0, |plan| plan.workflow.jobs.len()));
    run
}
