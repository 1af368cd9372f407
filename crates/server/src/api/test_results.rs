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
use shipway_drivers::jobs::JobExecutor;
use shipway_engine::{Clock, Store};

use super::{ApiError, Caller, json_body::JsonObject, runs};
use crate::{
    delivery_engines::DeliveryEngines,
    failure_summary,
    read_models::run_view,
    test_reports::{TestReports, test_history},
};

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
#[utoipa::path(get, path = "/api/v1/services/{service}/tests", operation_id = "list_service_tests", params(("service" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn service(
    State(store): State<Arc<dyn Store>>,
    Path(service): Path<String>,
    caller: Caller,
) -> Result<Json<ServiceTests>, ApiError> {
    let service = name(&service)?;
    caller.require(Verb::Read, &Resource::Service(service.clone()))?;
    service_tests(&*store, &service).await.map(Json)
}

async fn service_tests(store: &dyn Store, service: &ServiceName) -> Result<ServiceTests, ApiError> {
    let known = store.row("service", service.as_str()).await?;
    if known.is_none() {
        return Err(ApiError::missing(format!("no such service: {service}")));
    }
    let row = store.row("tests", service.as_str()).await?;
    let memory: TestingState = row
        .and_then(|row| serde_json::from_value(row.doc).ok())
        .unwrap_or_default();
    Ok(ServiceTests {
        quarantine: memory.quarantine,
        flaky: memory.flaky,
    })
}

/// The test with the name `named`, which may be a unique part of its id.
async fn find_test(
    store: &dyn Store,
    engines: &DeliveryEngines,
    test_reports: &TestReports,
    service: &ServiceName,
    named: &str,
) -> Result<TestId, ApiError> {
    service_tests(store, service).await?;
    let test = test_reports.find_test(engines, service, named).await;
    test.map_err(|error| ApiError::missing(error.to_string()))
}

/// The tests of a run: totals, failing ones (new and blocking first), the slowest, coverage, and the differences from the last successful
/// run.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/tests", operation_id = "list_run_tests", params(("service" = String, Path), ("number" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn run(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(test_reports): State<TestReports>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<RunTests>, ApiError> {
    let id = runs::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::RunTests(id.clone()))?;
    let view = run_view(&*store, &id).await?;
    let tests = test_reports.run_tests(&engines, &view).await.ok_or_else(|| {
        ApiError::missing(format!(
            "no test of {} has reported: write JUnit XML to **/TEST-*.xml, or set `reports` in shipway.yaml",
            view.id
        ))
    })?;
    Ok(Json(tests))
}

/// Why a run failed, in three lines; no lines for one that hasn't.
#[utoipa::path(get, path = "/api/v1/runs/{service}/{number}/why", operation_id = "explain_run_failure", params(("service" = String, Path), ("number" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn why(
    State(store): State<Arc<dyn Store>>,
    State(job_executor): State<Arc<dyn JobExecutor>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<FailureSummary>, ApiError> {
    let id = runs::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::RunTests(id.clone()))?;
    let view = run_view(&*store, &id).await?;
    let lines = failure_summary::summarize(&*job_executor, &view).await;
    Ok(Json(FailureSummary {
        lines: lines.map(Vec::from).unwrap_or_default(),
    }))
}

/// Quarantines a flaky test: it still runs, but can't fail the run; with an owner, a reason and an end.
#[utoipa::path(post, path = "/api/v1/services/{service}/tests/quarantine", operation_id = "quarantine_test", params(("service" = String, Path)), request_body = QuarantineRequest,
    responses((status = 200, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn quarantine(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(test_reports): State<TestReports>,
    State(clock): State<Arc<dyn Clock>>,
    Path(service): Path<String>,
    caller: Caller,
    JsonObject(request): JsonObject<QuarantineRequest>,
) -> Result<Json<Option<QuarantinedTest>>, ApiError> {
    let service = name(&service)?;
    caller.require(Verb::Quarantine, &Resource::Service(service.clone()))?;
    let test = find_test(&*store, &engines, &test_reports, &service, &request.test).await?;
    let touched_by = test_reports.touched_by(&engines, &service, &test).await;
    let input = QuarantineTerms {
        owner: request.owner,
        reason: request.reason,
        until: request
            .until
            .unwrap_or_else(|| clock.now() + SignedDuration::from_hours(24 * DAYS)),
        clean_runs: request.clean_runs.unwrap_or(CLEAN_RUNS),
        touched_by,
        test: test.clone(),
    };
    engines
        .send_to_service(
            &service,
            ServiceInput::Quarantine(Box::new(input)),
            caller.actor(),
        )
        .await?;
    let memory = test_history(&engines, &service).await;
    Ok(Json(memory.entry(&test).cloned()))
}

/// Releases a test from quarantine: its failures fail the run again.
#[utoipa::path(post, path = "/api/v1/services/{service}/tests/release", operation_id = "release_test", params(("service" = String, Path)), request_body = ReleaseTestRequest,
    responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn release(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(test_reports): State<TestReports>,
    Path(service): Path<String>,
    caller: Caller,
    JsonObject(request): JsonObject<ReleaseTestRequest>,
) -> Result<Json<ReleasedTest>, ApiError> {
    let service = name(&service)?;
    caller.require(Verb::Quarantine, &Resource::Service(service.clone()))?;
    let test = find_test(&*store, &engines, &test_reports, &service, &request.test).await?;
    engines
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
