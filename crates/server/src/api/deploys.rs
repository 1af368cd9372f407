//! Releases that go somewhere: what a deploy would do, deploys, and the way back.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};
use shipway_core::{
    address::claims::{ClaimRequest, Stage},
    ids::{EnvironmentName, ReleaseNumber, RunNumber, ServiceName},
    release::Release,
    rollout::{self, strategy},
    service::{Artifact, Deploying, Force, Input},
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Caller, Problem,
    services::{parse, unknown},
    set_off::{NO_REASON, SetOff},
};
use crate::{
    app::{App, service_stream},
    drive::lately::with_stable_traffic,
    job_token::JobIdentity,
};

/// Releases that are looked through for those of one run, or for that of a commit.
const RELEASES_MAX: u32 = 200;

/// What to plan.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PlanFor {
    /// The environment.
    to: String,
    /// The release; the newest when not said.
    release: Option<String>,
}

/// What a deploy would do, action by action. Nothing is changed.
#[utoipa::path(get, path = "/api/v1/services/{service}/plan", params(("service" = String, Path), PlanFor), responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    Query(wanted): Query<PlanFor>,
) -> Result<Json<Value>, Problem> {
    let name = parse::<ServiceName>(&service)?;
    let environment = parse::<EnvironmentName>(&wanted.to)?;
    let number = wanted
        .release
        .as_deref()
        .map(parse::<ReleaseNumber>)
        .transpose()?;
    let release = find_release(&app, &name, number, None).await?;
    let state = app
        .services
        .state(&service_stream(&name))
        .await?
        .ok_or_else(|| unknown(&service))?;
    let configured = release.environment(&environment).ok_or_else(|| {
        let known: Vec<_> = release
            .config
            .environments
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        Problem::bad_request(format!(
            "{} has no environment {environment}; its shipway.yaml names {}",
            release.number,
            known.join(", ")
        ))
    })?;
    let current = state.environments.get(&environment);
    let spec = rollout::Spec {
        id: shipway_core::ids::RolloutId {
            service: name,
            number: state.last_rollout.next(),
        },
        kind: rollout::Kind::Deploy,
        pace: rollout::Pace::ByStrategy,
        retry_of: None,
        by: None,
        release: release.clone(),
        environment: configured.clone(),
        stable: current
            .and_then(|current| current.stable.clone())
            .map(|stable| rollout::Stable {
                instances: stable
                    .environment(&environment)
                    .map_or(1, |it| it.instances),
                release: stable,
            }),
        observed: current
            .map(|current| current.observed.clone())
            .unwrap_or_default(),
        stable_traffic: None,
        is_slow_limit_measured: false,
        why: "plan".to_owned(),
        tied: state.tied_in(&environment),
    };
    let spec = with_stable_traffic(&app, spec).await;
    let mut plan = strategy::compile(&configured.strategy, &rollout::Rollout::brief(&spec));
    plan.notes.extend(address_notes(&app, &spec).await?);
    Ok(Json(json!({
        "release": release.number, "commit": release.commit, "environment": environment, "strategy": configured.strategy.word(),
        "actions": plan.actions.iter().map(ToString::to_string).collect::<Vec<_>>(), "notes": plan.notes,
        "stable": spec.stable.map(|stable| stable.release.number),
    })))
}

/// Addresses that the rollout would be refused for, and those that lie within others.
async fn address_notes(app: &App, spec: &rollout::Spec) -> Result<Vec<String>, Problem> {
    let claims = app.address_claims().await?;
    let request = ClaimRequest::new(&spec.release.config, app.reserved_ports(), Stage::Rollout)
        .only_for(&spec.environment.name);
    let conflicts = claims.conflicts(&request).into_iter();
    let conflicts = conflicts.map(|it| format!("{it}: the rollout fails as long as it does"));
    let overlaps = claims
        .overlaps(&request)
        .into_iter()
        .map(|it| it.to_string());
    Ok(conflicts.chain(overlaps).collect())
}

/// What to deploy, and where.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Deploy {
    /// The release; the newest when neither this nor a commit is said.
    release: Option<u32>,
    /// The release of this commit, by a prefix of its id.
    commit: Option<String>,
    /// From a step of a run: the artifact's name.
    artifact: Option<String>,
    /// From a step of a run: which.
    run: Option<String>,
    /// The environment alone; from the first on and on when not said.
    environment: Option<String>,
    /// Even if it was rolled back there before.
    #[serde(default)]
    force: bool,
    /// Why.
    reason: Option<String>,
}

/// Rolls a release out.
#[utoipa::path(post, path = "/api/v1/services/{service}/deploys", params(("service" = String, Path)), request_body = Deploy,
    responses((status = 202, body = SetOff), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn deploy(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(wanted): Json<Deploy>,
) -> Result<(StatusCode, Json<SetOff>), Problem> {
    let name = parse::<ServiceName>(&service)?;
    if let Some(job) = &caller.job {
        require_own_run(job, &wanted)?;
    }
    let environment = wanted
        .environment
        .as_deref()
        .map(parse::<EnvironmentName>)
        .transpose()?;
    let input = match wanted.run.as_deref() {
        Some(run) => deploy_step(&app, &name, run, &wanted, environment).await?,
        None => {
            let release = find_release(
                &app,
                &name,
                wanted.release.map(ReleaseNumber),
                wanted.commit.as_deref(),
            )
            .await?;
            let why = wanted.reason.unwrap_or_else(|| NO_REASON.to_owned());
            Input::Deploy {
                release,
                environment,
                force: force(wanted.force),
                why,
            }
        }
    };
    let set_off = SetOff::by(&app, &name, input, &caller).await?;
    Ok((StatusCode::ACCEPTED, Json(set_off)))
}

/// A job deploys what its own run has made, and nothing by force.
fn require_own_run(job: &JobIdentity, wanted: &Deploy) -> Result<(), Problem> {
    let own = job.run.number.0.to_string();
    if wanted.run.as_deref() == Some(own.as_str()) && !wanted.force {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "{job} may deploy what its own run has stored (`\"run\": \"{own}\"`), and nothing by force"
    )))
}

