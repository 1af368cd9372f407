//! Deploys, their preview as a plan, and rollbacks to an earlier release.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use jiff::Timestamp;
use shipway_api::{DeployOutcome, DeployPlan, DeployRequest, PlanQuery, RollbackRequest};
use shipway_core::{
    access::{Resource, Verb},
    address::claims::ClaimStage,
    config,
    ids::{EnvironmentName, ReleaseNumber, RunId, RunNumber, ServiceName},
    release::Release,
    rollout::{self, strategy},
    service::{self, DeployingRun, Override, RunArtifact, ServiceInput},
    target::ServiceEnvironment,
};
use shipway_engine::{RowFilter, RowQuery, Store};

use super::{
    ApiError, Caller,
    deploy_outcome::{NO_REASON, send_request},
    json_body::JsonObject,
    services::{parse, unknown},
};
use crate::{
    baseline_history::with_stable_traffic,
    capabilities::{DeployPlanning, ServiceRequests},
    delivery_engines::DeliveryEngines,
    read_models::release,
};

/// What a deploy would do, action by action. Nothing is changed.
#[utoipa::path(get, path = "/api/v1/services/{service}/plan", operation_id = "plan_deploy", params(("service" = String, Path), PlanQuery), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn plan(
    State(store): State<Arc<dyn Store>>,
    State(planning): State<DeployPlanning>,
    Path(service): Path<String>,
    Query(wanted): Query<PlanQuery>,
    caller: Caller,
) -> Result<Json<DeployPlan>, ApiError> {
    let name = parse::<ServiceName>(&service)?;
    let environment = parse::<EnvironmentName>(&wanted.to)?;
    let place = ServiceEnvironment {
        service: name.clone(),
        environment: environment.clone(),
    };
    caller.require(Verb::Read, &Resource::Environment(place))?;
    let number = wanted
        .release
        .as_deref()
        .map(parse::<ReleaseNumber>)
        .transpose()?;
    let release = find_release(&*store, &name, number, None).await?;
    let state = planning
        .engines
        .service(&name)
        .await?
        .ok_or_else(|| unknown(&service))?;
    let configured = release.environment(&environment).ok_or_else(|| {
        let known: Vec<_> = release
            .config
            .environments
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        ApiError::bad_request(format!(
            "{} has no environment {environment}; its shipway.yaml names {}",
            release.number,
            known.join(", ")
        ))
    })?;
    let spec = planned_spec(name, &release, configured, &state);
    let spec = with_stable_traffic(&planning.targets, &planning.baseline_history, spec).await;
    let mut plan = strategy::compile(&configured.strategy, &rollout::Rollout::brief(&spec));
    plan.notes.extend(address_notes(&planning, &spec).await?);
    let freeze = configured.rules.freeze.active(Timestamp::now());
    plan.notes
        .extend(freeze.map(|it| format!("{environment} is {it}: a rollout waits for its opening")));
    Ok(Json(DeployPlan {
        release: release.number,
        commit: release.commit.clone(),
        environment,
        strategy: configured.strategy.keyword().to_owned(),
        actions: plan.actions.iter().map(ToString::to_string).collect(),
        digest: plan.digest(),
        notes: plan.notes,
        stable: spec.stable().map(|stable| stable.release.number),
    }))
}

/// The rollout that a deploy of the release would order now.
fn planned_spec(
    service: ServiceName,
    release: &Arc<Release>,
    configured: &config::EnvironmentConfig,
    state: &service::ServiceState,
) -> rollout::RolloutSpec {
    let environment = &configured.name;
    let current = state.environments.get(environment);
    let stable = current.and_then(|current| current.stable.clone());
    let stable = stable.map(|stable| rollout::StableRelease {
        instances: stable.environment(environment).map_or(1, |it| it.instances),
        release: stable,
    });
    rollout::RolloutSpec {
        id: shipway_core::ids::RolloutId {
            service,
            number: state.last_rollout.next(),
        },
        kind: rollout::RolloutKind::Deploy,
        pace: rollout::RolloutPace::ByStrategy,
        retry_of: None,
        by: None,
        subject: rollout::RolloutSubject::Release {
            release: release.clone(),
            stable,
        },
        environment: configured.clone(),
        observed: current
            .map(|current| current.observed.clone())
            .unwrap_or_default(),
        stable_traffic: None,
        is_slow_limit_measured: false,
        why: "plan".to_owned(),
        peers: state.peers_in(environment),
    }
}

