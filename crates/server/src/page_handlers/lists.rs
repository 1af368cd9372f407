//! The pages of the lists of runs, rollouts and releases.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shipway_api::Page;
use shipway_core::{access::Verb, rollout::RolloutView, run::RunView};
use shipway_engine::{Blobs, Clock, Store};
use shipway_pages::{ListFilters, ListPage};

use super::{html, list_parameters::ListParameters, page_error::PageError};
use crate::{
    api::{
        Caller, lists::listed_resource, releases::read_releases, rollouts::read_rollouts,
        runs::read_runs,
    },
    capabilities::ServerAddresses,
};

/// Shows the list of runs.
pub(super) async fn runs(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    State(addresses): State<ServerAddresses>,
    Query(parameters): Query<ListParameters>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &listed_resource(parameters.service()))?;
    let (now, visible) = (clock.now(), caller.visible_services());
    let mut filters = parameters.filters();
    let entries: Vec<RunView> = match parameters.run_query() {
        Ok(query) => documents(
            read_runs(&*store, &visible, now, &query).await?,
            &mut filters,
        ),
        Err(error) => refused(&error, &mut filters),
    };
    let page = ListPage {
        entries,
        filters,
        server_url: addresses.url,
        now,
    };
    Ok(html(page.to_html()))
}

/// Shows the list of rollouts.
pub(super) async fn rollouts(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    State(addresses): State<ServerAddresses>,
    Query(parameters): Query<ListParameters>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &listed_resource(parameters.service()))?;
    let (now, visible) = (clock.now(), caller.visible_services());
    let mut filters = parameters.filters();
    let entries: Vec<RolloutView> = match parameters.rollout_query() {
        Ok(query) => {
            let page = read_rollouts(&*store, &visible, now, &query).await?;
            documents(page, &mut filters)
        }
        Err(error) => refused(&error, &mut filters),
    };
    let page = ListPage {
        entries,
        filters,
        server_url: addresses.url,
        now,
    };
    Ok(html(page.to_html()))
}

/// Shows the list of releases.
pub(super) async fn releases(
    State(store): State<Arc<dyn Store>>,
    State(blobs): State<Arc<dyn Blobs>>,
    State(clock): State<Arc<dyn Clock>>,
    State(addresses): State<ServerAddresses>,
    Query(parameters): Query<ListParameters>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &listed_resource(parameters.service()))?;
    let (now, visible) = (clock.now(), caller.visible_services());
    let mut filters = parameters.filters();
    let entries = match parameters.release_query() {
        Ok(query) => {
            let page = read_releases(&*store, &*blobs, &visible, now, &query).await?;
            filters.next = page.next;
            page.items
        }
        Err(error) => refused(&error, &mut filters),
    };
    let page = ListPage {
        entries,
        filters,
        server_url: addresses.url,
        now,
    };
    Ok(html(page.to_html()))
}

/// The entries of a page; unreadable ones are skipped.
pub(super) fn documents<T: DeserializeOwned>(
    page: Page<Value>,
    filters: &mut ListFilters,
) -> Vec<T> {
    filters.next = page.next;
    let items = page.items.into_iter();
    items
        .filter_map(|doc| serde_json::from_value(doc).ok())
        .collect()
}

/// No entries, with the reason above the list.
pub(super) fn refused<T>(error: &impl ToString, filters: &mut ListFilters) -> Vec<T> {
    filters.problem = Some(error.to_string());
    Vec::new()
}
