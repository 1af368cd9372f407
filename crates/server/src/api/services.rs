//! Services, their releases, environments and runs by hand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_api::EnvironmentStatus;
use shipway_core::{
    ids::{CommitId, ServiceName},
    release::{Release, WorkflowFile},
    service::{self, Body, Input},
};
use shipway_drivers::git::{GitError, GitRepository};
use utoipa::{IntoParams, ToSchema};

use super::{Caller, Problem};
use crate::{
    app::{App, service_stream},
    environment_status::environment_statuses,
};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// Its entries.
    pub(crate) items: Vec<T>,
    /// The cursor of the next page, when there is one.
    pub(crate) next: Option<u64>,
}

/// Entries of a page when nobody says how many.
const LIMIT: u32 = 50;
/// Entries of a page at most.
const LIMIT_MAX: u32 = 200;

impl Page<Value> {
    /// A page of a read model, the newest change first.
    pub(crate) async fn of(
        app: &App,
        kind: &str,
        service: Option<&str>,
        live: bool,
        cursor: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
        let page = app.store.rows(kind, service, live, cursor, limit).await?;
        Ok(Self {
            items: page.rows.into_iter().map(|row| row.doc).collect(),
            next: page.next,
        })
    }
}

/// Where in a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// At most so many; 50 when not said, 200 at most.
    limit: Option<u32>,
    /// Where the page before ended.
    cursor: Option<u64>,
}

/// All services.
#[utoipa::path(get, path = "/api/v1/services", responses((status = 200, body = Value)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Page<Value>>, Problem> {
    Page::of(&app, "service", None, false, None, Some(LIMIT_MAX))
        .await
        .map(Json)
}

/// One service: what serves in each of its environments, what is coming.
#[utoipa::path(get, path = "/api/v1/services/{service}", params(("service" = String, Path)), responses((status = 200, body = Value), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = app.store.row("service", &service).await?;
    row.map(|row| Json(row.doc))
        .ok_or_else(|| unknown(&service))
}

/// Releases, the newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/releases", params(("service" = String, Path), Paging), responses((status = 200, body = Value)))]
pub(super) async fn releases(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Value>>, Problem> {
    let mut page = Page::of(
        &app,
        "release",
        Some(&service),
        false,
        paging.cursor,
        paging.limit,
    )
    .await?;
    for doc in &mut page.items {
        if let Ok(release) = serde_json::from_value::<Release>(doc.take()) {
            *doc = serde_json::to_value(service::ReleaseView::from(&release))
                .expect("a view is plain data");
        }
    }
    Ok(Json(page))
}

/// What to run by hand.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Dispatch {
    /// The workflow's path; the only one that can be run by hand when not said.
    workflow: Option<String>,
    /// The branch or tag, the branch where both have the name; the released branch when not said.
    r#ref: Option<String>,
    /// Its inputs.
    #[serde(default)]
    inputs: BTreeMap<String, String>,
}

/// Starts a workflow by hand (`workflow_dispatch`).
#[utoipa::path(post, path = "/api/v1/services/{service}/runs", params(("service" = String, Path)), request_body = Dispatch,
    responses((status = 202, body = Value), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn dispatch(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    caller: Caller,
    Json(wanted): Json<Dispatch>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let name = parse::<ServiceName>(&service)?;
    let git = |error: GitError| Problem::conflict(error.to_string());
    let repo = app.repos.get(&name).ok_or_else(|| unknown(&service))?;
    let state = app.services.state(&service_stream(&name)).await?;
    let branch = wanted
        .r#ref
        .or_else(|| Some(state?.config.as_ref()?.branch.clone()))
        .unwrap_or_else(|| "main".to_owned());
    let (reference, commit) = branch_or_tag(&repo, &branch)
        .await
        .map_err(git)?
        .ok_or_else(|| {
            Problem::not_found(format!("there is no branch or tag {branch}; push it first"))
        })?;
    let workflow: WorkflowFile =
        crate::push::dispatchable(&repo, &commit, wanted.workflow.as_deref(), &wanted.inputs)
            .await
            .map_err(Problem::bad_request)?;
    let commit = crate::push::commit_of(&repo, &commit).await.map_err(git)?;
    let input = Input::Dispatch {
        workflow,
        commit,
        reference,
        inputs: wanted.inputs,
    };
    let outcome = app.tell_service(&name, input, caller.actor()).await?;
    let run = outcome.events.iter().find_map(|event| match &event.body {
        Body::RunOrdered { order } => Some(order.number),
        _ => None,
    });
    if let Some(number) = run {
        until_there(&app, "run", &format!("{name}/{}", number.0)).await;
    }
    let run = run.map(|number| format!("{name}/{number}"));
    Ok((StatusCode::ACCEPTED, Json(json!({ "run": run }))))
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

/// How long a request waits for what it ordered. It goes on without: the order is in the log.
const OPENING: Duration = Duration::from_secs(5);

/// Waits for a row. What is ordered is opened by its driver a moment later, and whoever hears a number may ask about it at once.
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

/// Every environment of every service: what serves, its instances, who gets which share, what the traffic showed.
#[utoipa::path(get, path = "/api/v1/environments", responses((status = 200, body = Value)))]
pub(super) async fn environments(
    State(app): State<Arc<App>>,
) -> Result<Json<Page<EnvironmentStatus>>, Problem> {
    Ok(Json(Page {
        items: environment_statuses(&app).await?,
        next: None,
    }))
}

pub(super) fn unknown(service: &str) -> Problem {
    Problem::not_found(format!(
        "there is no service {service}; push a commit with a shipway.yaml to /git/{service}"
    ))
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| Problem::bad_request(error.to_string()))
}