/// The problem type by which a worker knows that it may try again: its artifact may not have arrived yet.
const ARTIFACT_MISSING: &str = "urn:shipway:problem:artifact-missing";

async fn deploy_step(
    app: &App,
    service: &ServiceName,
    run: &str,
    wanted: &Deploy,
    environment: Option<EnvironmentName>,
) -> Result<Input, Problem> {
    let run = parse::<RunNumber>(run.rsplit('/').next().unwrap_or(run))?;
    let environment = environment
        .ok_or_else(|| Problem::bad_request("a deploying step names its environment"))?;
    let stream = format!("run/{service}/{}", run.0);
    let state = app
        .runs
        .state(&stream)
        .await?
        .ok_or_else(|| Problem::not_found(format!("there is no run {run}")))?;
    let known = state.0.as_deref();
    let known = known.ok_or_else(|| Problem::not_found(format!("there is no run {run}")))?;
    let stored = known.artifacts.clone();
    let artifacts: Vec<Artifact> = stored
        .into_iter()
        .map(|artifact| Artifact {
            name: artifact.name,
            digest: artifact.digest,
        })
        .collect();
    let named = |artifact: &&Artifact| {
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
            let missing = Problem::conflict(format!(
                "run {run} has uploaded no such artifact; actions/upload-artifact must come before the deploy"
            ));
            return Err(Problem {
                r#type: ARTIFACT_MISSING.to_owned(),
                ..missing
            });
        }
        _ => {
            return Err(Problem::bad_request(format!(
                "run {run} has uploaded several artifacts: name one"
            )));
        }
    };
    Ok(Input::DeployStep {
        run: Box::new(Deploying {
            number: run,
            purpose: known.spec.purpose.clone(),
            commit: known.spec.commit.clone(),
            made: made_by(app, service, run).await?,
        }),
        artifact,
        environment,
    })
}

/// The releases that steps of a run have made, the latest last.
async fn made_by(
    app: &App,
    service: &ServiceName,
    run: RunNumber,
) -> Result<Vec<Arc<Release>>, Problem> {
    let rows = app
        .store
        .rows("release", Some(service.as_str()), false, None, RELEASES_MAX)
        .await?;
    let releases = rows.rows.into_iter();
    let mut made: Vec<Arc<Release>> = releases
        .filter_map(|row| serde_json::from_value(row.doc).ok())
        .filter(|release: &Arc<Release>| release.run == Some(run))
        .collect();
    made.sort_by_key(|release| release.number);
    Ok(made)
}

/// Where to go back, and to what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// The environment.
    environment: String,
    /// The release; the one before when not said.
    release: Option<u32>,
    /// Even if it was rolled back there before.
    #[serde(default)]
    force: bool,
    /// Why.
    reason: Option<String>,
}

/// Goes back to an earlier release: without steps and analysis where it was good lately (`rollback_window`).
#[utoipa::path(post, path = "/api/v1/services/{service}/rollbacks", params(("service" = String, Path)), request_body = Rollback,
    responses((status = 202, body = SetOff), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn rollback(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(wanted): Json<Rollback>,
) -> Result<(StatusCode, Json<SetOff>), Problem> {
    let name = parse::<ServiceName>(&service)?;
    let to = match wanted.release {
        Some(number) => Some(find_release(&app, &name, Some(ReleaseNumber(number)), None).await?),
        None => None,
    };
    let why = wanted.reason.unwrap_or_else(|| NO_REASON.to_owned());
    let input = Input::Rollback {
        environment: parse(&wanted.environment)?,
        to,
        force: force(wanted.force),
        why,
    };
    let set_off = SetOff::by(&app, &name, input, &caller).await?;
    Ok((StatusCode::ACCEPTED, Json(set_off)))
}

/// The release with this number or commit, or the newest.
async fn find_release(
    app: &App,
    service: &ServiceName,
    number: Option<ReleaseNumber>,
    commit: Option<&str>,
) -> Result<Arc<Release>, Problem> {
    if let Some(number) = number {
        return app.release(service, number).await.ok_or_else(|| {
            Problem::not_found(format!("there is no release {number} of {service}"))
        });
    }
    let page = app
        .store
        .rows("release", Some(service.as_str()), false, None, RELEASES_MAX)
        .await?;
    let mut releases = page
        .rows
        .into_iter()
        .filter_map(|row| serde_json::from_value::<Release>(row.doc).ok());
    let found = releases
        .find(|release| commit.is_none_or(|commit| release.commit.id.as_str().starts_with(commit)));
    if found.is_none() && app.store.row("service", service.as_str()).await?.is_none() {
        return Err(unknown(service.as_str()));
    }
    found.map(Arc::new).ok_or_else(|| match commit {
        Some(commit) => Problem::not_found(format!("there is no release of commit {commit}; only green runs on the released branch make one")),
        None => Problem::not_found(format!("{service} has no release yet; push a commit whose run is green")),
    })
}

const fn force(wanted: bool) -> Force {
    if wanted { Force::Yes } else { Force::No }
}
