//! The addresses of the pages: each gathers what its page shows. The HTML is made by `shipway_pages`.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::{RolloutId, RolloutNumber, RunId, RunNumber, ServiceName},
    release::Release,
    run::newest_run_of_each_workflow,
};
use shipway_drivers::jobs::JobExecutor;
use shipway_engine::{Blobs, Clock, Store};
use shipway_pages::{
    CONTENT_SECURITY_POLICY, RolloutPage, RunPage, ServicePage, ServicesPage, not_found_page,
};

use crate::{
    api::{ApiError, Caller},
    app::AppState,
    capabilities::{ReleaseObservations, ServerAddresses},
    delivery_engines::DeliveryEngines,
    environment_status::{StatusSources, all_environment_statuses},
    failure_summary,
    read_models::{ReadModelError, analysis_series, newest_rows, rollout_view, run_details},
    retention::release_view,
    test_reports::TestReports,
};

/// Entries of each list on the page of a service.
const LIST_ENTRIES: u32 = 15;

/// The routes of all pages.
pub(crate) fn routes() -> Router<AppState> {
    static CSS: LazyLock<String> = LazyLock::new(shipway_pages::style_sheet);
    Router::new()
        .route("/", get(services))
        .route("/services/{service}", get(service))
        .route("/rollouts/{service}/{number}", get(rollout))
        .route("/runs/{service}/{number}", get(run))
        .route(
            "/assets/shipway.css",
            get(|caller| asset(caller, "text/css; charset=utf-8", &CSS)),
        )
        .route(
            "/assets/shipway.js",
            get(|caller| {
                let script = shipway_pages::SCRIPT;
                asset(caller, "text/javascript; charset=utf-8", script)
            }),
        )
}

async fn asset(
    caller: Caller,
    content_type: &'static str,
    text: &'static str,
) -> Result<Response, ApiError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "max-age=60"),
    ];
    Ok((headers, text).into_response())
}

/// Why a page can't be shown.
enum PageError {
    NotFound(String),
    Failed(ApiError),
}

impl From<ReadModelError> for PageError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::NoRun(_) | ReadModelError::NoRollout { .. } => {
                Self::NotFound(error.to_string())
            }
            ReadModelError::UnreadableRow { .. }
            | ReadModelError::Store(_)
            | ReadModelError::Analysis(_) => Self::Failed(error.into()),
        }
    }
}

impl From<ApiError> for PageError {
    fn from(problem: ApiError) -> Self {
        Self::Failed(problem)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(reason) => {
                (StatusCode::NOT_FOUND, html(not_found_page(&reason))).into_response()
            }
            Self::Failed(problem) => problem.into_response(),
        }
    }
}

fn html(page: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(page)).into_response()
}

async fn services(
    State(store): State<Arc<dyn Store>>,
    State(server_addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    State(status): State<StatusSources>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let environments = all_environment_statuses(&status)
        .await
        .map_err(ReadModelError::from)?;
    let mut last_runs = BTreeMap::new();
    for environment in &environments {
        let service = &environment.service;
        if !last_runs.contains_key(service) {
            let runs = newest_rows(&*store, "run", service.as_str(), LIST_ENTRIES).await?;
            last_runs.insert(service.clone(), newest_run_of_each_workflow(runs));
        }
    }
    let page = ServicesPage {
        environments,
        last_runs,
        server_url: server_addresses.url.clone(),
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

async fn service(
    State(store): State<Arc<dyn Store>>,
    State(blobs): State<Arc<dyn Blobs>>,
    State(clock): State<Arc<dyn Clock>>,
    State(status): State<StatusSources>,
    Path(service): Path<String>,
    caller: Caller,
) -> Result<Response, PageError> {
    let Ok(name) = service.parse::<ServiceName>() else {
        return Err(PageError::NotFound(format!("No such service: {service}.")));
    };
    caller.require(Verb::Browse, &Resource::Service(name))?;
    let mut environments = all_environment_statuses(&status)
        .await
        .map_err(ReadModelError::from)?;
    environments.retain(|environment| environment.service.as_str() == service);
    if environments.is_empty() {
        return Err(PageError::NotFound(format!("No such service: {service}.")));
    }
    let releases: Vec<Release> = newest_rows(&*store, "release", &service, LIST_ENTRIES).await?;
    let mut release_views = Vec::new();
    for release in &releases {
        release_views.push(release_view(&*blobs, release).await);
    }
    let page = ServicePage {
        environments,
        rollouts: newest_rows(&*store, "rollout", &service, LIST_ENTRIES).await?,
        runs: newest_rows(&*store, "run", &service, LIST_ENTRIES).await?,
        releases: release_views,
        service,
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

async fn rollout(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(observations): State<ReleaseObservations>,
    State(clock): State<Arc<dyn Clock>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, PageError> {
    let (Ok(service), Ok(number)) = (
        service.parse::<ServiceName>(),
        number.parse::<RolloutNumber>(),
    ) else {
        return Err(PageError::NotFound("No such rollout.".to_owned()));
    };
    let id = RolloutId { service, number };
    caller.require(Verb::Browse, &Resource::Rollout(id.clone()))?;
    let page = RolloutPage {
        rollout: rollout_view(&engines, &observations.live_evidence, &id).await?,
        series: analysis_series(&*store, &id).await.unwrap_or_default(),
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

async fn run(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(job_executor): State<Arc<dyn JobExecutor>>,
    State(test_reports): State<TestReports>,
    State(clock): State<Arc<dyn Clock>>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, PageError> {
    let (Ok(service), Ok(number)) = (service.parse::<ServiceName>(), number.parse::<RunNumber>())
    else {
        return Err(PageError::NotFound("No such run.".to_owned()));
    };
    let id = RunId { service, number };
    caller.require(Verb::Browse, &Resource::Run(id.clone()))?;
    let details = run_details(&*store, &*job_executor, &id).await?;
    let page = RunPage {
        failure_summary: failure_summary::summarize(&*job_executor, &details.run).await,
        tests: test_reports.run_tests(&engines, &details.run).await,
        run: details,
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}