/// Addresses that the rollout would be refused for, and those that lie within others.
async fn address_notes(
    planning: &DeployPlanning,
    spec: &rollout::RolloutSpec,
) -> Result<Vec<String>, ApiError> {
    let claims = planning.engines.address_claims().await?;
    let ports = planning.server_addresses.reserved_ports();
    let config = &spec.release().config;
    let request = config
        .claim_request(ports, ClaimStage::Rollout)
        .only_for(&spec.environment.name);
    let conflicts = claims.conflicts(&request).into_iter();
    let conflicts = conflicts.map(|it| format!("{it}: until it is released, the rollout fails"));
    let overlaps = claims
        .overlaps(&request)
        .into_iter()
        .map(|it| it.to_string());
    Ok(conflicts.chain(overlaps).collect())
}

/// Deploys a release.
#[utoipa::path(post, path = "/api/v1/services/{service}/deploys", operation_id = "deploy", params(("service" = String, Path)), request_body = DeployRequest,
    responses((status = 202, body = DeployOutcome), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn deploy(
    State(requests): State<ServiceRequests>,
    Path(service): Path<String>,
    caller: Caller,
    JsonObject(wanted): JsonObject<DeployRequest>,
) -> Result<(StatusCode, Json<DeployOutcome>), ApiError> {
    let name = parse::<ServiceName>(&service)?;
    let environment = wanted
        .environment
        .as_deref()
        .map(parse::<EnvironmentName>)
        .transpose()?;
    let verb = match wanted.force {
        true => Verb::ForceDeploy,
        false => Verb::Deploy,
    };
    let resource = deployed_resource(&name, &wanted, environment.as_ref())?;
    caller.require(verb, &resource)?;
    let input = match wanted.run.as_deref() {
        Some(run) => {
            deploy_step(
                &*requests.store,
                &requests.engines,
                &name,
                run,
                &wanted,
                environment,
            )
            .await?
        }
        None => {
            let release = find_release(
                &*requests.store,
                &name,
                wanted.release.map(ReleaseNumber),
                wanted.commit.as_deref(),
            )
            .await?;
            let why = wanted.reason.unwrap_or_else(|| NO_REASON.to_owned());
            ServiceInput::Deploy {
                release,
                environment,
                force: match wanted.force {
                    true => Override::Yes,
                    false => Override::No,
                },
                why,
            }
        }
    };
    let outcome = send_request(&requests, &name, input, &caller).await?;
    Ok((StatusCode::ACCEPTED, Json(outcome)))
}

/// What a deploy is about: what a run has stored, or a release of the service.
fn deployed_resource(
    service: &ServiceName,
    wanted: &DeployRequest,
    environment: Option<&EnvironmentName>,
) -> Result<Resource, ApiError> {
    if let Some(run) = wanted.run.as_deref() {
        let run = RunId {
            service: service.clone(),
            number: run_number(run)?,
        };
        return Ok(Resource::RunDeployment {
            run,
            environment: environment.cloned(),
        });
    }
    Ok(match environment {
        Some(environment) => Resource::Environment(ServiceEnvironment {
            service: service.clone(),
            environment: environment.clone(),
        }),
        None => Resource::Service(service.clone()),
    })
}

/// The number in `7`, `r7` or `shop/r7`.
fn run_number(run: &str) -> Result<RunNumber, ApiError> {
    parse(run.rsplit('/').next().unwrap_or(run))
}

/// The problem type by which a worker knows that it may try again: its artifact may not have arrived yet.
const ARTIFACT_MISSING: &str = "urn:shipway:problem:artifact-missing";

async fn deploy_step(
    store: &dyn Store,
    engines: &DeliveryEngines,
    service: &ServiceName,
    run: &str,
    wanted: &DeployRequest,
    environment: Option<EnvironmentName>,
) -> Result<ServiceInput, ApiError> {
    let run = run_number(run)?;
    let environment = environment
        .ok_or_else(|| ApiError::bad_request("a step that deploys must name its environment"))?;
    let stream = format!("run/{service}/{}", run.0);
    let state = engines
        .runs
        .state(&stream)
        .await?
        .ok_or_else(|| ApiError::missing(format!("no such run: {run}")))?;
    let known = state.0.as_deref();
    let known = known.ok_or_else(|| ApiError::missing(format!("no such run: {run}")))?;
    let stored = known.artifacts.clone();
    let artifacts: Vec<RunArtifact> = stored
        .into_iter()
        .map(|artifact| RunArtifact {
            name: artifact.name,
            digest: artifact.digest,
        })
        .collect();
    let named = |artifact: &&RunArtifact| {
        wanted
            .artifact
            .as_deref()
            .is_none_or(|name| artifact.name == name)
    };
    let artifact = match artifacts
        .iter()
        .filter(named)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [one] => (*one).clone(),
        [] => {
            let missing = ApiError::conflict(format!(
                "run {run} has not uploaded this artifact; actions/upload-artifact must run before the deploy"
            ));
            return Err(missing.with_type(ARTIFACT_MISSING));
        }
        _ => {
            return Err(ApiError::bad_request(format!(
                "run {run} has uploaded several artifacts: name one"
            )));
        }
    };
    Ok(ServiceInput::DeployStep {
        run: Box::new(DeployingRun {
            number: run,
            purpose: known.spec.purpose.clone(),
            commit: known.spec.commit.clone(),
            made: made_by(store, service, run).await?,
        }),
        artifact,
        environment,
    })
}

