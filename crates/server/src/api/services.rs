//! Services, their releases, environments and runs by hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde_json::Value;
use shipway_api::{DispatchRequest, DispatchedRun, Page, PageQuery};
use shipway_core::{
    access::{Resource, Verb},
    ids::{CommitId, ServiceName},
    release::{Release, WorkflowFile},
    service::{ReleaseView, ServiceEvent, ServiceInput},
};
use shipway_drivers::git::{GitError, GitRepositories, GitRepository};
use shipway_engine::{Blobs, RowQuery, Store};

use super::{
    ApiError, Caller,
    json_body::JsonObject,
    lists::{listed_resource, read_page},
    releases::rejected_releases,
};
use crate::{delivery_engines::DeliveryEngines, retention::release_views};

/// All services.
#[utoipa::path(get, path = "/api/v1/services", operation_id = "list_services", params(PageQuery), responses((status = 200, body = Value)))]
pub(super) async fn list(
    State(store): State<Arc<dyn Store>>,
    Query(query): Query<PageQuery>,
    caller: Caller,
) -> Result<Json<Page<Value>>, ApiError> {
    caller.require(Verb::Read, &Resource::Server)?;
    let visible = caller.visible_services();
    let rows = RowQuery {
        visible: visible.names(),
        ..RowQuery::new("service")
    };
    let page = read_page(&*store, rows, &query).await?;
    Ok(Json(page))
}

/// One service: the stable release, rollout and queue of each of its environments.
#[utoipa::path(get, path = "/api/v1/services/{service}", operation_id = "show_service", params(("service" = String, Path)), responses((status = 200, body = Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    Path(service): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.require(Verb::Read, &listed_resource(Some(&service)))?;
    let row = store.row("service", &service).await?;
    row.map(|row| Json(row.doc))
        .ok_or_else(|| unknown(&service))
}

/// Releases, newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/releases", operation_id = "list_service_releases", params(("service" = String, Path), PageQuery), responses((status = 200, body = Value)))]
pub(super) async fn releases(
    State(store): State<Arc<dyn Store>>,
    State(blobs): State<Arc<dyn Blobs>>,
    Path(service): Path<String>,
    Query(query): Query<PageQuery>,
    caller: Caller,
) -> Result<Json<Page<ReleaseView>>, ApiError> {
    caller.require(Verb::Read, &listed_resource(Some(&service)))?;
    let rows = RowQuery {
        service: Some(&service),
        ..RowQuery::new("release")
    };
    let page = read_page(&*store, rows, &query).await?;
    let docs = page.items.into_iter();
    let releases: Vec<Release> = docs
        .filter_map(|doc| serde_json::from_value(doc).ok())
        .collect();
    let rejected = match service.parse() {
        Ok(name) => rejected_releases(&*store, &name).await?,
        Err(_) => BTreeMap::new(),
    };
    let mut items = release_views(&*blobs, &releases).await;
    for view in &mut items {
        view.rejected = rejected.get(&view.number).cloned();
    }
    Ok(Json(Page {
        items,
        next: page.next,
    }))
}

/// Starts a workflow manually (`workflow_dispatch`).
#[utoipa::path(post, path = "/api/v1/services/{service}/runs", operation_id = "dispatch_workflow", params(("service" = String, Path)), request_body = DispatchRequest,
    responses((status = 202, body = Value), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn dispatch(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(repos): State<Arc<GitRepositories>>,
    Path(service): Path<String>,
    caller: Caller,
    JsonObject(request): JsonObject<DispatchRequest>,
) -> Result<(StatusCode, Json<DispatchedRun>), ApiError> {
    let name = parse::<ServiceName>(&service)?;
    caller.require(Verb::Dispatch, &Resource::Service(name.clone()))?;
    let git = |error: GitError| ApiError::conflict(error.to_string());
    let state = engines.service(&name).await?;
    let location = state.as_ref().and_then(|state| state.location.as_ref());
    let repository = location.map_or(&name, |location| &location.repository);
    let repo = repos.get(repository).ok_or_else(|| unknown(&service))?;
    let branch = request
        .r#ref
        .or_else(|| Some(state?.config.as_ref()?.branch.clone()))
        .unwrap_or_else(|| "main".to_owned());
    let (reference, commit) = branch_or_tag(&repo, &branch)
        .await
        .map_err(git)?
        .ok_or_else(|| ApiError::missing(format!("no branch or tag {branch}; push it first")))?;
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
    let outcome = engines
        .send_to_service(&name, input, caller.actor())
        .await?;
    let run = outcome.events.iter().find_map(|event| match &event.body {
        ServiceEvent::RunOrdered { order } => Some(order.number),
        _ => None,
    });
    if let Some(number) = run {
        until_there(&*store, "run", &format!("{name}/{}", number.0)).await;
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
pub(super) async fn until_there(store: &dyn Store, kind: &str, key: &str) {
    let there = async {
        while !matches!(store.row(kind, key).await, Ok(Some(_)) | Err(_)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(OPENING, there).await.is_err() {
        tracing::warn!(kind, key, "requested, but not created yet");
    }
}

pub(super) fn unknown(service: &str) -> ApiError {
    ApiError::missing(format!(
        "no such service: {service}; push a commit with a shipway.yaml to /git/{service}"
    ))
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| ApiError::bad_request(error.to_string()))
}
