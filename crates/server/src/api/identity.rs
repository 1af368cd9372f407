//! Authentication: the principal of a request. It comes from a person, or from a job with its token; without a token of the server, a
//! change also tells what local process sent it (ADR 17). What the principal may do is decided by [`shipway_core::access::may`].

use std::{path::Path, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
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
    access_bound_body::bind_to_access,
    caller::{basic_login, name_of},
    error::ApiError,
};
use crate::{
    accepted_content::accepts_html,
    accounts::{AccessGrant, AccessSecret, TOKEN_PREFIX},
    capabilities::{AuthenticationSources, ClientTokens},
    job_token::{self, PresentedToken},
    listener::ConnectionAddresses,
};

/// Passes on a request with its principal; refuses one whose token is wrong, or whose sender is gone. The response ends with the access.
pub(crate) async fn authenticate(
    State(authentication): State<AuthenticationSources>,
    mut request: Request,
    next: Next,
) -> Response {
    let sent = SentRequest::from_request(&request);
    match find_principal(&authentication, &sent).await {
        Ok((grant, principal)) => {
            if let Some(session) = sent.session() {
                request.extensions_mut().insert(session);
            }
            request.extensions_mut().insert(principal.clone());
            let response = next.run(request).await;
            bind_to_access(response, authentication.accounts, grant, principal)
        }
        Err(problem) if sent.is_page() && problem.0.status == 401 => {
            Redirect::to(&login_address(&sent.uri)).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// The page to sign in at, which leads back to an address of this server.
fn login_address(uri: &Uri) -> String {
    let next = uri.path_and_query().map_or("/", |it| it.as_str());
    match next {
        "/" => "/login".to_owned(),
        next => format!("/login?next={}", percent_encode(next)),
    }
}

/// A text as the value of a query parameter.
pub(crate) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
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
) -> Result<(AccessGrant, Principal), ApiError> {
    let name = || name_of(&sent.headers);
    let given = given_tokens(&sent.headers);
    if let Some(token) = given.iter().find(|it| it.starts_with(job_token::PREFIX)) {
        let job = find_job(sources, token).await?;
        return Ok((AccessGrant::JobToken, Principal::job(job)));
    }
    refuse_token_in_address(&sent.uri)?;
    if let Some(token) = given.iter().find(|it| it.starts_with(TOKEN_PREFIX)) {
        let secret = AccessSecret::from_client(token);
        let found = sources.accounts.find_token(&secret).await?;
        let principal = found.map_err(|problem| unauthorized(problem.to_string()))?;
        return Ok((AccessGrant::AccessToken(secret), principal));
    }
    let server_token = sources.client_tokens.server_token.as_deref();
    if server_token.is_some_and(|wanted| given.iter().any(|given| is_same(given, wanted))) {
        return Ok((AccessGrant::ServerToken, Principal::server_token(name())));
    }
    if given.is_empty()
        && let Some(SessionSecret(secret)) = sent.session()
        && let Some(user) = sources.accounts.find_session(&secret).await?
    {
        sent.require_csrf_token(&secret)?;
        return Ok((AccessGrant::Session(secret), user));
    }
    if sources.accounts.has_users().await? {
        return Err(unauthorized(LOGIN_REQUIRED));
    }
    if server_token.is_some() {
        return Err(unauthorized(TOKEN_REQUIRED));
    }
    if sent.changes_something()
        && let Some(process) = find_local_process(&sources.data.0, sent).await?
    {
        return Ok((AccessGrant::OpenServer, process));
    }
    let person = name().map_or_else(Principal::unnamed_person, |name| Principal::person(&name));
    Ok((AccessGrant::OpenServer, person))
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

fn unauthorized(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, why)
}

const TOKEN_REQUIRED: &str =
    "the server requires a token: pass it as SHIPWAY_TOKEN, --token, or as the git password";
const LOGIN_REQUIRED: &str = "authentication required: sign in with `shipway login`, pass an access token as SHIPWAY_TOKEN, --token, or as the git password, or sign in at /login in a browser";

/// Refuses a token in an address, which ends up in logs and histories.
fn refuse_token_in_address(uri: &Uri) -> Result<(), ApiError> {
    let query = uri.query().unwrap_or_default();
    match query.contains(TOKEN_PREFIX) {
        true => Err(ApiError::bad_request(
            "a token must not be part of an address, which is written to logs and histories: revoke it with `shipway token revoke`, create another, and send it in the header `Authorization: Bearer TOKEN`",
        )),
        false => Ok(()),
    }
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

/// The cookie of a session.
pub(crate) const SESSION_COOKIE: &str = "shipway_session";
/// The header with the token against cross-site requests.
const CSRF_HEADER: &str = "x-shipway-csrf";

/// The secret of the session that a request belongs to.
#[derive(Clone)]
pub(crate) struct SessionSecret(pub(crate) AccessSecret);

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

    /// The secret of its session's cookie. Of several cookies of this name none counts: another application of the host may have set one.
    fn session(&self) -> Option<SessionSecret> {
        let cookies = self.headers.get_all(header::COOKIE).iter();
        let cookies = cookies.filter_map(|value| value.to_str().ok());
        let mut values = cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|cookie| {
                let (name, value) = cookie.trim().split_once('=')?;
                (name == SESSION_COOKIE).then_some(value)
            });
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        Some(SessionSecret(AccessSecret::from_client(value)))
    }

    /// Requires of a change by cookie the token that only pages of this server have. Forms carry it as a field, which their handlers
    /// check.
    fn require_csrf_token(&self, secret: &AccessSecret) -> Result<(), ApiError> {
        let kind = self.headers.get(header::CONTENT_TYPE);
        let is_form = kind.is_some_and(|kind| kind == "application/x-www-form-urlencoded");
        let is_form_page = is_form && !self.uri.path().starts_with("/api/");
        if !self.changes_something() || is_form_page {
            return Ok(());
        }
        let given = self.headers.get(CSRF_HEADER);
        let given = given.and_then(|value| value.to_str().ok());
        match given.is_some_and(|given| is_same(given, &secret.csrf_token())) {
            true => Ok(()),
            false => Err(ApiError::forbidden(
                "a change with the cookie of a session needs the header `X-Shipway-Csrf` with the token of the page; programs use an access token instead",
            )),
        }
    }

    /// Whether a browser asks for a page.
    fn is_page(&self) -> bool {
        let is_read = matches!(self.method, Method::GET | Method::HEAD);
        is_read && !self.uri.path().starts_with("/api/") && accepts_html(&self.headers)
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
