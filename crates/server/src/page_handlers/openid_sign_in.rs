//! Signing in with an OpenID Connect provider: the way there and back.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use shipway_drivers::openid::ProviderProblem;
use shipway_pages::LoginPage;

use super::{
    page_error::PageError,
    sign_in::{LoginParameters, form_page, form_token, local_address, provider_link, signed_in},
};
use crate::{
    accounts::{
        AccessSecret, AuthorizationResponse, LoginError, OpenIdLogin, OpenIdLoginError,
        UserAccounts,
    },
    api::account::session_cookie,
    app::AppState,
    capabilities::ServerAddresses,
    listener::ConnectionAddresses,
};

/// The cookie with what a login was started with.
const LOGIN_COOKIE: &str = "shipway_oidc";

/// The routes of logins with a provider.
pub(super) fn open_routes() -> Router<AppState> {
    Router::new()
        .route("/login/oidc", get(start))
        .route("/login/oidc/callback", get(finish))
}

/// The header that sets the cookie of a login. The provider's page leads back, so it must be sent with links of other sites.
fn login_cookie(addresses: &ServerAddresses, value: &str, seconds: u32) -> String {
    let secure = match addresses.url.starts_with("https:") {
        true => "; Secure",
        false => "",
    };
    format!(
        "{LOGIN_COOKIE}={value}; Path=/login/oidc; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    )
}

/// The value of the cookie. Of several none counts: another application of the host may have set one.
fn cookie_value(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.filter_map(|value| value.to_str().ok());
    let mut values = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|cookie| cookie.trim().strip_prefix(LOGIN_COOKIE)?.strip_prefix('='));
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// Sends the browser to the provider.
async fn start(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(openid): State<Option<Arc<OpenIdLogin>>>,
    Query(parameters): Query<LoginParameters>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let openid = configured(openid)?;
    let next = local_address(&parameters.next);
    match openid.start(next).await {
        Ok(started) => {
            let cookie = login_cookie(&addresses, &started.cookie, 600);
            let headers = [
                (header::SET_COOKIE, cookie),
                (header::CACHE_CONTROL, "no-store".to_owned()),
                (header::REFERRER_POLICY, "no-referrer".to_owned()),
            ];
            Ok((headers, Redirect::to(&started.address)).into_response())
        }
        Err(error) => refuse(&accounts, &addresses, &openid, &headers, &error).await,
    }
}

/// Takes the browser back from the provider.
async fn finish(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(openid): State<Option<Arc<OpenIdLogin>>>,
    Query(response): Query<AuthorizationResponse>,
    client: Option<Extension<ConnectionAddresses>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let openid = configured(openid)?;
    let address = client.map(|Extension(client)| client.remote.ip());
    let done = match accounts.login_wait_seconds(address) {
        Some(seconds) => Err(LoginError::TooMany { seconds }.into()),
        None => sign_in(&accounts, &openid, cookie_value(&headers), response).await,
    };
    let mut answer = match done {
        Ok((secret, next)) => match accounts.user_without_role(&secret).await? {
            None => signed_in(&addresses, &secret, local_address(&next)),
            Some(user) => {
                let problem = format!(
                    "You are signed in as {user}, which has no role yet: ask an administrator for one (shipway user set {user} --add-role viewer)."
                );
                let page = login_page(&accounts, &addresses, &openid, &headers, &problem);
                let mut page = page.await?;
                let cookie = session_cookie(&addresses, &secret);
                if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                    page.headers_mut().append(header::SET_COOKIE, cookie);
                }
                page
            }
        },
        Err(error) => {
            if !matches!(error, OpenIdLoginError::Login(LoginError::TooMany { .. })) {
                accounts.record_failed_login(address);
            }
            tracing::info!(%error, "a login with the provider failed");
            refuse(&accounts, &addresses, &openid, &headers, &error).await?
        }
    };
    let cookie = login_cookie(&addresses, "", 0);
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(answer)
}

async fn sign_in(
    accounts: &UserAccounts,
    openid: &OpenIdLogin,
    cookie: Option<&str>,
    response: AuthorizationResponse,
) -> Result<(AccessSecret, String), OpenIdLoginError> {
    let person = openid.finish(cookie, response).await?;
    let next = person.next.clone();
    Ok((accounts.start_external_session(person).await?, next))
}

fn configured(openid: Option<Arc<OpenIdLogin>>) -> Result<Arc<OpenIdLogin>, PageError> {
    let missing = "this server has no provider to sign in with: sign in with a password at /login, or start the server with --oidc-issuer";
    openid.ok_or_else(|| PageError::NotFound(missing.to_owned()))
}

/// The login page with the reason: its form for passwords works without the provider.
async fn refuse(
    accounts: &UserAccounts,
    addresses: &ServerAddresses,
    openid: &OpenIdLogin,
    headers: &HeaderMap,
    error: &OpenIdLoginError,
) -> Result<Response, PageError> {
    let problem = error.to_string();
    let page = login_page(accounts, addresses, openid, headers, &problem);
    let mut page = page.await?;
    *page.status_mut() = status(error);
    Ok(page)
}

async fn login_page(
    accounts: &UserAccounts,
    addresses: &ServerAddresses,
    openid: &OpenIdLogin,
    headers: &HeaderMap,
    problem: &str,
) -> Result<Response, PageError> {
    let token = form_token(headers)?;
    let page = LoginPage {
        problem: Some(problem),
        user: "",
        next: "/",
        form_token: token.as_str(),
        has_users: accounts.has_users().await?,
        provider: provider_link(Some(openid), "/"),
    };
    Ok(form_page(page.to_html(), &token, addresses))
}

fn status(error: &OpenIdLoginError) -> StatusCode {
    match error {
        OpenIdLoginError::Provider(
            ProviderProblem::Unavailable(..) | ProviderProblem::Budget(_),
        ) => StatusCode::SERVICE_UNAVAILABLE,
        OpenIdLoginError::NotAllowed(_) | OpenIdLoginError::Refused(_) => StatusCode::FORBIDDEN,
        OpenIdLoginError::Login(LoginError::TooMany { .. }) => StatusCode::TOO_MANY_REQUESTS,
        OpenIdLoginError::Login(LoginError::Directory(_)) => StatusCode::FORBIDDEN,
        OpenIdLoginError::Login(_) => StatusCode::INTERNAL_SERVER_ERROR,
        OpenIdLoginError::NotPending
        | OpenIdLoginError::ForeignResponse(_)
        | OpenIdLoginError::Provider(ProviderProblem::CodeRefused(_) | ProviderProblem::Token(_))
        | OpenIdLoginError::Claims(_) => StatusCode::BAD_REQUEST,
    }
}
