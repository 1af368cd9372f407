//! Signing in and out with forms, and the form that makes the first admin.

use std::sync::Arc;

use axum::{
    Extension, Form, Router,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use shipway_pages::{LoginPage, LoginProvider, SetupPage, SignedInUser, add_account};

use super::{html, page_error::PageError};
use crate::{
    accounts::{AccessSecret, LoginError, OpenIdLogin, UserAccounts},
    api::{
        ApiError, Caller,
        account::{end_session, refused_login, removed_session_cookie, session_cookie},
        identity::{SessionSecret, percent_encode},
    },
    app::AppState,
    capabilities::ServerAddresses,
    listener::ConnectionAddresses,
};

/// The cookie that the forms of `/login` and `/setup` repeat: a page of another site can't read it.
const FORM_COOKIE: &str = "shipway_form";

/// The routes that need no session.
pub(super) fn open_routes() -> Router<AppState> {
    Router::new()
        .route("/login", get(show_login).post(log_in))
        .route("/setup", get(show_setup).post(set_up))
}

/// The routes of a session.
pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/logout", post(log_out))
}

/// A local address to go to after a login. An address of another site would make this server a part of a fraud.
pub(super) fn local_address(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\r', '\n', '\t'])
        && next.len() <= 2_000;
    match is_local {
        true => next,
        false => "/",
    }
}

/// The token of a form: that of its cookie, or a new one.
pub(super) fn form_token(headers: &HeaderMap) -> Result<AccessSecret, PageError> {
    match cookie_token(headers) {
        Some(token) => Ok(AccessSecret::from_client(token)),
        None => Ok(AccessSecret::random("")
            .map_err(LoginError::from)
            .map_err(ApiError::from)?),
    }
}

fn cookie_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok());
    let mut values = cookies.flat_map(|value| value.split(';'));
    let value = values.find_map(|cookie| {
        let (name, value) = cookie.trim().split_once('=')?;
        (name == FORM_COOKIE).then_some(value)
    })?;
    (value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(value)
}

/// Refuses a form whose page was not sent by this server to this browser.
pub(super) fn require_form_token(headers: &HeaderMap, given: &str) -> Result<(), ApiError> {
    let expected = cookie_token(headers).map(|token| AccessSecret::from_client(token).hash());
    match expected == Some(AccessSecret::from_client(given).hash()) {
        true => Ok(()),
        false => Err(ApiError::forbidden(
            "this form is too old, or was not sent by a page of this server: reload the page and send it again",
        )),
    }
}

/// A page with the cookie of its form.
pub(super) fn form_page(
    page: String,
    token: &AccessSecret,
    addresses: &ServerAddresses,
) -> Response {
    let secure = match addresses.url.starts_with("https:") {
        true => "; Secure",
        false => "",
    };
    let cookie = format!(
        "{FORM_COOKIE}={}; Path=/; HttpOnly; SameSite=Strict{secure}",
        token.as_str()
    );
    let headers = [
        (header::SET_COOKIE, cookie),
        // Not `no-referrer`: browsers then send `Origin: null` with the form, which is refused.
        (header::REFERRER_POLICY, "same-origin".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, html(page)).into_response()
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct LoginParameters {
    #[serde(default)]
    pub(super) next: String,
}

async fn show_login(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(openid): State<Option<Arc<OpenIdLogin>>>,
    Query(parameters): Query<LoginParameters>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let token = form_token(&headers)?;
    let page = LoginPage {
        problem: None,
        user: "",
        next: local_address(&parameters.next),
        form_token: token.as_str(),
        has_users: accounts.has_users().await?,
        provider: provider_link(openid.as_deref(), local_address(&parameters.next)),
    };
    Ok(form_page(page.to_html(), &token, &addresses))
}

/// The link of the login page to the provider.
pub(super) fn provider_link<'a>(
    openid: Option<&'a OpenIdLogin>,
    next: &str,
) -> Option<LoginProvider<'a>> {
    let openid = openid?;
    Some(LoginProvider {
        name: openid.name(),
        address: format!("/login/oidc?next={}", percent_encode(next)),
    })
}

#[derive(Deserialize)]
struct LoginForm {
    form_token: String,
    #[serde(default)]
    next: String,
    user: String,
    password: String,
}

