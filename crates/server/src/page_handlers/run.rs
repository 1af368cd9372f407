//! The page of a run.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::{RunId, RunNumber, ServiceName},
};
use shipway_drivers::jobs::JobExecutor;
use shipway_engine::{Clock, Store};
use shipway_pages::RunPage;

use super::{html, page_error::PageError};
use crate::{
    api::Caller, delivery_engines::DeliveryEngines, failure_summary, read_models::run_details,
    test_reports::TestReports,
};

pub(super) async fn show(
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
