//! Expansion of a job that may start into its cells, with their settings resolved.

use super::{
    StrategyContext,
    calls::LinkedWorkflow,
    error::ExpansionError,
    matrix::{self, MatrixCombination, expand_matrix},
    preconditions::{CalledWorkflow, JobPreconditions},
    progress::{CalledProgress, JobExpansion, MatrixCell, WorkflowProgress},
};
use crate::{expr::Contexts, job::JobKey, model::WorkflowJob};

/// How long a job may take when it doesn't say; GitHub's.
const TIMEOUT_MINUTES: f64 = 360.0;

/// The longest time that is kept apart from "for ever": ten years.
const TIMEOUT_MINUTES_MAX: f64 = 5_256_000.0;

/// The key and the display name of the cell that calls the workflow of a job.
pub(super) type CallingJob = (JobKey, String);

/// The key of a job or of one of its cells, inside the workflow that `caller` calls.
pub(super) fn key(caller: Option<&CallingJob>, id: &str, cell: Option<usize>) -> JobKey {
    key_of(caller.map(|(key, _)| key), id, cell)
}

pub(super) fn key_of(caller: Option<&JobKey>, id: &str, cell: Option<usize>) -> JobKey {
    match caller {
        None => JobKey::new(id, cell),
        Some(caller) => caller
            .called_job(id, cell)
            .expect("`link` refuses ids that make too long a key"),
    }
}

/// The cells of a job that may start. `unit` is the workflow that it calls.
pub(super) fn expanded(
    job: &WorkflowJob,
    caller: Option<&CallingJob>,
    unit: Option<&LinkedWorkflow>,
    contexts: Contexts<'static>,
) -> Result<JobExpansion, ExpansionError> {
    let job_strategy = job.strategy.as_ref();
    let fail_fast = job_strategy
        .map_or(Ok(true), |strategy| strategy.fail_fast.resolve(&contexts))
        .map_err(|error| ExpansionError::setting(job, "fail-fast", error))?;
    let most = job_strategy
        .and_then(|strategy| strategy.max_parallel.as_ref())
        .map(|setting| setting.resolve(&contexts))
        .transpose();
    let max_parallel = most
        .map_err(|error| ExpansionError::setting(job, "max-parallel", error))?
        .map(|most| (most as usize).max(1));
    let combinations = match job_strategy.and_then(|strategy| strategy.matrix.as_ref()) {
        None => vec![None],
        Some(matrix) => {
            let made =
                expand_matrix(matrix, &contexts).map_err(|error| ExpansionError::Matrix {
                    job: job.into(),
                    error: Box::new(error),
                })?;
            made.into_iter().map(Some).collect()
        }
    };
    let total = combinations.len();
    let mut cells = Vec::with_capacity(total);
    for (index, combination) in combinations.into_iter().enumerate() {
        let strategy = StrategyContext {
            fail_fast,
            job_index: index,
            job_total: total,
            max_parallel: max_parallel.unwrap_or(total),
        };
        let contexts = contexts.clone().with("strategy", strategy.into()).with(
            "matrix",
            combination
                .as_ref()
                .map(|combination| combination.values.clone())
                .unwrap_or_default(),
        );
        cells.push(cell(job, caller, unit, (index, combination), &contexts)?);
    }
    Ok(JobExpansion {
        cells,
        fail_fast,
        max_parallel,
    })
}

fn cell(
    job: &WorkflowJob,
    caller: Option<&CallingJob>,
    unit: Option<&LinkedWorkflow>,
    (index, combination): (usize, Option<MatrixCombination>),
    contexts: &Contexts<'_>,
) -> Result<MatrixCell, ExpansionError> {
    let label = combination
        .as_ref()
        .map(|combination| combination.label.as_str())
        .unwrap_or_default();
    let name = match &job.name {
        Some(name) if name.as_literal().is_none() => matrix::name(
            &name
                .resolve_text(contexts)
                .map_err(|error| ExpansionError::setting(job, "name", error))?,
            "",
        ),
        Some(name) => matrix::name(name.text(), label),
        None => matrix::name(&job.id, label),
    };
    let name = match caller {
        None => name,
        Some((_, caller)) => format!("{caller} / {name}"),
    };
    let runs_on = job.runs_on.as_ref().map(|it| it.resolve(contexts));
    let runs_on = runs_on
        .transpose()
        .map_err(|error| ExpansionError::setting(job, "runs-on", error))?;
    let called = unit.map(|unit| {
        let inputs = unit
            .inputs(job, contexts)
            .map_err(|error| ExpansionError::Inputs {
                job: job.into(),
                workflow: unit.name.clone(),
                error: Box::new(error),
            })?;
        Ok::<_, ExpansionError>(Box::new(CalledProgress {
            inputs,
            progress: WorkflowProgress::default(),
        }))
    });
    let called = called.transpose()?;
    let called_workflow = unit
        .zip(called.as_deref())
        .map(|(unit, called)| CalledWorkflow {
            workflow: &unit.workflow,
            inputs: &called.inputs,
        });
    let gate = JobPreconditions::resolve(job, called_workflow, contexts)?;
    Ok(MatrixCell {
        key: key(caller, &job.id, combination.is_some().then_some(index)),
        name,
        matrix: combination
            .map(|combination| combination.values)
            .unwrap_or_default(),
        continue_on_error: job
            .continue_on_error
            .resolve(contexts)
            .map_err(|error| ExpansionError::setting(job, "continue-on-error", error))?,
        runs_on: runs_on.unwrap_or_default(),
        timeout_ms: resolve_timeout_ms(job, contexts)?,
        gate,
        stopping: None,
        outcome: None,
        called,
    })
}

fn resolve_timeout_ms(job: &WorkflowJob, contexts: &Contexts<'_>) -> Result<u64, ExpansionError> {
    let minutes = match &job.timeout_minutes {
        None => TIMEOUT_MINUTES,
        Some(setting) => setting
            .resolve(contexts)
            .map_err(|error| ExpansionError::setting(job, "timeout-minutes", error))?,
    };
    Ok((minutes.min(TIMEOUT_MINUTES_MAX) * 60_000.0) as u64)
}
