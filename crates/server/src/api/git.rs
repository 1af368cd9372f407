//! The server as a git remote: requests go to git's own backend, and its hook reports back here.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use futures_util::stream;
use shipway_core::{
    access::{Resource, Verb},
    ids::ServiceName,
    repository::ServiceLocation,
    service::ServiceRejection,
};
use shipway_drivers::git::{
    GitError, GitOperation, GitRepositories,
    hook::PushReport,
    http::{GitCaller, HookTarget},
};

use super::{ApiError, Caller};
use crate::{
    app::AppState,
    delivery_engines::DeliveryEngines,
    push::{PushReceiver, PushTerminal},
};

pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/git/{service}/{*path}", any(backend))
}

/// A clone, a fetch or a push. The first push to a name makes its repository.
async fn backend(
    State(repos): State<Arc<GitRepositories>>,
    State(hook): State<HookTarget>,
    State(engines): State<Arc<DeliveryEngines>>,
    Path((service, path)): Path<(String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let service: ServiceName = service
        .strip_suffix(".git")
        .unwrap_or(&service)
        .parse()
        .map_err(|error: shipway_core::ids::ParseIdError| {
            ApiError::bad_request(error.to_string())
        })?;
    let operation = GitOperation::from_request(request.method(), &path, request.uri().query());
    let verb = match operation {
        Some(GitOperation::Read) => Verb::Read,
        // What git does not know is taken for a push.
        Some(GitOperation::Write) | None => Verb::Push,
    };
    caller.require(verb, &Resource::Repository(service.clone()))?;
    if path.starts_with("info/lfs") {
        return Ok(refuse_large_files(&service));
    }
    if let Some(state) = engines.service(&service).await? {
        let own = ServiceLocation::root(service.clone());
        if let Err(error) = state.require_repository(&service, &own) {
            return Ok(refuse_for_git(&error));
        }
    }
    if operation == Some(GitOperation::Write) {
        repos.ensure(&service).await.map_err(git_problem)?;
    }
    let caller = GitCaller {
        pusher: caller.pusher(),
        address: None,
        hook: Some(hook),
    };
    let answer = repos
        .http_backend(&service, &path, request, caller)
        .await
        .map_err(git_problem)?;
    Ok(answer.map(Body::new))
}

/// The answer to Git LFS, which shows the message: this server stores no large files.
fn refuse_large_files(service: &ServiceName) -> Response {
    let message = format!(
        "this Shipway server stores no files of Git LFS; say where they are stored with `git config -f .lfsconfig lfs.url URL` and commit that, or push without them: GIT_LFS_SKIP_PUSH=1 git push. Jobs fetch them from there with `lfs: true` of actions/checkout ({service})"
    );
    let body = serde_json::json!({ "message": message }).to_string();
    // 501 is also how Git LFS knows that there are no locks.
    let content_type = [(header::CONTENT_TYPE, "application/vnd.git-lfs+json")];
    (StatusCode::NOT_IMPLEMENTED, content_type, body).into_response()
}

/// A refusal that git prints: it shows the text of plain answers only.
fn refuse_for_git(error: &ServiceRejection) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::CONFLICT, plain, format!("{error}\n")).into_response()
}

fn git_problem(error: GitError) -> ApiError {
    match error {
        GitError::Missing(_) => {
            ApiError::missing("no such repository yet; the first push creates it")
        }
        error => {
            tracing::error!(%error, "git failed");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

/// What the hook of a repository reports after a push; answered with the story of it, line by line, for the pusher's terminal.
pub(crate) async fn push_report(
    State(pushes): State<PushReceiver>,
    caller: Caller,
    Json(report): Json<PushReport>,
) -> Result<Response, ApiError> {
    let service = Resource::Service(report.service.clone());
    caller.require(Verb::ReportPush, &service)?;
    let (terminal, lines) = PushTerminal::new();
    // A task of its own: a pusher who goes away stops no more than their own story.
    tokio::spawn(async move {
        pushes
            .receive(
                &report.service,
                report.ref_updates(),
                &report.pusher,
                &terminal,
            )
            .await;
    });
    let lines = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((
            Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\n"))),
            lines,
        ))
    });
    Ok((
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        Body::from_stream(lines),
    )
        .into_response())
}
