//! The account of the caller: signed in, shown, and signed out.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use shipway_api::{CallerView, EmptyRequest, LoginRequest, LoginResult, NewTokenRequest};
use shipway_core::{
    access::{Principal, Resource, Verb},
    user_directory::{SESSION_LIFETIME, UserDirectoryInput},
};
use shipway_engine::Clock;

use super::{
    ApiError, Caller,
    identity::{SESSION_COOKIE, SessionSecret},
    json_body::OptionalJson,
    tokens::create_token,
};
use crate::{
    accounts::{AccessSecret, LoginError, UserAccounts},
    capabilities::ServerAddresses,
    listener::ConnectionAddresses,
};

/// Bytes of a login at most.
const LOGIN_BYTES_MAX: usize = 8 * 1_024;

/// The header that sets the cookie of a session.
pub(crate) fn session_cookie(addresses: &ServerAddresses, secret: &AccessSecret) -> String {
    let seconds = SESSION_LIFETIME.as_secs();
    cookie(addresses, secret.as_str(), seconds)
}

/// The header that removes the cookie of a session.
pub(crate) fn removed_session_cookie(addresses: &ServerAddresses) -> String {
    cookie(addresses, "", 0)
}

fn cookie(addresses: &ServerAddresses, value: &str, seconds: i64) -> String {
    let secure = match addresses.url.starts_with("https:") {
        true => "; Secure",
        false => "",
    };
    format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// A refused login, with the time to wait.
pub(crate) fn refused_login(error: LoginError) -> Response {
    let seconds = match &error {
        LoginError::TooMany { seconds } => Some(*seconds),
        _ => None,
    };
    let mut response = ApiError::from(error).into_response();
    if let Some(seconds) = seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Signs in with a password: sets the cookie of a session, or returns an access token when `token_name` is given.
#[utoipa::path(post, path = "/api/v1/login", operation_id = "log_in", request_body = LoginRequest, responses((status = 200, body = LoginResult), (status = 401, body = shipway_api::Problem), (status = 429, body = shipway_api::Problem)))]
pub(super) async fn log_in(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    State(clock): State<Arc<dyn Clock>>,
    request: Request,
) -> Result<Response, Response> {
    let address = request.extensions().get::<ConnectionAddresses>();
    let address = address.map(|it| it.remote.ip());
    let body = axum::body::to_bytes(request.into_body(), LOGIN_BYTES_MAX).await;
    let body = body.map_err(|error| ApiError::bad_request(error.to_string()).into_response())?;
    let Json(login) =
        Json::<LoginRequest>::from_bytes(&body).map_err(IntoResponse::into_response)?;
    let user = accounts
        .check_login(&login.user, &login.password, address)
        .await
        .map_err(refused_login)?;
    let Some(token_name) = login.token_name else {
        let secret = accounts.start_session(&user).await.map_err(refused_login)?;
        let result = LoginResult {
            user,
            csrf: Some(secret.csrf_token()),
            created_token: None,
        };
        let cookie = [(header::SET_COOKIE, session_cookie(&addresses, &secret))];
        return Ok((cookie, Json(result)).into_response());
    };
    let directory = accounts.directory().await;
    let directory = directory.map_err(|error| ApiError::from(error).into_response())?;
    let caller = Caller::from_login(directory.principal(&user));
    let caller = caller.map_err(IntoResponse::into_response)?;
    let request = NewTokenRequest {
        name: token_name,
        ..NewTokenRequest::default()
    };
    let created = create_token(&accounts, &caller, &request, clock.now()).await;
    let created = created.map_err(IntoResponse::into_response)?;
    let result = LoginResult {
        user,
        csrf: None,
        created_token: Some(created),
    };
    Ok(Json(result).into_response())
}

/// Signs out: the session of the cookie ends, or the access token of the request is revoked.
#[utoipa::path(post, path = "/api/v1/logout", operation_id = "log_out", request_body = EmptyRequest, responses((status = 204), (status = 401, body = shipway_api::Problem)))]
pub(super) async fn log_out(
    State(accounts): State<Arc<UserAccounts>>,
    State(addresses): State<ServerAddresses>,
    session: Option<Extension<SessionSecret>>,
    caller: Caller,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<Response, ApiError> {
    caller.require(Verb::UseAccount, &Resource::Server)?;
    if let Some(token) = caller.token() {
        let input = UserDirectoryInput::RevokeToken { token };
        accounts.change(input, caller.actor()).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    end_session(&accounts, &caller, session.map(|Extension(it)| it)).await?;
    let cookie = [(header::SET_COOKIE, removed_session_cookie(&addresses))];
    Ok((StatusCode::NO_CONTENT, cookie).into_response())
}

/// Ends the session of a request.
pub(crate) async fn end_session(
    accounts: &UserAccounts,
    caller: &Caller,
    session: Option<SessionSecret>,
) -> Result<(), ApiError> {
    if let Some(SessionSecret(secret)) = session {
        let session = secret.hash();
        let input = UserDirectoryInput::EndSession { session };
        accounts.change(input, caller.actor()).await?;
    }
    Ok(())
}

/// The principal of this request, and its roles.
#[utoipa::path(get, path = "/api/v1/me", operation_id = "show_caller", responses((status = 200, body = CallerView), (status = 401, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(accounts): State<Arc<UserAccounts>>,
    caller: Caller,
) -> Result<Json<CallerView>, ApiError> {
    caller.require(Verb::UseAccount, &Resource::Server)?;
    let directory = accounts.directory().await?;
    Ok(Json(caller.view(&directory)))
}

impl Caller {
    fn from_login(principal: Option<Principal>) -> Result<Self, ApiError> {
        let gone = || ApiError::new(StatusCode::UNAUTHORIZED, LoginError::Wrong.to_string());
        principal.map(Self::from_principal).ok_or_else(gone)
    }
}
