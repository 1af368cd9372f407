//! The page of a run, and the parts of it that its script fetches.

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::{RunId, RunNumber, ServiceName},
};
use shipway_pages::{ShownLog, log_fragment, log_search_fragment};

use super::{html, page_error::PageError};
use crate::{
    api::Caller,
    read_models::run_view,
    run_page::{RunLogQuery, RunPageSources},
};

pub(super) async fn show(
    State(sources): State<RunPageSources>,
    Path((service, number)): Path<(String, String)>,
    Query(query): Query<RunLogQuery>,
    caller: Caller,
) -> Result<Response, PageError> {
    let id = parse_run_id(&service, &number)?;
    caller.require(Verb::Browse, &Resource::Run(id.clone()))?;
    let page = sources.gather(&id, &query).await?;
    Ok(html(page.to_html()))
}

/// Lines of a log, or what a search in it has found.
pub(super) async fn show_log(
    State(sources): State<RunPageSources>,
    Path((service, number)): Path<(String, String)>,
    Query(query): Query<RunLogQuery>,
    caller: Caller,
) -> Result<Response, PageError> {
    let id = parse_run_id(&service, &number)?;
    caller.require(Verb::Read, &Resource::JobLogs(id.clone()))?;
    let view = run_view(&*sources.logs.store, &id).await?;
    let no_log = || PageError::NotFound(format!("There is no such log of {id}."));
    let (job_view, job) = sources.named_job(&view, &query).ok_or_else(no_log)?;
    if let Some(found) = sources.search_results(&job, &query).await? {
        let base = format!("/runs/{}/{}", id.service, id.number.0);
        let key = job.key.to_string();
        return Ok(html(log_search_fragment(&base, &key, job.attempt, &found)));
    }
    match sources.shown_log(&view, job_view, &job, &query).await? {
        ShownLog::Lines(window) => Ok(html(log_fragment(&window).into_string())),
        ShownLog::Missing { .. } | ShownLog::NoJob => Err(no_log()),
    }
}

fn parse_run_id(service: &str, number: &str) -> Result<RunId, PageError> {
    match (service.parse::<ServiceName>(), number.parse::<RunNumber>()) {
        (Ok(service), Ok(number)) => Ok(RunId { service, number }),
        _ => Err(PageError::NotFound("No such run.".to_owned())),
    }
}
