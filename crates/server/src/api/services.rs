//! Services, their releases, environments and runs by hand.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde_json::Value;
use shipway_api::{DispatchRequest, DispatchedRun, EnvironmentStatus, Page, PageQuery};
use shipway_core::{
    access::{Resource, Verb},
    ids::{CommitId, ServiceName},
    release::{Release, WorkflowFile},
    service::{self, ServiceEvent, ServiceInput},
};
use shipway_drivers::git::{GitError, GitRepository};
use shipway_engine::{RowScope, Store, StoreError};

use super::{ApiError, Caller};
use crate::{
    app::{App, service_stream},
    environment_status::environment_statuses,
};

/// Entries of a page by default.
const LIMIT: u32 = 50;
/// Entries of a page at most.
pub(super) const LIMIT_MAX: u32 = 200;

/// A page of a read model, the newest change first. Its rows are passed on as they are stored: they are the documents of the API.
pub(crate) async fn read_page(
    app: &App,
    kind: &str,
    service: Option<&str>,
    scope: RowScope,
    query: &PageQuery,
) -> Result<Page<Value>, ApiError> {
    Ok(read_matching_page(&*app.store, kind, service, scope, query, |_| true).await?)
}

/// [`read_page`] of the rows that match; rows that don't match take no place on the page.
///
/// A store's cursor continues after the last row that it read, so that a read with more matches than the page has left is repeated
/// with fewer rows.
pub(super) async fn read_matching_page(
    store: &dyn Store,
    kind: &str,
    service: Option<&str>,
    scope: RowScope,
    query: &PageQuery,
    is_match: impl Fn(&Value) -> bool,
) -> Result<Page<Value>, StoreError> {
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX) as usize;
    let (mut items, mut next) = (Vec::new(), query.cursor);
    let mut read_max = limit;
    loop {
        let count = u32::try_from(read_max).unwrap_or(LIMIT_MAX);
        let read = store.rows(kind, service, scope, next, count).await?;
        let left = limit - items.len();
        let matching = (0..read.rows.len()).filter(|&index| is_match(&read.rows[index].doc));
        let matching: Vec<usize> = matching.collect();
        if matching.len() > left {
            read_max = matching[left - 1] + 1;
            continue;
        }
        let docs = read.rows.into_iter().map(|row| row.doc);
        items.extend(docs.filter(&is_match));
        next = read.next;
        if next.is_none() || items.len() == limit {
            return Ok(Page { items, next });
        }
        read_max = LIMIT_MAX as usize;
    }
}

/// The resource of a list: one service, or all of them.
pub(super) fn listed_resource(service: Option<&str>) -> Resource {
    // A malformed name gives an empty list.
    let service = service.and_then(|service| service.parse().ok());
    service.map_or(Resource::Server, Resource::Service)
}

/// All services.
#[utoipa::path(get, path = "/api/v1/services", responses((status = 200, body = Value)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let query = PageQuery {
        limit: Some(LIMIT_MAX),
        cursor: None,
    };
    read_page(&app, "service", None, RowScope::All, &query)
        .await
        .map(Json)
}

/// One service: the stable release, rollout and queue of each of its environments.
#[utoipa::path(get, path = "/api/v1/services/{service}", params(("service" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.require(Verb::Read, &listed_resource(Some(&service)))?;
    let row = app.store.row("service", &service).await?;
    row.map(|row| Json(row.doc))
        .ok_or_else(|| unknown(&service))
}

/// Releases, the newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/releases", params(("service" = String, Path), PageQuery), responses((status = 200, body = Value)))]
pub(super) async fn releases(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    Query(query): Query<PageQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(Some(&service)))?;
    let mut page = read_page(&app, "release", Some(&service), RowScope::All, &query).await?;
    for doc in &mut page.items {
        if let Ok(release) = serde_json::from_value::<Release>(doc.take()) {
            *doc = serde_json::to_value(service::ReleaseView::from(&release))
                .expect("a view is plain data");
        }
    }
    Ok(Json(page))
}

