//! Releases of all services.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use jiff::Timestamp;
use serde_json::Value;
use shipway_api::{
    ListedRelease, Page, PageQuery, ReleaseAction, ReleaseActionRequest, ReleaseListQuery,
};
use shipway_core::{
    access::{Resource, Verb, VisibleServices},
    ids::{ParseIdError, ReleaseNumber, ServiceName},
    release::Release,
    service::{RejectedRelease, ReleaseView, ServiceInput, ServiceView},
};
use shipway_engine::{Blobs, Clock, RowFacets, RowScope, Store, StoreError};

use super::{
    ApiError, Caller,
    json_body::OptionalJson,
    lists::{ListConditions, conditional_rows, listed_resource, read_page},
};
use crate::{
    capabilities::ServiceRequests,
    read_models::release,
    retention::{release_view, release_views},
};

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

/// Rejects a release: no environment accepts it any more, and its rollouts in progress are rolled back; or takes that back. What already
/// serves stays. Idempotent.
#[utoipa::path(post, path = "/api/v1/services/{service}/releases/{number}/{action}", operation_id = "act_on_release",
    params(("service" = String, Path), ("number" = String, Path, description = "`3` or `#3`"), ("action" = ReleaseAction, Path)), request_body = ReleaseActionRequest,
    responses((status = 200, body = Value), (status = 403, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn act(
    State(requests): State<ServiceRequests>,
    Path((service, number, action)): Path<(String, String, ReleaseAction)>,
    caller: Caller,
    OptionalJson(request): OptionalJson<ReleaseActionRequest>,
) -> Result<Json<ReleaseView>, ApiError> {
    let bad = |error: ParseIdError| ApiError::bad_request(error.to_string());
    let name = service.parse::<ServiceName>().map_err(bad)?;
    let number = number.parse::<ReleaseNumber>().map_err(bad)?;
    let verb = match action {
        ReleaseAction::Reject => Verb::Reject,
        ReleaseAction::Accept => Verb::Approve,
    };
    caller.require(verb, &Resource::Service(name.clone()))?;
    let found = release(&*requests.store, &name, number).await;
    let found = found.ok_or_else(|| {
        ApiError::missing(format!(
            "there is no release {number} of {name}: `shipway releases {name}` lists them"
        ))
    })?;
    let input = match action {
        ReleaseAction::Reject => ServiceInput::RejectRelease {
            release: found.clone(),
            reason: request.reason.unwrap_or_default(),
        },
        ReleaseAction::Accept => ServiceInput::UndoReleaseRejection {
            release: number,
            reason: request.reason,
        },
    };
    let engines = &requests.engines;
    engines
        .send_to_service(&name, input, caller.actor())
        .await?;
    let mut view = release_view(&*requests.blobs, &found).await;
    let state = engines.service(&name).await?;
    view.rejected = state.and_then(|state| state.rejected_releases.get(&number).cloned());
    Ok(Json(view))
}

/// The rejected releases of a service.
pub(crate) async fn rejected_releases(
    store: &dyn Store,
    service: &ServiceName,
) -> Result<BTreeMap<ReleaseNumber, RejectedRelease>, StoreError> {
    let row = store.row("service", service.as_str()).await?;
    let view = row.and_then(|row| serde_json::from_value::<ServiceView>(row.doc).ok());
    Ok(view.map(|view| view.rejected_releases).unwrap_or_default())
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
    let mut rejections = BTreeMap::new();
    for release in &releases {
        if !rejections.contains_key(&release.service) {
            let rejected = rejected_releases(store, &release.service).await?;
            rejections.insert(release.service.clone(), rejected);
        }
    }
    let views = release_views(blobs, &releases).await;
    let items = views
        .into_iter()
        .zip(releases)
        .map(|(view, release)| ListedRelease {
            release: ReleaseView {
                rejected: rejections[&release.service].get(&release.number).cloned(),
                ..view
            },
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
