//! A shell in the workspace of a finished job, at one of its steps. The command line opens the shell, on this machine; this endpoint
//! has the job's spec, which the shell needs, written to a file in the job's folder.
//!
//! The spec is not sent over the network. The caller has created an empty file with a random name in the folder, which proves that it
//! has access to the data directory. Secrets are included only on request, and that request is recorded in the log before the
//! file is written.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use shipway_api::{ShellLocation, ShellRequest};
use shipway_core::{
    access::{JobIdentity, Resource, Verb},
    ids::RunId,
    run::{self, RunInput, RunRejection, job_spec},
    secret::{SecretUser, UsedSecret},
};
use shipway_drivers::jobs::{
    AttemptProgress, InvalidShellFileName, JobExecutor, ShellFileError, ShellFileName,
};
use shipway_engine::Store;
use shipway_workflow::{
    expr::{ExprValue, join_with_and},
    job::{JobKey, JobSpec, ParseJobKeyError, ResumePoint},
};

use super::{ApiError, Caller, error::RejectionStatus, json_body::OptionalJson, runs};
use crate::{
    capabilities::ShellSources,
    delivery_engines::DeliveryEngines,
    job_environment::{JobEnvironmentSources, job_environment, record_secret_use},
    read_models::run_view,
};

/// Prepares a shell at a step of a finished job, for a caller on the server's machine.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/jobs/{job}/shell", operation_id = "prepare_shell",
    params(("service" = String, Path), ("number" = String, Path), ("job" = String, Path, description = "Its key, such as `test.2`")), request_body = ShellRequest,
    responses((status = 200, body = ShellLocation), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn prepare(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(shell): State<ShellSources>,
    Path((service, number, job)): Path<(String, String, String)>,
    caller: Caller,
    OptionalJson(body): OptionalJson<ShellRequest>,
) -> Result<Json<ShellLocation>, ApiError> {
    let id = runs::id(&service, &number)?;
    let key: JobKey = job
        .parse()
        .map_err(|error: ParseJobKeyError| ApiError::bad_request(error.to_string()))?;
    let verb = match body.secrets {
        true => Verb::ShowSecrets,
        false => Verb::OpenShell,
    };
    caller.require(verb, &Resource::Run(id.clone()))?;
    run_view(&*store, &id).await?;
    let state = engines.runs.state(&id.stream()).await?;
    let state = state.ok_or_else(|| ApiError::missing(format!("no such run: {id}")))?;
    let location = find_location(&*shell.job_executor, &state, (&id, &key), body.step).await?;
    let Some(file) = body.file else {
        return Ok(Json(location));
    };
    let file: ShellFileName = file
        .parse()
        .map_err(|error: InvalidShellFileName| ApiError::bad_request(error.to_string()))?;
    let job = JobIdentity {
        run: id.clone(),
        key: key.clone(),
        attempt: location.attempt,
    };
    let (mut spec, used) = build_spec(&shell, &engines, &state, &job, &location).await?;
    if body.secrets {
        let user = SecretUser::Shell {
            run: id.clone(),
            job: key.to_string(),
        };
        record_secret_use(&engines, &user, used, &caller.actor()).await?;
        let input = RunInput::ShowSecrets {
            key,
            step: location.step.clone(),
        };
        engines
            .runs
            .send(&id.stream(), input, caller.actor())
            .await?;
    } else {
        spec.contexts.secrets = ExprValue::object::<&str>([]);
    }
    // A shell runs no worker, so it needs no job token.
    spec.server.iter_mut().for_each(|it| it.token.clear());
    let written = shell.job_executor.write_shell_spec(&job, spec, &file).await;
    written.map_err(|error| match error {
        ShellFileError::Spec(error) => ApiError::conflict(error.to_string()),
        error @ ShellFileError::NoWorkspace => ApiError::conflict(error.to_string()),
        error @ ShellFileError::File(_) => ApiError::bad_request(error.to_string()),
    })?;
    Ok(Json(location))
}

/// Finds the folder and attempt of the requested step.
async fn find_location(
    job_executor: &dyn JobExecutor,
    state: &run::RunState,
    (id, key): (&RunId, &JobKey),
    step: Option<String>,
) -> Result<ShellLocation, ApiError> {
    let refused = |refused: RunRejection| ApiError::new(refused.status(), refused.to_string());
    let known = state.0.as_deref();
    let unknown = || ApiError::missing(format!("{id} has no job {key}, or the job never started"));
    let (run, (found, cell)) = known
        .and_then(|run| Some((run, run.cell(key)?)))
        .filter(|(_, (_, cell))| cell.called.is_none())
        .ok_or_else(unknown)?;
    let record = run.jobs.get(key).filter(|it| it.started_at.is_some());
    let attempt = record.ok_or_else(unknown)?.attempt();
    let (run, key) = (id.clone(), key.clone());
    if cell.outcome.is_none() {
        return Err(refused(RunRejection::JobUnderWay { run, key }));
    }
    let steps = found.workflow.jobs[found.job].steps.clone();
    let job = JobIdentity {
        run: run.clone(),
        key: key.clone(),
        attempt,
    };
    let progress = job_executor.read_progress(&job, &steps).await;
    let AttemptProgress { failed, steps } = progress.map_err(|lost| {
        ApiError::conflict(format!("no shell can be opened in {key} of {run}: {lost}"))
    })?;
    let step = match (step, failed) {
        (Some(step), _) if !steps.contains(&step) => {
            let known = join_with_and(steps.iter().map(String::as_str));
            return Err(refused(RunRejection::NotFromThere {
                run,
                key,
                step,
                known,
            }));
        }
        (Some(step), _) | (None, Some(step)) => step,
        (None, None) => {
            let known = join_with_and(steps.iter().map(String::as_str));
            let why = format!(
                "no step of {key} of {run} failed: name one with --step; the known ones are {known}"
            );
            return Err(ApiError::bad_request(why));
        }
    };
    Ok(ShellLocation {
        folder: job_executor.shell_folder(&job),
        attempt,
        step,
        steps,
    })
}

/// The job's spec as a worker gets it, resumed at the step.
async fn build_spec(
    shell: &ShellSources,
    engines: &DeliveryEngines,
    state: &run::RunState,
    job: &JobIdentity,
    location: &ShellLocation,
) -> Result<(JobSpec, BTreeMap<String, Vec<UsedSecret>>), ApiError> {
    let sources = JobEnvironmentSources {
        inputs: &shell.job_inputs,
        engines,
        traffic: &shell.traffic,
        server: &shell.server_addresses,
    };
    let prepared = job_environment(sources, state, &job.key).await;
    let prepared = prepared.map_err(|error| ApiError::conflict(error.to_string()))?;
    let spec = job_spec(state, &job.key, prepared.environment);
    let mut spec = spec.map_err(|error| ApiError::conflict(error.to_string()))?;
    spec.resume = Some(ResumePoint {
        attempt: location.attempt,
        step: location.step.clone(),
    });
    Ok((spec, prepared.used))
}
