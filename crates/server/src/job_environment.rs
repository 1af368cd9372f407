//! The environment of a job: secrets, variables, artifacts, and access to the server.

use std::collections::BTreeMap;

use shipway_core::{
    access::JobIdentity,
    aggregate::Actor,
    forge::forge_stream,
    ids::RunId,
    run::{JobEnvironment, JobRecord, Run, RunSpec, RunState},
    secret::{SecretInput, SecretRejection, SecretUser, UsedSecret},
    service::RunPurpose,
    target::ServiceEnvironment,
};
use shipway_engine::{EngineError, StoreError};
use shipway_targets::traffic_registry::TrafficRegistry;
use shipway_workflow::job::{JobKey, ServerAccess, SourceTree, StoredArtifact};

use crate::{
    address_book::find_addresses,
    capabilities::{JobInputs, ServerAddresses},
    delivery_engines::DeliveryEngines,
    secrets::{JobSecrets, LockedSecretError},
};

/// Where the environment of a job comes from.
#[derive(Clone, Copy)]
pub(crate) struct JobEnvironmentSources<'a> {
    pub(crate) inputs: &'a JobInputs,
    pub(crate) engines: &'a DeliveryEngines,
    pub(crate) traffic: &'a TrafficRegistry,
    pub(crate) server: &'a ServerAddresses,
}

/// Why the environment of a job can't be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobEnvironmentError {
    /// The run's stream has no events.
    #[error("the run is not open")]
    RunNotOpen,
    #[error(transparent)]
    LockedSecret(#[from] LockedSecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The inputs of a job apart from its steps, with the secrets among them that are to be recorded as used, by stream.
pub(crate) struct PreparedEnvironment {
    pub(crate) environment: JobEnvironment,
    pub(crate) used: BTreeMap<String, Vec<UsedSecret>>,
}

/// The inputs of a job apart from its steps. They include secrets: pass them only to the worker, or to a person with permission to read
/// them, and record their use before.
pub(crate) async fn job_environment(
    sources: JobEnvironmentSources<'_>,
    state: &RunState,
    key: &JobKey,
) -> Result<PreparedEnvironment, JobEnvironmentError> {
    let known = (state.0.as_deref()).ok_or(JobEnvironmentError::RunNotOpen)?;
    let run = &known.spec;
    let artifacts = known.artifacts.iter().map(|artifact| StoredArtifact {
        name: artifact.name.clone(),
        digest: artifact.digest.to_string(),
        size: artifact.size,
    });
    let environment = environment(known, key);
    let service = &run.id.service;
    // A job that is started has passed the gates of its environment.
    let secrets = job_secrets(sources, run, environment).await?;
    let variables = |name| sources.inputs.secrets.variables(service, Some(name));
    let environment = JobEnvironment {
        secrets: secrets.shared,
        environment_secrets: secrets.environment,
        vars: environment.map(variables).unwrap_or_default(),
        env: shipway_variables(sources, run).await,
        source: SourceTree::Git {
            repository: run.location().repository.to_string(),
            commit: run.commit.id.to_string(),
            reference: run.reference.clone(),
        },
        artifacts: artifacts.collect(),
        server: Some(ServerAccess {
            url: sources.server.local_url.clone(),
            token: job_token(sources.inputs, known, key),
        }),
        actions: sources.inputs.actions.without_local_files(),
    };
    Ok(PreparedEnvironment {
        environment,
        used: secrets.used,
    })
}

/// The secrets of a job: none for a fork, and none that are for the forge.
async fn job_secrets(
    sources: JobEnvironmentSources<'_>,
    run: &RunSpec,
    environment: Option<&str>,
) -> Result<JobSecrets, JobEnvironmentError> {
    if run.is_from_fork() {
        return Ok(JobSecrets::default());
    }
    let service = &run.id.service;
    let mut secrets = sources.inputs.secrets.job_secrets(service, environment)?;
    let stream = forge_stream(&run.location().repository);
    let state = sources.engines.forges.state(&stream).await?;
    if let Some(connection) = state.as_ref().and_then(|state| state.connection.as_ref()) {
        let is_for_job = |name: &str| !connection.uses_secret(name);
        secrets.shared.retain(|name, _| is_for_job(name));
        secrets.environment.retain(|name, _| is_for_job(name));
        for used in secrets.used.values_mut() {
            used.retain(|it| is_for_job(it.name.as_str()));
        }
        secrets.used.retain(|_, used| !used.is_empty());
    }
    Ok(secrets)
}

/// Records the use of secrets, before they are given out.
pub(crate) async fn record_secret_use(
    engines: &DeliveryEngines,
    user: &SecretUser,
    used: BTreeMap<String, Vec<UsedSecret>>,
    by: &Actor,
) -> Result<(), EngineError<SecretRejection>> {
    for (stream, secrets) in used {
        let user = user.clone();
        let input = SecretInput::RecordUse { user, secrets };
        engines.secrets.send(&stream, input, by.clone()).await?;
    }
    Ok(())
}

/// The token for the attempt at a job that is under way; of a run without a uid one that opens nothing.
fn job_token(inputs: &JobInputs, run: &Run, key: &JobKey) -> String {
    let job = JobIdentity {
        run: run.spec.id.clone(),
        key: key.clone(),
        attempt: run.jobs.get(key).map_or(1, JobRecord::attempt),
    };
    let uid = run.spec.uid.as_ref();
    uid.map_or_else(String::new, |uid| inputs.tokens.token(&job, uid))
}

/// The environment that a job goes to, by its `environment`.
fn environment<'a>(run: &'a Run, key: &JobKey) -> Option<&'a str> {
    let (_, cell) = run.cell(key)?;
    cell.gate.environment.as_deref()
}

/// Environment variables that say which service the run is for, and which environment it tests.
async fn shipway_variables(
    sources: JobEnvironmentSources<'_>,
    run: &RunSpec,
) -> BTreeMap<String, String> {
    let mut variables = tested_environment(sources, &run.id, &run.purpose).await;
    let folder = run.location().working_directory().to_owned();
    variables.insert("SHIPWAY_SERVICE".to_owned(), run.id.service.to_string());
    variables.insert("SHIPWAY_FOLDER".to_owned(), folder);
    variables
}

/// Environment variables for tests of an environment, with its address.
async fn tested_environment(
    sources: JobEnvironmentSources<'_>,
    run: &RunId,
    purpose: &RunPurpose,
) -> BTreeMap<String, String> {
    let RunPurpose::Tests {
        environment,
        release,
    } = purpose
    else {
        return BTreeMap::new();
    };
    let place = ServiceEnvironment {
        service: run.service.clone(),
        environment: environment.clone(),
    };
    let addresses = find_addresses(sources.engines, sources.traffic, &place).await;
    // A path is appended to it, and names below `localhost` don't resolve for every program.
    let local = addresses.local_url(sources.server.proxy_address);
    let url = local.unwrap_or_else(|| addresses.url(sources.server.proxy_address));
    BTreeMap::from([
        (
            "SHIPWAY_URL".to_owned(),
            url.trim_end_matches('/').to_owned(),
        ),
        ("SHIPWAY_ENVIRONMENT".to_owned(), environment.to_string()),
        ("SHIPWAY_RELEASE".to_owned(), release.0.to_string()),
    ])
}
