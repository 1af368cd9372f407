//! Authentication: a request comes from a person, or from a job with its token; some local processes may send none (ADR 17).

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_core::ids::RunId;
use shipway_drivers::{
    git::http::GitOperation,
    peer::{PeerProcess, find_peer},
};
use subtle::ConstantTimeEq;

use super::{caller::basic_login, error::ApiError};
use crate::{
    app::App,
    job_token::{self, JobIdentity, PresentedToken},
    listener::ConnectionAddresses,
};

/// Lets a request through whose sender may make it: with the server's token, with a job's token what jobs may, and where the server
/// has no token whatever comes from this machine, but for what jobs and instances change.
pub(crate) async fn require_identity(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = given_tokens(request.headers());
    let sent = SentRequest::from_request(&request);
    if let Some(token) = given.iter().find(|it| it.starts_with(job_token::PREFIX)) {
        return match job_request(&app, token, &sent).await {
            Ok(job) => {
                request.extensions_mut().insert(job);
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        };
    }
    let refused = match &app.token {
        Some(wanted) => check_token(wanted, &given),
        None if sent.changes_something() => check_peer(&app, &sent).await,
        None => Ok(()),
    };
    match refused {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Tokens that a request presents: as a bearer, or as the password of git.
fn given_tokens(headers: &HeaderMap) -> Vec<String> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let password = basic_login(headers).map(|(_, password)| password);
    bearer.into_iter().chain(password).collect()
}

fn check_token(wanted: &str, given: &[String]) -> Result<(), ApiError> {
    let is_wanted = |given: &String| bool::from(given.as_bytes().ct_eq(wanted.as_bytes()));
    if given.iter().any(is_wanted) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "this server asks for its token: SHIPWAY_TOKEN, --token, or as the password of git",
    ))
}

/// The job behind a token, if it runs and may make this request.
async fn job_request(app: &App, token: &str, sent: &SentRequest) -> Result<JobIdentity, ApiError> {
    let unauthorized = || {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "this is not the token of a job that runs: a job's token ends with the job",
        )
    };
    let presented = PresentedToken::parse(token).ok_or_else(unauthorized)?;
    let state = app.runs.state(&presented.job.run.stream()).await?;
    let is_valid = state.is_some_and(|state| app.job_tokens.is_valid(&presented, &state));
    let job = presented.job;
    if !is_valid {
        return Err(unauthorized());
    }
    let (method, path) = (&sent.method, sent.uri.path());
    if job.may(method, path, sent.uri.query()) {
        return Ok(job);
    }
    Err(ApiError::forbidden(format!(
        "a job may not do this: {job} may deploy {service} by its own run, and read its runs and rollouts; {method} {path} needs a person",
        service = job.run.service,
    )))
}

/// A request without its body.
struct SentRequest {
    method: Method,
    uri: Uri,
    addresses: Option<ConnectionAddresses>,
}

impl SentRequest {
    fn from_request(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            addresses: request.extensions().get().copied(),
        }
    }

    /// Whether it may change something. Reading through git is a POST, too.
    fn changes_something(&self) -> bool {
        if let Some(path) = self.uri.path().strip_prefix("/git/") {
            let path = path.split_once('/').map_or("", |(_, path)| path);
            return GitOperation::from_request(&self.method, path, self.uri.query())
                != Some(GitOperation::Read);
        }
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

/// Refuses what a job or an instance of this machine sends in a person's name.
async fn check_peer(app: &Arc<App>, sent: &SentRequest) -> Result<(), ApiError> {
    let Some(ConnectionAddresses { local, remote }) = sent.addresses else {
        return Ok(());
    };
    let data = app.data.clone();
    let found = tokio::task::spawn_blocking(move || find_peer(local, remote, &data));
    let path = sent.uri.path();
    match found.await.unwrap_or(PeerProcess::Other) {
        PeerProcess::Other => Ok(()),
        PeerProcess::Instance(_) if is_metrics_report(path) => Ok(()),
        PeerProcess::Job(folder) => {
            let job = folder.as_deref().and_then(|it| job_of_folder(app, it));
            let job = job.unwrap_or_else(|| "a job".to_owned());
            Err(ApiError::forbidden(format!(
                "this comes from a step of {job}, and a job may not change anything in a person's name; a step deploys with `uses: shipway/deploy`"
            )))
        }
        PeerProcess::Instance(folder) => {
            let name = folder
                .strip_prefix(app.data.join("instances"))
                .unwrap_or(&folder);
            Err(ApiError::forbidden(format!(
                "this comes from the instance {}, and an instance may only report metrics",
                name.display().to_string().replace('/', ".")
            )))
        }
        PeerProcess::Gone => Err(ApiError::forbidden(
            "the process that sent this is gone, and requests of jobs are refused: wait for the answer",
        )),
    }
}

/// `/api/v1/services/shop/metrics`
fn is_metrics_report(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    matches!(parts.as_slice(), ["api", "v1", "services", _, "metrics"])
}

/// `build of shop/r7`, from the folder of its worker.
fn job_of_folder(app: &App, folder: &std::path::Path) -> Option<String> {
    let below = folder.strip_prefix(app.data.join("runs")).ok()?;
    let mut parts = below.iter().map(|part| part.to_str().unwrap_or_default());
    let run = RunId {
        service: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
    };
    Some(format!("{} of {run}", parts.next()?))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn reading_through_git_changes_nothing_and_pushing_does() {
        for (method, uri, wanted) in [
            ("GET", "/api/v1/runs", false),
            ("POST", "/api/v1/rollouts/shop/1/approve", true),
            ("DELETE", "/api/v1/anything", true),
            ("GET", "/git/shop/info/refs?service=git-upload-pack", false),
            ("POST", "/git/shop/git-upload-pack", false),
            ("GET", "/git/shop/info/refs?service=git-receive-pack", true),
            ("POST", "/git/shop/git-receive-pack", true),
        ] {
            let request = axum::http::Request::builder().method(method).uri(uri);
            let request = request.body(Body::empty()).unwrap();
            let sent = SentRequest::from_request(&request);
            assert_eq!(sent.changes_something(), wanted, "{method} {uri}");
        }
    }
}
