//! The page of an environment, and its badge.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use shipway_api::RolloutListQuery;
use shipway_core::{
    access::{Resource, Verb},
    ids::{EnvironmentName, ServiceName},
    release::Release,
    service::{EnvironmentRow, EnvironmentView},
    target::{ReplicaSetKey, ServiceEnvironment},
};
use shipway_engine::{Clock, Store};
use shipway_pages::{EnvironmentPage, ListFilters, badge_svg};

use super::{html, lists::documents, page_error::PageError};
use crate::{
    api::{Caller, rollouts::read_rollouts},
    delivery_matrix::MatrixFeed,
    environment_status::{StatusSources, environment_statuses},
    read_models::{ReadModelError, newest_rows, release},
};

/// Rollouts that the page shows.
const ROLLOUTS_SHOWN: u32 = 25;

fn parse_environment(service: &str, environment: &str) -> Option<ServiceEnvironment> {
    Some(ServiceEnvironment {
        service: service.parse::<ServiceName>().ok()?,
        environment: environment.parse::<EnvironmentName>().ok()?,
    })
}

/// Shows an environment.
pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(clock): State<Arc<dyn Clock>>,
    State(sources): State<StatusSources>,
    Path((service, environment)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, PageError> {
    let missing = || {
        PageError::NotFound(format!(
            "No such environment: {service} has no {environment}."
        ))
    };
    let place = parse_environment(&service, &environment).ok_or_else(missing)?;
    caller.require(Verb::Browse, &Resource::Environment(place.clone()))?;
    let key = format!("{service}/{environment}");
    let row = store.row(EnvironmentRow::KIND, &key).await?;
    let row = row.ok_or_else(missing)?;
    let row = serde_json::from_value::<EnvironmentRow>(row.doc).map_err(|_| missing())?;
    let view = row.environment.clone();
    let mut statuses = environment_statuses(&sources, vec![row]).await;
    let status = statuses.pop().ok_or_else(missing)?;
    let query = RolloutListQuery {
        service: Some(service.clone()),
        environment: Some(environment.clone()),
        limit: Some(ROLLOUTS_SHOWN),
        ..RolloutListQuery::default()
    };
    let visible = caller.visible_services();
    let page = read_rollouts(&*store, &visible, clock.now(), &query).await?;
    let mut filters = ListFilters::default();
    let rollouts = documents(page, &mut filters);
    let page = EnvironmentPage {
        availability_percent: view.stable.as_ref().and_then(|stable| {
            let set = ReplicaSetKey {
                place: place.clone(),
                release: stable.number,
            };
            availability_percent(&sources, &set)
        }),
        serves_since: view.since,
        before: view.before.map(|before| before.0),
        configured: configured_release(&*store, &place.service, &view).await?,
        rollouts,
        has_older: filters.next.is_some(),
        status,
        now: clock.now(),
    };
    Ok(html(page.to_html()))
}

/// The release whose configuration holds: the stable one, or the newest where nothing is deployed.
async fn configured_release(
    store: &dyn Store,
    service: &ServiceName,
    view: &EnvironmentView,
) -> Result<Option<Release>, ReadModelError> {
    if let Some(stable) = &view.stable {
        let stable = release(store, service, stable.number).await;
        return Ok(stable.map(|stable| (*stable).clone()));
    }
    let newest: Vec<Release> = newest_rows(store, "release", service.as_str(), 1).await?;
    Ok(newest.into_iter().next())
}

/// Shows the badge of an environment. An unknown one has a badge too, so that a page with it is not broken.
pub(super) async fn badge(
    State(feed): State<MatrixFeed>,
    Path((service, file)): Path<(String, String)>,
    caller: Caller,
) -> Result<Response, PageError> {
    let environment = file.strip_suffix(".svg").unwrap_or(&file);
    let place = parse_environment(&service, environment);
    let svg = match &place {
        None => badge_svg("environment", None),
        Some(place) => {
            caller.require(Verb::Browse, &Resource::Environment(place.clone()))?;
            let snapshot = feed.newest().await?;
            let entry = snapshot.entries.get(&place.service);
            let mut cells = entry.into_iter().flat_map(|it| &it.service.environments);
            let cell = cells.find(|cell| cell.environment == place.environment);
            badge_svg(environment, cell)
        }
    };
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "max-age=30"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
    ];
    Ok((headers, svg).into_response())
}

/// The share of time in which instances of a set were ready; none if no target runs it.
fn availability_percent(sources: &StatusSources, set: &ReplicaSetKey) -> Option<f64> {
    let target = sources.workloads.targets.target_of_set(set)?;
    let availability = target.availability(set);
    let observed = u32::try_from(availability.observed_ms / 100).unwrap_or(u32::MAX);
    let unavailable = u32::try_from(availability.unavailable_ms / 100).unwrap_or(u32::MAX);
    (observed > 0).then(|| 100.0 - f64::from(unavailable) * 100.0 / f64::from(observed))
}