async fn log_in(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(openid): State<Option<Arc<OpenIdLogin>>>,
    client: Option<Extension<ConnectionAddresses>>,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, PageError> {
    require_form_token(&headers, &form.form_token)?;
    let address = client.map(|Extension(client)| client.remote.ip());
    let checked = accounts
        .check_login(&form.user, &form.password, address)
        .await;
    let started = match checked {
        Ok(user) => accounts.start_session(&user).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(secret) => Ok(signed_in(&addresses, &secret, local_address(&form.next))),
        Err(error) => {
            let token = AccessSecret::from_client(&form.form_token);
            let problem = error.to_string();
            let page = LoginPage {
                problem: Some(&problem),
                user: form.user.get(..63).unwrap_or(&form.user),
                next: local_address(&form.next),
                form_token: token.as_str(),
                has_users: true,
                provider: provider_link(openid.as_deref(), local_address(&form.next)),
            };
            let refused = refused_login(error);
            let mut response = form_page(page.to_html(), &token, &addresses);
            *response.status_mut() = refused.status();
            if let Some(seconds) = refused.headers().get(header::RETRY_AFTER) {
                let seconds = seconds.clone();
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            Ok(response)
        }
    }
}

pub(super) fn signed_in(
    addresses: &ServerAddresses,
    secret: &AccessSecret,
    next: &str,
) -> Response {
    let cookie = [(header::SET_COOKIE, session_cookie(addresses, secret))];
    (cookie, Redirect::to(next)).into_response()
}

#[derive(Debug, Default, Deserialize)]
struct SetupParameters {
    #[serde(default)]
    link: String,
}

async fn show_setup(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    Query(parameters): Query<SetupParameters>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let token = form_token(&headers)?;
    let is_valid = accounts.is_setup_link(&AccessSecret::from_client(&parameters.link));
    let problem = LoginError::InvalidSetupLink.to_string();
    let page = SetupPage {
        problem: (!is_valid).then_some(&problem),
        user: "",
        link: is_valid.then_some(&parameters.link),
        form_token: token.as_str(),
    };
    let mut response = form_page(page.to_html(), &token, &addresses);
    if !is_valid {
        *response.status_mut() = StatusCode::GONE;
    }
    Ok(response)
}

#[derive(Deserialize)]
struct SetupForm {
    form_token: String,
    link: String,
    user: String,
    password: String,
}

async fn set_up(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    headers: HeaderMap,
    Form(form): Form<SetupForm>,
) -> Result<Response, PageError> {
    require_form_token(&headers, &form.form_token)?;
    let link = AccessSecret::from_client(&form.link);
    let done = match form.user.parse() {
        Ok(user) => match accounts.set_up(&link, &user, &form.password).await {
            Ok(()) => accounts.start_session(&user).await.map_err(ApiError::from),
            Err(error) => Err(ApiError::from(error)),
        },
        Err(error) => Err(ApiError::bad_request(error.to_string())),
    };
    match done {
        Ok(secret) => Ok(signed_in(&addresses, &secret, "/settings/users")),
        Err(problem) => {
            let token = AccessSecret::from_client(&form.form_token);
            let page = SetupPage {
                problem: Some(&problem.0.detail),
                user: form.user.get(..63).unwrap_or(&form.user),
                link: accounts.is_setup_link(&link).then_some(&form.link),
                form_token: token.as_str(),
            };
            let mut response = form_page(page.to_html(), &token, &addresses);
            *response.status_mut() = problem.into_response().status();
            Ok(response)
        }
    }
}

#[derive(Deserialize)]
struct LogoutForm {
    #[serde(default)]
    csrf: String,
}

async fn log_out(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    session: Option<Extension<SessionSecret>>,
    caller: Caller,
    Form(form): Form<LogoutForm>,
) -> Result<Response, PageError> {
    let session = session.map(|Extension(session)| session);
    require_csrf_field(session.as_ref(), &form.csrf)?;
    end_session(&accounts, &caller, session).await?;
    let cookie = [(header::SET_COOKIE, removed_session_cookie(&addresses))];
    Ok((cookie, Redirect::to("/login")).into_response())
}

/// Requires of a form of a session the token that only pages of this server have.
pub(super) fn require_csrf_field(
    session: Option<&SessionSecret>,
    given: &str,
) -> Result<(), ApiError> {
    let Some(SessionSecret(secret)) = session else {
        return Ok(());
    };
    let given = AccessSecret::from_client(given).hash();
    match given == AccessSecret::from_client(&secret.csrf_token()).hash() {
        true => Ok(()),
        false => Err(ApiError::forbidden(
            "this form was not sent by a page of this session: reload the page and send it again",
        )),
    }
}

/// Adds the name of the user to pages, and the token that changes must carry. Such a page is for this user alone.
pub(super) async fn add_session(
    session: Option<Extension<SessionSecret>>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    let (Some(Extension(SessionSecret(secret))), Some(user)) = (session, caller.user()) else {
        return response;
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A page is a string in memory already.
    let Ok(page) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let csrf = secret.csrf_token();
    let user = SignedInUser {
        name: user.as_str(),
        csrf: &csrf,
    };
    let page = add_account(&String::from_utf8_lossy(&page), user);
    let private = HeaderValue::from_static("private, no-store");
    parts.headers.insert(header::CACHE_CONTROL, private);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, page.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_addresses_of_this_server_only() {
        for local in ["/", "/runs/shop/1?q=a&b=c", "/a//b"] {
            assert_eq!(local_address(local), local);
        }
        for foreign in [
            "",
            "https://evil.example.com/",
            "//evil.example.com",
            "/\\evil.example.com",
            "javascript:alert(1)",
            "/a\r\nset-cookie: x",
        ] {
            assert_eq!(local_address(foreign), "/", "{foreign}");
        }
    }
}
