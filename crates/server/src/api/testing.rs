//! Tests as data: what those of a service and of a run said, the quarantine, and why a run failed, in three lines.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use shipway_api::RunTests;
use shipway_core::{
    ids::ServiceName,
    service::Input,
    testing::{Request, TestId, Testing},
};
use utoipa::ToSchema;

use super::{Caller, Problem, runs};
use crate::{app::App, failure_summary, read_models::run_view, testing};

/// How long a quarantine lasts when nobody says.
const DAYS: i64 = 14;
/// Clean runs in a row after which a test leaves when nobody says.
const CLEAN_RUNS: u32 = 10;

/// A test that should not block for a while.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Quarantine {
    /// The test: its whole name, or an end of it that no other has.
    test: String,
    /// Who looks after it.
    owner: String,
    /// Why.
    reason: String,
    /// Until when at most; two weeks from now when not said.
    #[schema(value_type = Option<String>)]
    until: Option<Timestamp>,
    /// After how many clean runs in a row it leaves by itself; 10 when not said.
    clean_runs: Option<u32>,
}

/// A test that should block again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    /// The test.
    test: String,
}

fn name(service: &str) -> Result<ServiceName, Problem> {
    service
        .parse()
        .map_err(|error: shipway_core::ids::ParseIdError| Problem::bad_request(error.to_string()))
}

/// The tests of a service: those in quarantine, and those that passed and failed on one commit.
#[utoipa::path(get, path = "/api/v1/services/{service}/tests", params(("service" = String, Path)), responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn service(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
) -> Result<Json<Value>, Problem> {
    memory(&app, &name(&service)?).await.map(Json)
}

async fn memory(app: &App, service: &ServiceName) -> Result<Value, Problem> {
    let known = app.store.row("service", service.as_str()).await?;
    if known.is_none() {
        return Err(Problem::not_found(format!("there is no service {service}")));
    }
    let row = app.store.row("tests", service.as_str()).await?;
    let memory: Testing = row
        .and_then(|row| serde_json::from_value(row.doc).ok())
        .unwrap_or_default();
    Ok(json!({ "quarantine": memory.quarantine, "flaky": memory.flaky }))
}

/// The test that is meant by `named`.
async fn test_of(app: &App, service: &ServiceName, named: &str) -> Result<TestId, Problem> {
    memory(app, service).await?;
    let test = testing::named(app, service, named).await;
    test.map_err(Problem::not_found)
}

/// The tests of a run: totals, failing ones (new and blocking first), the slowest, coverage, and what is different from the last
/// green run.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/tests", params(("service" = String, Path), ("number" = String, Path)), responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Result<Json<RunTests>, Problem> {
    let view = run_view(&app, &runs::id(&service, &number)?).await?;
    let tests = testing::run_tests(&app, &view).await.ok_or_else(|| {
        Problem::not_found(format!(
            "no test of {} has reported: jobs report by JUnit XML in **/TEST-*.xml, or where `reports` in shipway.yaml says",
            view.id
        ))
    })?;
    Ok(Json(tests))
}

/// Why a run failed, in three lines; no lines for one that hasn't.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/why", params(("service" = String, Path), ("number" = String, Path)), responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn why(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let view = run_view(&app, &runs::id(&service, &number)?).await?;
    let lines = failure_summary::summarize(&app, &view).await;
    Ok(Json(
        json!({ "lines": lines.map(Vec::from).unwrap_or_default() }),
    ))
}

/// Keeps a flaky test from blocking, for a while: it runs on, with an owner, a reason and an end.
#[utoipa::path(post, path = "/api/v1/services/{service}/tests/quarantine", params(("service" = String, Path)), request_body = Quarantine,
    responses((status = 200, body = Value), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn quarantine(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(wish): Json<Quarantine>,
) -> Result<Json<Value>, Problem> {
    let service = name(&service)?;
    let test = test_of(&app, &service, &wish.test).await?;
    let touched_by = testing::touched_by(&app, &service, &test).await;
    let request = Request {
        owner: wish.owner,
        reason: wish.reason,
        until: wish
            .until
            .unwrap_or_else(|| app.now() + SignedDuration::from_hours(24 * DAYS)),
        clean_runs: wish.clean_runs.unwrap_or(CLEAN_RUNS),
        touched_by,
        test: test.clone(),
    };
    app.tell_service(
        &service,
        Input::Quarantine(Box::new(request)),
        caller.actor(),
    )
    .await?;
    let memory = testing::memory(&app, &service).await;
    Ok(Json(json!(memory.entry(&test))))
}

/// Has a test in quarantine block again.
#[utoipa::path(post, path = "/api/v1/services/{service}/tests/release", params(("service" = String, Path)), request_body = Release,
    responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn release(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(wish): Json<Release>,
) -> Result<Json<Value>, Problem> {
    let service = name(&service)?;
    let test = test_of(&app, &service, &wish.test).await?;
    app.tell_service(&service, Input::ReleaseTest(test.clone()), caller.actor())
        .await?;
    Ok(Json(json!({ "released": test.to_string() })))
}
