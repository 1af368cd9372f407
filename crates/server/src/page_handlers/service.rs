//! The page of a service.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::ServiceName,
    release::Release,
};
use shipway_engine::{Blobs, Clock, Store};
use shipway_pages::ServicePage;

use super::{html, page_error::PageError};
use crate::{
    api::Caller,
    environment_status::{StatusSources, all_environment_statuses},
    read_models::{ReadModelError, newest_rows},
    retention::release_views,
};

/// Entries of each list.
const LIST_ENTRIES: u32 = 15;

pub(super) async fn show(
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
    let page = ServicePage {
        environments,
        rollouts: newest_rows(&*store, "rollout", &service, LIST_ENTRIES).await?,
        runs: newest_rows(&*store, "run", &service, LIST_ENTRIES).await?,
        releases: release_views(&*blobs, &releases).await,
        service,
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}
