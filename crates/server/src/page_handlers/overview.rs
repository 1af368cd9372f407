//! The page of `/`: all services and their environments.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use shipway_core::{
    access::{Resource, Verb},
    run::newest_run_of_each_workflow,
};
use shipway_engine::{Clock, Store};
use shipway_pages::ServicesPage;

use super::{html, page_error::PageError};
use crate::{
    api::Caller,
    capabilities::ServerAddresses,
    environment_status::{StatusSources, all_environment_statuses},
    read_models::{ReadModelError, newest_rows},
};

/// Runs that are read to find the newest of each workflow.
const LIST_ENTRIES: u32 = 15;

pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(server_addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    State(status): State<StatusSources>,
    caller: Caller,
) -> Result<Response, PageError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let mut environments = all_environment_statuses(&status)
        .await
        .map_err(ReadModelError::from)?;
    let visible = caller.visible_services();
    environments.retain(|environment| visible.contains(&environment.service));
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
