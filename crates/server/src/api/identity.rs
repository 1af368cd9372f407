//! Authentication: the principal of a request. It comes from a person, or from a job with its token; without a token of the server, a
//! change also tells what local process sent it (ADR 17). What the principal may do is decided by [`shipway_core::access::may`].

use std::{path::Path, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_core::{
    access::{JobIdentity, Principal},
    ids::RunId,
};
use shipway_drivers::{
    git::GitOperation,
    peer::{PeerProcess, find_peer},
};
use subtle::ConstantTimeEq;

use super::{
    caller::{basic_login, name_of},
    error::ApiError,
};
use crate::{
    capabilities::{AuthenticationSources, ClientTokens},
    job_token::{self, PresentedToken},
    listener::ConnectionAddresses,
};

/// Passes on a request with its principal; refuses one whose token is wrong, or whose sender is gone.
pub(crate) async fn authenticate(
    State(authentication): State<AuthenticationSources>,
    mut request: Request,
    next: Next,
) -> Response {
    let sent = SentRequest::from_request(&request);
    match find_principal(&authentication, &sent).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Passes on what the hooks of this server's repositories report.
pub(crate) async fn authenticate_hook(
    State(client_tokens): State<Arc<ClientTokens>>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = given_tokens(request.headers());
    if !given
        .iter()
        .any(|it| is_same(it, &client_tokens.internal_token))
    {
        let why = "only this server's own hooks report pushes";
        return ApiError::new(StatusCode::UNAUTHORIZED, why).into_response();
    }
    request.extensions_mut().insert(Principal::system());
    next.run(request).await
}

async fn find_principal(
    sources: &AuthenticationSources,
    sent: &SentRequest,
) -> Result<Principal, ApiError> {
    let name = || name_of(&sent.headers);
    let given = given_tokens(&sent.headers);
    if let Some(token) = given.iter().find(|it| it.starts_with(job_token::PREFIX)) {
        return Ok(Principal::job(find_job(sources, token).await?));
    }
    if let Some(wanted) = &sources.client_tokens.server_token {
        check_token(wanted, &given)?;
        return Ok(Principal::server_token(name()));
    }
    if sent.changes_something()
        && let Some(process) = find_local_process(&sources.data.0, sent).await?
    {
        return Ok(process);
    }
    Ok(name().map_or_else(Principal::unnamed_person, |name| Principal::person(&name)))
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

fn is_same(given: &str, wanted: &str) -> bool {
    bool::from(given.as_bytes().ct_eq(wanted.as_bytes()))
}

fn check_token(wanted: &str, given: &[String]) -> Result<(), ApiError> {
    if given.iter().any(|given| is_same(given, wanted)) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "authentication required: pass the token as SHIPWAY_TOKEN, --token, or as the git password",
    ))
}

/// The job behind a token, if it runs.
async fn find_job(sources: &AuthenticationSources, token: &str) -> Result<JobIdentity, ApiError> {
    let unauthorized = || {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "this is not the token of a running job: the token of a job expires with it",
        )
    };
    let presented = PresentedToken::parse(token).ok_or_else(unauthorized)?;
    let state = sources
        .engines
        .runs
        .state(&presented.job.run.stream())
        .await?;
    let is_valid = state.is_some_and(|state| sources.job_tokens.is_valid(&presented, &state));
    is_valid.then_some(presented.job).ok_or_else(unauthorized)
}

/// A request without its body.
struct SentRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    addresses: Option<ConnectionAddresses>,
}

impl SentRequest {
    fn from_request(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
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

/// The job or the instance of this machine that sent a request; none when it was another process.
async fn find_local_process(
    data: &Path,
    sent: &SentRequest,
) -> Result<Option<Principal>, ApiError> {
    let Some(ConnectionAddresses { local, remote }) = sent.addresses else {
        return Ok(None);
    };
    let folder = data.to_owned();
    let found = tokio::task::spawn_blocking(move || find_peer(local, remote, &folder));
    match found.await.unwrap_or(PeerProcess::Other) {
        PeerProcess::Other => Ok(None),
        PeerProcess::Job(folder) => {
            let job = folder.as_deref().and_then(|it| job_of_folder(data, it));
            let job = job.unwrap_or_else(|| "a job".to_owned());
            Ok(Some(Principal::job_process(&job)))
        }
        PeerProcess::Instance(folder) => {
            let instances = data.join("instances");
            let name = folder.strip_prefix(instances).unwrap_or(&folder);
            let name = name.display().to_string().replace('/', ".");
            Ok(Some(Principal::instance_process(&name)))
        }
        PeerProcess::Gone => Err(ApiError::forbidden(
            "the process that sent this has exited, so it can't be identified: wait for the response before exiting",
        )),
    }
}

/// `build of shop/r7`, from the folder of its worker.
fn job_of_folder(data: &Path, folder: &Path) -> Option<String> {
    let below = folder.strip_prefix(data.join("runs")).ok()?;
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