/// Starts a workflow by hand (`workflow_dispatch`).
#[utoipa::path(post, path = "/api/v1/services/{service}/runs", params(("service" = String, Path)), request_body = DispatchRequest,
    responses((status = 202, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn dispatch(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(request): Json<DispatchRequest>,
) -> Result<(StatusCode, Json<DispatchedRun>), ApiError> {
    let name = parse::<ServiceName>(&service)?;
    caller.require(Verb::Dispatch, &Resource::Service(name.clone()))?;
    let git = |error: GitError| ApiError::conflict(error.to_string());
    let repo = app.repos.get(&name).ok_or_else(|| unknown(&service))?;
    let state = app.services.state(&service_stream(&name)).await?;
    let branch = request
        .r#ref
        .or_else(|| Some(state?.config.as_ref()?.branch.clone()))
        .unwrap_or_else(|| "main".to_owned());
    let (reference, commit) = branch_or_tag(&repo, &branch)
        .await
        .map_err(git)?
        .ok_or_else(|| {
            ApiError::missing(format!("there is no branch or tag {branch}; push it first"))
        })?;
    let workflow: WorkflowFile = crate::push::find_dispatchable(
        &repo,
        &commit,
        request.workflow.as_deref(),
        &request.inputs,
    )
    .await
    .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let commit = crate::push::commit_of(&repo, &commit).await.map_err(git)?;
    let input = ServiceInput::Dispatch {
        workflow,
        commit,
        reference,
        inputs: request.inputs,
    };
    let outcome = app.send_to_service(&name, input, caller.actor()).await?;
    let run = outcome.events.iter().find_map(|event| match &event.body {
        ServiceEvent::RunOrdered { order } => Some(order.number),
        _ => None,
    });
    if let Some(number) = run {
        until_there(&app, "run", &format!("{name}/{}", number.0)).await;
    }
    let run = run.map(|number| format!("{name}/{number}"));
    Ok((StatusCode::ACCEPTED, Json(DispatchedRun { run })))
}

/// What a name stands for: the full name of the ref, and the commit it points at.
async fn branch_or_tag(
    repo: &GitRepository,
    name: &str,
) -> Result<Option<(String, CommitId)>, GitError> {
    let full = if name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
        vec![name.to_owned()]
    } else {
        vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")]
    };
    for reference in full {
        if let Some(commit) = repo.resolve(&reference).await? {
            return Ok(Some((reference, commit)));
        }
    }
    Ok(None)
}

/// How long a request waits until its order has a row. After that it answers without: the order is in the log.
const OPENING: Duration = Duration::from_secs(5);

/// Waits for a row. A driver opens the ordered run or rollout a moment later, and a client may ask for it as soon as it has the number.
pub(super) async fn until_there(app: &App, kind: &str, key: &str) {
    let there = async {
        while !matches!(app.store.row(kind, key).await, Ok(Some(_)) | Err(_)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(OPENING, there).await.is_err() {
        tracing::warn!(kind, key, "ordered, and not there yet");
    }
}

/// Every environment of every service: the stable release, its instances, the traffic of each release, the measured metrics.
#[utoipa::path(get, path = "/api/v1/environments", responses((status = 200, body = Value)))]
pub(super) async fn environments(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Json<Page<EnvironmentStatus>>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    Ok(Json(Page {
        items: environment_statuses(&app).await?,
        next: None,
    }))
}

pub(super) fn unknown(service: &str) -> ApiError {
    ApiError::missing(format!(
        "there is no service {service}; push a commit with a shipway.yaml to /git/{service}"
    ))
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| ApiError::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use shipway_core::aggregate::ViewRow;
    use shipway_engine::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_filtered_list_has_full_pages_and_misses_no_row() {
        let store = MemoryStore::default();
        // Every third rollout is in production.
        let rows = (0..1_000).map(|number| ViewRow {
            kind: "rollout".to_owned(),
            key: format!("shop/{number}"),
            service: "shop".to_owned(),
            live: false,
            doc: serde_json::json!({ "number": number, "production": number % 3 == 0 }),
        });
        store.replace_rows("rollout", rows.collect()).await.unwrap();
        for limit in [1, 7, 50, 200] {
            let (mut numbers, mut cursor) = (Vec::new(), None);
            loop {
                let query = PageQuery {
                    limit: Some(limit),
                    cursor,
                };
                let is_match = |doc: &Value| doc["production"] == true;
                let page =
                    read_matching_page(&store, "rollout", None, RowScope::All, &query, is_match);
                let page = page.await.unwrap();
                let is_full = page.items.len() == limit as usize;
                assert!(is_full || page.next.is_none(), "{limit}");
                numbers.extend(page.items.iter().map(|doc| doc["number"].as_u64().unwrap()));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            let expected: Vec<u64> = (0..1_000).rev().filter(|it| it % 3 == 0).collect();
            assert_eq!(numbers, expected, "{limit}");
        }
    }
}
