//! A shell in the workspace of a finished job, at one of its steps. The command line opens the shell, on this machine; this endpoint
//! writes the job's spec, which the shell needs, to a file in the job's folder.
//!
//! The spec is not sent over the network. The caller has created an empty file with a random name in the folder, which proves that it
//! has access to the data directory. Secrets are included only on request, and that request is recorded in the log before the
//! file is written.

use std::{
    fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path as FilePath, sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use shipway_api::{ShellLocation, ShellRequest};
use shipway_core::{
    access::{JobIdentity, Resource, Verb},
    ids::RunId,
    run::{self, RunInput, RunRejection, job_spec},
};
use shipway_drivers::jobs::{AttemptProgress, read_attempt_progress};
use shipway_workflow::{
    expr::{ExprValue, join_with_and},
    job::{JobKey, JobSpec, ParseJobKeyError, ResumePoint},
};

use super::{ApiError, Caller, error::RejectionStatus, json_body::OptionalJson, runs};
use crate::{
    app::App,
    job_environment::{JobEnvironmentSources, job_environment},
    read_models::run_view,
};

/// Prepares a shell at a step of a finished job, for a caller on the server's machine.
#[utoipa::path(post, path = "/api/v1/runs/{service}/{number}/jobs/{job}/shell",
    params(("service" = String, Path), ("number" = String, Path), ("job" = String, Path, description = "Its key, such as `test.2`")), request_body = ShellRequest,
    responses((status = 200, body = ShellLocation), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn prepare(
    State(app): State<Arc<App>>,
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
    run_view(&*app.store, &id).await?;
    let state = app.engines.runs.state(&id.stream()).await?;
    let state = state.ok_or_else(|| ApiError::missing(format!("there is no run {id}")))?;
    let location = find_location(&app, &state, (&id, &key), body.step).await?;
    let Some(file) = body.file else {
        return Ok(Json(location));
    };
    let file = location.folder.join(named(&file)?);
    let mut spec = spec(&app, &state, (&id, &key), &location).await?;
    if body.secrets {
        let input = RunInput::ShowSecrets {
            key,
            step: location.step.clone(),
        };
        app.engines
            .runs
            .send(&id.stream(), input, caller.actor())
            .await?;
    } else {
        spec.contexts.secrets = ExprValue::object::<&str>([]);
    }
    // A shell runs no worker, so it needs no job token.
    spec.server.iter_mut().for_each(|it| it.token.clear());
    let written = tokio::task::spawn_blocking(move || write(&file, &spec)).await;
    let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    written.map_err(|error| {
        let why = format!("the file that takes the spec must be there, and empty: {error}");
        ApiError::bad_request(why)
    })?;
    Ok(Json(location))
}

/// Finds the folder and attempt of the requested step.
async fn find_location(
    app: &App,
    state: &run::RunState,
    (id, key): (&RunId, &JobKey),
    step: Option<String>,
) -> Result<ShellLocation, ApiError> {
    let refused = |refused: RunRejection| ApiError::new(refused.status(), refused.to_string());
    let known = state.0.as_deref();
    let unknown = || ApiError::missing(format!("{id} has no job {key}, or it never began"));
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
    let folder = app.jobs.attempt_folder(id, &key, attempt);
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let read = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || read_attempt_progress(&folder, &steps)).await
    };
    let AttemptProgress { failed, steps } = match read {
        Ok(Ok(standing)) => standing,
        Ok(Err(lost)) => {
            return Err(ApiError::conflict(format!(
                "no shell can be opened in {key} of {run}: {lost}"
            )));
        }
        Err(error) => return Err(ApiError::conflict(error.to_string())),
    };
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
                "no step of {key} of {run} failed: name one with --step; there are {known}"
            );
            return Err(ApiError::bad_request(why));
        }
    };
    Ok(ShellLocation {
        folder,
        attempt,
        step,
        steps,
    })
}

/// The job's spec as a worker gets it, resumed at the step.
async fn spec(
    app: &App,
    state: &run::RunState,
    (run, key): (&RunId, &JobKey),
    location: &ShellLocation,
) -> Result<JobSpec, ApiError> {
    let sources = JobEnvironmentSources {
        inputs: &app.job_inputs,
        engines: &app.engines,
        traffic: &app.workloads.traffic,
        server: &app.server_addresses,
    };
    let environment = job_environment(sources, state, key).await;
    let environment = environment.map_err(|error| ApiError::conflict(error.to_string()))?;
    let spec = job_spec(state, key, environment);
    let spec = spec.map_err(|error| ApiError::conflict(error.to_string()))?;
    let job = JobIdentity {
        run: run.clone(),
        key: key.clone(),
        attempt: location.attempt,
    };
    let resolved = app.job_executor.resolve_spec(&job, spec).await;
    let mut spec = resolved.map_err(|error| ApiError::conflict(error.to_string()))?;
    spec.resume = Some(ResumePoint {
        attempt: location.attempt,
        step: location.step.clone(),
    });
    // Absolute, since the shell's process has another working directory.
    spec.mounts.folder.clone_from(&location.folder);
    spec.mounts.resumed = Some(location.folder.clone());
    Ok(spec)
}

/// A name that a command line gives such a file, and that leads nowhere else.
fn named(file: &str) -> Result<&str, ApiError> {
    let inner = file
        .strip_prefix("shell-")
        .and_then(|rest| rest.strip_suffix(".json"));
    let is_plain = |text: &str| text.len() >= 6 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    inner
        .filter(|inner| is_plain(inner))
        .map(|_| file)
        .ok_or_else(|| ApiError::bad_request("the file is called shell-….json"))
}

/// Fills an existing file. It is not created here: that the caller could create it proves its access.
fn write(path: &FilePath, spec: &impl Serialize) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default())
        .open(path)?;
    let found = file.metadata()?;
    let is_private = std::os::unix::fs::MetadataExt::mode(&found) & 0o077 == 0;
    if !found.is_file() || found.len() > 0 || !is_private {
        let why = "it is no empty file that only its owner may read";
        return Err(std::io::Error::other(why));
    }
    serde_json::to_writer(&mut file, spec)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_plain_names_of_files_are_taken() {
        assert!(named("shell-a1B2c3.json").is_ok());
        for bad in [
            "shell-.json",
            "shell-a.json",
            "shell-../../x.json",
            "job.json",
            "journal.jsonl",
            "shell-a1b2c3.json/x",
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_an_empty_private_file_that_is_there_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shell-abcdef.json");
        let lay = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(write(&path, &"secret").is_err(), "it isn't made");
        assert!(!path.exists());
        for (text, mode) in [("", 0o644), ("there", 0o600)] {
            lay(text, mode);
            assert!(write(&path, &"secret").is_err(), "{text:?} {mode:o}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let link = folder.path().join("shell-ghijkl.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        lay("", 0o600);
        assert!(write(&link, &"secret").is_err());
        write(&path, &"secret").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\"secret\"");
    }
}
