//! The job specification that a worker gets. The only place where secrets meet a run; nothing of it is recorded.

use std::collections::BTreeMap;

use shipway_workflow::{
    expr::{Contexts, EvalError, ExprValue, Template},
    graph::{FoundJob, JobGraph},
    job::{
        ActionSource, InputDelivery, JobContexts, JobKey, JobMounts, JobSpec, ResumePoint,
        ServerAccess, SourceTree, StoredArtifact, WithoutEngine,
    },
    model::{ContainerDefinition, TemplateTable, WorkflowJob},
};

use super::state::{Run, RunPlanError, RunState};

/// What a job has around it that isn't in the run's log.
#[derive(Clone, Debug)]
pub struct JobEnvironment {
    /// The `secrets` context.
    pub secrets: BTreeMap<String, String>,
    /// More of it, over the others: those of the environment that the job goes to, whatever a call hands on.
    pub environment_secrets: BTreeMap<String, String>,
    /// More of the `vars` context, over the run's own.
    pub vars: BTreeMap<String, String>,
    /// Environment variables below those of the workflow: `SHIPWAY_URL`.
    pub env: BTreeMap<String, String>,
    /// What `actions/checkout` gives.
    pub source: SourceTree,
    /// What earlier jobs stored.
    pub artifacts: Vec<StoredArtifact>,
    /// How the worker reaches the server, when there is one.
    pub server: Option<ServerAccess>,
    /// Where actions of repositories come from.
    pub actions: ActionSource,
}

/// Why a worker can't be given a job.
#[derive(Debug, thiserror::Error)]
pub enum JobSpecError {
    #[error("the job {0} is not part of the run, or not ready")]
    UnknownJob(JobKey),
    #[error(transparent)]
    Plan(#[from] RunPlanError),
    /// An expression in `container` or `services` can't be evaluated.
    #[error("the containers of the job `{job}`: {error}")]
    Containers { job: String, error: EvalError },
    /// A secret that a call passes on has no value.
    #[error("the `secrets` of the job `{job}`: {error}")]
    Secrets { job: String, error: String },
}

/// The specification of the job `key` for its worker.
///
/// # Errors
///
/// [`JobSpecError`]: the run has no such job, the job is not ready, its containers are unknown, or a secret that a call passes
/// on has no value.
pub fn job_spec(
    state: &RunState,
    key: &JobKey,
    around: JobEnvironment,
) -> Result<JobSpec, JobSpecError> {
    let unknown = || JobSpecError::UnknownJob(key.clone());
    let run = state.0.as_deref().ok_or_else(unknown)?;
    let plan = run.plan().map_err(RunPlanError::clone)?;
    let vars = with(&plan.ground.vars, texts(around.vars));
    let mut secrets = ExprValue::object(texts(around.secrets));
    // Each call passes on some of its secrets, under names of its choice.
    for caller in key.callers() {
        let (found, contexts) = contexts(run, &caller, &vars, secrets).ok_or_else(unknown)?;
        let job = &found.workflow.jobs[found.job];
        let call = job.calls.as_ref().ok_or_else(unknown)?;
        secrets = (call.secrets(&all(&contexts))).map_err(|error| JobSpecError::Secrets {
            job: job.id.to_string(),
            error: error.to_string(),
        })?;
    }
    let secrets = with(&secrets, texts(around.environment_secrets));
    let (found, contexts) = contexts(run, key, &vars, secrets).ok_or_else(unknown)?;
    let (workflow, job) = (found.workflow, &found.workflow.jobs[found.job]);
    let cells = &found.progress.jobs[found.job].cells;
    let index = (cells.iter().position(|it| it.key == *key)).ok_or_else(unknown)?;
    let cell = &cells[index];
    let (container, services) = containers(job, &all(&contexts))?;
    let literal = |(name, value): (String, String)| (name, Template::literal(value));
    let outer = around.env.into_iter().map(literal);
    Ok(JobSpec {
        key: key.clone(),
        job_id: job.id.clone(),
        name: cell.name.clone(),
        matrix_index: index,
        steps: job.steps.clone(),
        env: vec![
            TemplateTable::Entries(outer.collect()),
            workflow.env.clone(),
            job.env.clone(),
        ],
        defaults: job.defaults.or(&workflow.defaults),
        outputs: job.outputs.clone(),
        environment_url: job.environment.as_ref().and_then(|it| it.url.clone()),
        timeout_ms: cell.timeout_ms,
        contexts,
        source: around.source,
        artifacts: around.artifacts,
        server: around.server,
        reports: run.spec.reports.clone(),
        container,
        services,
        without_engine: WithoutEngine::default(),
        limits: Default::default(),
        actions: around.actions,
        resume: resume_point(run, key),
        delivery: InputDelivery::default(),
        mounts: JobMounts::default(),
    })
}

/// The step that the attempt under way begins at, if it resumes an earlier attempt.
fn resume_point(run: &Run, key: &JobKey) -> Option<ResumePoint> {
    let record = run.jobs.get(key)?;
    let resumed = record.resume_point.as_ref()?;
    Some(ResumePoint {
        attempt: resumed.attempt,
        step: resumed.step.clone(),
    })
}

/// The job's container and its service containers, by their names.
type JobContainers = (
    Option<ContainerDefinition>,
    Vec<(String, ContainerDefinition)>,
);

/// The containers of a job, those that expressions give among them.
fn containers(job: &WorkflowJob, contexts: &Contexts<'_>) -> Result<JobContainers, JobSpecError> {
    let invalid = |error| JobSpecError::Containers {
        job: job.id.clone(),
        error,
    };
    let container = job.container.as_ref().map(|it| it.resolve(contexts));
    let container = container.transpose().map_err(invalid)?.flatten();
    Ok((container, job.services.resolve(contexts).map_err(invalid)?))
}

/// Where a job stands, and what its expressions see there; `secrets` are those of its workflow.
fn contexts<'r>(
    run: &'r Run,
    key: &JobKey,
    vars: &ExprValue,
    secrets: ExprValue,
) -> Option<(FoundJob<'r>, JobContexts)> {
    let ground = &run.plan().ok()?.ground;
    let (found, cell) = run.cell(key)?;
    let (job, progress) = (
        &found.workflow.jobs[found.job],
        &found.progress.jobs[found.job],
    );
    let index = progress.cells.iter().position(|it| it.key == *key)?;
    let id = [("job".to_owned(), ExprValue::from(job.id.as_str()))];
    let contexts = JobContexts {
        github: with(&ground.github, id),
        vars: vars.clone(),
        secrets,
        needs: (found.graph).needs_context(found.workflow, found.progress, found.job),
        strategy: JobGraph::strategy_context(progress, index),
        matrix: cell.matrix.clone(),
        inputs: (found.called)
            .map_or_else(|| ground.inputs.clone(), |called| called.inputs.clone()),
    };
    Some((found, contexts))
}

fn all(contexts: &JobContexts) -> Contexts<'static> {
    let known = contexts.iter();
    known.fold(Contexts::new(), |all, (name, value)| {
        all.with(name, value.clone())
    })
}

fn texts(entries: BTreeMap<String, String>) -> impl Iterator<Item = (String, ExprValue)> {
    entries
        .into_iter()
        .map(|(name, value)| (name, ExprValue::from(value)))
}

/// An object with more properties.
fn with(object: &ExprValue, more: impl IntoIterator<Item = (String, ExprValue)>) -> ExprValue {
    let mut entries: Vec<(String, ExprValue)> = match object {
        ExprValue::Object(object) => object
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect(),
        _ => Vec::new(),
    };
    entries.extend(more);
    ExprValue::object(entries)
}
