//! What a job that may start becomes: its cells, each with what of it is known by then.

use super::{
    calls::Unit,
    gate::Gate,
    matrix::{self, Combination, expand},
    progress::{Called, Cell, Expanded, Progress},
    strategy,
};
use crate::{
    expr::{Contexts, EvalError},
    job::JobKey,
    model::Job,
};

/// How long a job may take when it doesn't say; GitHub's.
const TIMEOUT_MINUTES: f64 = 360.0;

/// The longest time that is kept apart from "for ever": ten years.
const TIMEOUT_MINUTES_MAX: f64 = 5_256_000.0;

/// Who calls the workflow that a job stands in: the key of the calling cell, and its name.
pub(super) type Caller = (JobKey, String);

/// The key of a job or of one of its cells, inside the workflow that `caller` calls.
pub(super) fn key(caller: Option<&Caller>, id: &str, cell: Option<usize>) -> JobKey {
    key_of(caller.map(|(key, _)| key), id, cell)
}

pub(super) fn key_of(caller: Option<&JobKey>, id: &str, cell: Option<usize>) -> JobKey {
    match caller {
        None => JobKey::new(id, cell),
        Some(caller) => caller
            .inside(id, cell)
            .expect("`link` refuses ids that make too long a key"),
    }
}

pub(super) fn explained(job: &Job, what: &str, error: &EvalError) -> String {
    format!(
        "the `{what}` of the job `{}` (line {}) has no value: {error}",
        job.id, job.at.line
    )
}

/// The cells of a job that may start. `unit` is the workflow that it calls.
pub(super) fn expanded(
    job: &Job,
    caller: Option<&Caller>,
    unit: Option<&Unit>,
    contexts: Contexts<'static>,
) -> Result<Expanded, String> {
    let strategy_of = job.strategy.as_ref();
    let fail_fast = strategy_of
        .map_or(Ok(true), |strategy| strategy.fail_fast.resolve(&contexts))
        .map_err(|error| explained(job, "fail-fast", &error))?;
    let most = strategy_of
        .and_then(|strategy| strategy.max_parallel.as_ref())
        .map(|setting| setting.resolve(&contexts))
        .transpose();
    let max_parallel = most
        .map_err(|error| explained(job, "max-parallel", &error))?
        .map(|most| (most as usize).max(1));
    let combinations = match strategy_of.and_then(|strategy| strategy.matrix.as_ref()) {
        None => vec![None],
        Some(matrix) => {
            let made = expand(matrix, &contexts).map_err(|error| {
                format!(
                    "the matrix of the job `{}` (line {}): {error}",
                    job.id, job.at.line
                )
            })?;
            made.into_iter().map(Some).collect()
        }
    };
    let total = combinations.len();
    let mut cells = Vec::with_capacity(total);
    for (index, combination) in combinations.into_iter().enumerate() {
        let contexts = contexts
            .clone()
            .with(
                "strategy",
                strategy(fail_fast, index, total, max_parallel.unwrap_or(total)),
            )
            .with(
                "matrix",
                combination
                    .as_ref()
                    .map(|combination| combination.values.clone())
                    .unwrap_or_default(),
            );
        cells.push(cell(job, caller, unit, (index, combination), &contexts)?);
    }
    Ok(Expanded {
        cells,
        fail_fast,
        max_parallel,
    })
}

fn cell(
    job: &Job,
    caller: Option<&Caller>,
    unit: Option<&Unit>,
    (index, combination): (usize, Option<Combination>),
    contexts: &Contexts<'_>,
) -> Result<Cell, String> {
    let label = combination
        .as_ref()
        .map(|combination| combination.label.as_str())
        .unwrap_or_default();
    let name = match &job.name {
        Some(name) if name.as_literal().is_none() => matrix::name(
            &name
                .resolve_text(contexts)
                .map_err(|error| explained(job, "name", &error))?,
            "",
        ),
        Some(name) => matrix::name(name.text(), label),
        None => matrix::name(&job.id, label),
    };
    let name = match caller {
        None => name,
        Some((_, caller)) => format!("{caller} / {name}"),
    };
    let minutes = job
        .timeout_minutes
        .as_ref()
        .map(|setting| setting.resolve(contexts))
        .transpose();
    let minutes = minutes
        .map_err(|error| explained(job, "timeout-minutes", &error))?
        .unwrap_or(TIMEOUT_MINUTES);
    let runs_on = job.runs_on.as_ref().map(|it| it.resolve(contexts));
    let runs_on = runs_on
        .transpose()
        .map_err(|error| explained(job, "runs-on", &error))?;
    let called = unit.map(|unit| {
        let inputs = unit.inputs(job, contexts)?;
        Ok::<_, String>(Box::new(Called {
            inputs,
            progress: Progress::default(),
        }))
    });
    let called = called.transpose()?;
    Ok(Cell {
        key: key(caller, &job.id, combination.is_some().then_some(index)),
        name,
        matrix: combination
            .map(|combination| combination.values)
            .unwrap_or_default(),
        continue_on_error: job
            .continue_on_error
            .resolve(contexts)
            .map_err(|error| explained(job, "continue-on-error", &error))?,
        runs_on: runs_on.unwrap_or_default(),
        timeout_ms: (minutes.min(TIMEOUT_MINUTES_MAX) * 60_000.0) as u64,
        gate: Gate::of(job, unit.zip(called.as_deref()), contexts)?,
        stopping: None,
        outcome: None,
        called,
    })
}