/// The releases that steps of a run have made, the latest last.
async fn made_by(
    store: &dyn Store,
    service: &ServiceName,
    run: RunNumber,
) -> Result<Vec<Arc<Release>>, ApiError> {
    let number = run.0.to_string();
    let of_run = RowQuery {
        service: Some(service.as_str()),
        filter: Some(RowFilter::Equals {
            path: "run",
            value: &number,
        }),
        ..RowQuery::new("release")
    };
    let rows = store.rows_of_all_pages(of_run).await?;
    let mut made: Vec<Arc<Release>> = rows
        .into_iter()
        .filter_map(|row| serde_json::from_value(row.doc).ok())
        .collect();
    made.sort_by_key(|release| release.number);
    Ok(made)
}

/// Rolls back to an earlier release, without steps and analysis if it was stable recently (`rollback_window`).
#[utoipa::path(post, path = "/api/v1/services/{service}/rollbacks", operation_id = "roll_back", params(("service" = String, Path)), request_body = RollbackRequest,
    responses((status = 202, body = DeployOutcome), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn rollback(
    State(requests): State<ServiceRequests>,
    Path(service): Path<String>,
    caller: Caller,
    JsonObject(wanted): JsonObject<RollbackRequest>,
) -> Result<(StatusCode, Json<DeployOutcome>), ApiError> {
    let name = parse::<ServiceName>(&service)?;
    let environment = parse::<EnvironmentName>(&wanted.environment)?;
    let place = ServiceEnvironment {
        service: name.clone(),
        environment: environment.clone(),
    };
    caller.require(Verb::Rollback, &Resource::Environment(place))?;
    let to = match wanted.release {
        Some(number) => {
            Some(find_release(&*requests.store, &name, Some(ReleaseNumber(number)), None).await?)
        }
        None => None,
    };
    let why = wanted.reason.unwrap_or_else(|| NO_REASON.to_owned());
    let input = ServiceInput::Rollback {
        environment,
        to,
        force: match wanted.force {
            true => Override::Yes,
            false => Override::No,
        },
        why,
    };
    let outcome = send_request(&requests, &name, input, &caller).await?;
    Ok((StatusCode::ACCEPTED, Json(outcome)))
}

/// The release with this number or commit, or the newest.
async fn find_release(
    store: &dyn Store,
    service: &ServiceName,
    number: Option<ReleaseNumber>,
    commit: Option<&str>,
) -> Result<Arc<Release>, ApiError> {
    if let Some(number) = number {
        return release(store, service, number)
            .await
            .ok_or_else(|| ApiError::missing(format!("no release {number} of {service}")));
    }
    let newest = RowQuery {
        service: Some(service.as_str()),
        filter: commit.map(|prefix| RowFilter::StartsWith {
            path: "commit.id",
            prefix,
        }),
        limit: 1,
        ..RowQuery::new("release")
    };
    let row = store.rows(newest).await?.rows.pop();
    let found = row.and_then(|row| serde_json::from_value::<Release>(row.doc).ok());
    if found.is_none() && store.row("service", service.as_str()).await?.is_none() {
        return Err(unknown(service.as_str()));
    }
    found.map(Arc::new).ok_or_else(|| match commit {
        Some(commit) => ApiError::missing(format!(
            "no release of commit {commit}; only successful runs on the released branch create one"
        )),
        None => ApiError::missing(format!(
            "{service} has no release yet; push a commit whose run succeeds"
        )),
    })
}
