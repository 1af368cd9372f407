//! Releases of all services.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{ListedRelease, Page, PageQuery, ReleaseListQuery};
use shipway_core::{
    access::{Verb, VisibleServices},
    release::Release,
};
use shipway_engine::{Blobs, Clock, RowFacets, RowScope, Store, StoreError};

use super::{
    ApiError, Caller,
    lists::{ListConditions, conditional_rows, listed_resource, read_page},
};
use crate::retention::release_views;

/// Releases of all services, the newest first.
#[utoipa::path(get, path = "/api/v1/releases", operation_id = "list_releases", params(ReleaseListQuery), responses((status = 200, description = "A page of releases", body = Value)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    State(blobs): State<Arc<dyn Blobs>>,
    State(clock): State<Arc<dyn Clock>>,
    Query(filter): Query<ReleaseListQuery>,
    caller: Caller,
) -> Result<Json<Page<ListedRelease>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(filter.service.as_deref()))?;
    let page = read_releases(
        &*store,
        &*blobs,
        &caller.visible_services(),
        clock.now(),
        &filter,
    )
    .await?;
    Ok(Json(page))
}

/// A page of the list of releases.
pub(crate) async fn read_releases(
    store: &dyn Store,
    blobs: &dyn Blobs,
    visible: &VisibleServices,
    now: Timestamp,
    filter: &ReleaseListQuery,
) -> Result<Page<ListedRelease>, StoreError> {
    let query = PageQuery {
        limit: filter.limit,
        cursor: filter.cursor,
    };
    let conditions = ListConditions {
        service: filter.service.as_deref(),
        visible: visible.names(),
        scope: RowScope::All,
        facets: RowFacets {
            branch: filter.branch.as_deref(),
            person: filter.person.as_deref(),
            ..RowFacets::default()
        },
        since: filter.since,
        until: filter.until,
    };
    let rows = conditional_rows(store, now, "release", conditions).await?;
    let page: Page<Value> = read_page(store, rows, &query).await?;
    let docs = page.items.into_iter();
    let releases: Vec<Release> = docs
        .filter_map(|doc| serde_json::from_value(doc).ok())
        .collect();
    let views = release_views(blobs, &releases).await;
    let items = views
        .into_iter()
        .zip(releases)
        .map(|(view, release)| ListedRelease {
            release: view,
            branch: release.config.branch.clone(),
            by: release.by.as_ref().map(ToString::to_string),
            service: release.service,
        })
        .collect();
    Ok(Page {
        items,
        next: page.next,
    })
}
