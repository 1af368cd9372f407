//! What a worker is given for one job of a run. The only place where secrets meet a run, and nothing of it goes on record.

use std::{collections::BTreeMap, path::PathBuf};

use shipway_workflow::{
    expr::{Template, Value},
    graph::Graph,
    job::{JobContexts, JobKey, JobSpec, ServerAccess, SourceTree, StoredArtifact, WithoutEngine},
    model::Table,
};

use super::state::State;

/// What a job has around it that isn't in the run's log.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The `secrets` context.
    pub secrets: BTreeMap<String, String>,
    /// More of the `vars` context, over the run's own.
    pub vars: BTreeMap<String, String>,
    /// Environment variables below those of the workflow: `SHIPWAY_URL`.
    pub env: BTreeMap<String, String>,
    /// The job's own folder.
    pub folder: PathBuf,
    /// What `actions/checkout` gives.
    pub source: SourceTree,
    /// What earlier jobs stored, as files here.
    pub artifacts: Vec<StoredArtifact>,
    /// Where the caches of the service are, when they are kept.
    pub caches: Option<PathBuf>,
    /// How the worker reaches the server, when there is one.
    pub server: Option<ServerAccess>,
}

/// What the worker of the job `key` is given; none when the run has no such job, or the job isn't ready.
#[must_use]
pub fn job_spec(state: &State, key: &JobKey, around: Surroundings) -> Option<JobSpec> {
    let run = state.0.as_deref()?;
    let plan = run.plan().ok()?;
    let (at, cell) = run.cell(key)?;
    let (job, progress) = (plan.workflow.jobs.get(at)?, &run.progress.jobs[at]);
    let index = progress.cells.iter().position(|it| it.key == *key)?;
    let contexts = JobContexts {
        github: with(
            &plan.ground.github,
            [("job".to_owned(), Value::from(job.id.as_str()))],
        ),
        vars: with(&plan.ground.vars, texts(around.vars)),
        secrets: Value::object(texts(around.secrets)),
        needs: plan.graph.needs_context(&plan.workflow, &run.progress, at),
        strategy: Graph::strategy_context(progress, index),
        matrix: cell.matrix.clone(),
        inputs: plan.ground.inputs.clone(),
    };
    let outer = around
        .env
        .into_iter()
        .map(|(name, value)| (name, Template::literal(value)));
    Some(JobSpec {
        key: key.clone(),
        job_id: job.id.clone(),
        name: cell.name.clone(),
        matrix_index: index,
        steps: job.steps.clone(),
        env: vec![
            Table::Entries(outer.collect()),
            plan.workflow.env.clone(),
            job.env.clone(),
        ],
        defaults: job.defaults.or(&plan.workflow.defaults),
        outputs: job.outputs.clone(),
        timeout_ms: cell.timeout_ms,
        contexts,
        source: around.source,
        artifacts: around.artifacts,
        caches: around.caches,
        server: around.server,
        reports: run.spec.reports.clone(),
        folder: around.folder,
        container: job.container.clone(),
        services: job.services.clone(),
        without_engine: WithoutEngine::default(),
    })
}

fn texts(entries: BTreeMap<String, String>) -> impl Iterator<Item = (String, Value)> {
    entries
        .into_iter()
        .map(|(name, value)| (name, Value::from(value)))
}

/// An object with more properties.
fn with(object: &Value, more: impl IntoIterator<Item = (String, Value)>) -> Value {
    let mut entries: Vec<(String, Value)> = match object {
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()))
            .collect(),
        _ => Vec::new(),
    };
    entries.extend(more);
    Value::object(entries)
}
