//! Tests as data: what those of a service and of a run said, the quarantine, and why a run failed, in three lines.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::SignedDuration;
use shipway_api::{
    FailureSummary, QuarantineRequest, ReleaseTestRequest, ReleasedTest, RunTests, ServiceTests,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::ServiceName,
    service::ServiceInput,
    testing::{QuarantineTerms, QuarantinedTest, TestId, TestingState},
};

use super::{ApiError, Caller, runs};
use crate::{app::App, failure_summary, read_models::run_view, test_reports::test_history};

/// How long a quarantine lasts by default.
const DAYS: i64 = 14;
/// Clean runs in a row after which a test leaves its quarantine by default.
const CLEAN_RUNS: u32 = 10;

fn name(service: &str) -> Result<ServiceName, ApiError> {
    service
        .parse()
        .map_err(|error: shipway_core::ids::ParseIdError| ApiError::bad_request(error.to_string()))
}

/// The tests of a service: those in quarantine, and those that passed and failed on one commit.
#[utoipa::path(get, path = "/api/v1/services/{service}/tests", params(("service" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn service(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
) -> Result<Json<ServiceTests>, ApiError> {
    let service = name(&service)?;
    caller.require(Verb::Read, &Resource::Service(service.clone()))?;
    service_tests(&app, &service).await.map(Json)
}

async fn service_tests(app: &App, service: &ServiceName) -> Result<ServiceTests, ApiError> {
    let known = app.store.row("service", service.as_str()).await?;
    if known.is_none() {
        return Err(ApiError::missing(format!("no such service: {service}")));
    }
    let row = app.store.row("tests", service.as_str()).await?;
    let memory: TestingState = row
        .and_then(|row| serde_json::from_value(row.doc).ok())
        .unwrap_or_default();
    Ok(ServiceTests {
        quarantine: memory.quarantine,
        flaky: memory.flaky,
    })
}

/// The test with the name `named`, which may be a unique part of its id.
async fn test_of(app: &App, service: &ServiceName, named: &str) -> Result<TestId, ApiError> {
    service_tests(app, service).await?;
    let test = app
        .test_reports
        .find_test(&app.engines, service, named)
        .await;
    test.map_err(|error| ApiError::missing(error.to_string()))
}

/// The tests of a run: totals, failing ones (new and blocking first), the slowest, coverage, and the differences from the last successful
/// run.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/tests", params(("service" = String, Path), ("number" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<RunTests>, ApiError> {
    let id = runs::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::RunTests(id.clone()))?;
    let view = run_view(&*app.store, &id).await?;
    let tests = app.test_reports.run_tests(&app.engines, &view).await.ok_or_else(|| {
        ApiError::missing(format!(
            "no test of {} has reported: write JUnit XML to **/TEST-*.xml, or set `reports` in shipway.yaml",
            view.id
        ))
    })?;
    Ok(Json(tests))
}

/// Why a run failed, in three lines; no lines for one that hasn't.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/why", params(("service" = String, Path), ("number" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn why(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<FailureSummary>, ApiError> {
    let id = runs::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::RunTests(id.clone()))?;
    let view = run_view(&*app.store, &id).await?;
    let lines = failure_summary::summarize(&*app.job_executor, &view).await;
    Ok(Json(FailureSummary {
        lines: lines.map(Vec::from).unwrap_or_default(),
    }))
}

/// Quarantines a flaky test: it still runs, but can't fail the run; with an owner, a reason and an end.
#[utoipa::path(post, path = "/api/v1/services/{service}/tests/quarantine", params(("service" = String, Path)), request_body = QuarantineRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn quarantine(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(request): Json<QuarantineRequest>,
) -> Result<Json<Option<QuarantinedTest>>, ApiError> {
    let service = name(&service)?;
    caller.require(Verb::Quarantine, &Resource::Service(service.clone()))?;
    let test = test_of(&app, &service, &request.test).await?;
    let touched_by = app
        .test_reports
        .touched_by(&app.engines, &service, &test)
        .await;
    let input = QuarantineTerms {
        owner: request.owner,
        reason: request.reason,
        until: request
            .until
            .unwrap_or_else(|| app.now() + SignedDuration::from_hours(24 * DAYS)),
        clean_runs: request.clean_runs.unwrap_or(CLEAN_RUNS),
        touched_by,
        test: test.clone(),
    };
    app.engines
        .send_to_service(
            &service,
            ServiceInput::Quarantine(Box::new(input)),
            caller.actor(),
        )
        .await?;
    let memory = test_history(&app.engines, &service).await;
    Ok(Json(memory.entry(&test).cloned()))
}

/// Releases a test from quarantine: its failures fail the run again.
#[utoipa::path(post, path = "/api/v1/services/{service}/tests/release", params(("service" = String, Path)), request_body = ReleaseTestRequest,
    responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn release(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(request): Json<ReleaseTestRequest>,
) -> Result<Json<ReleasedTest>, ApiError> {
    let service = name(&service)?;
    caller.require(Verb::Quarantine, &Resource::Service(service.clone()))?;
    let test = test_of(&app, &service, &request.test).await?;
    app.engines
        .send_to_service(
            &service,
            ServiceInput::ReleaseTest(test.clone()),
            caller.actor(),
        )
        .await?;
    Ok(Json(ReleasedTest {
        released: test.to_string(),
    }))
}
