//! Access tokens: listed, created and revoked.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::{SignedDuration, Timestamp};
use shipway_api::{CreatedToken, EmptyRequest, NewTokenRequest, Page, TokenView};
use shipway_core::{
    access::{PrincipalRole, Resource, RoleBinding, Verb},
    ids::{AccessTokenId, UserName},
    user_directory::{
        IssuedToken, TOKEN_LIFETIME, UserDirectoryEvent, UserDirectoryInput, UserDirectoryRejection,
    },
};
use shipway_engine::Clock;

use super::{ApiError, Caller, json_body::OptionalJson, services::parse};
use crate::accounts::{AccessSecret, TOKEN_PREFIX, UserAccounts};

fn view(accounts: &UserAccounts, created_at: Timestamp, token: &IssuedToken) -> TokenView {
    TokenView {
        last_used_at: accounts.token_last_used(&token.id),
        id: token.id.clone(),
        name: token.name.clone(),
        owner: token.owner.clone(),
        roles: token.roles.clone(),
        created_at,
        expires_at: token.expires_at,
        made_with: token.parent.clone(),
    }
}

/// The tokens that a caller may see: all for an admin, else its own. The newest first.
pub(crate) async fn visible_tokens(
    accounts: &UserAccounts,
    caller: &Caller,
) -> Result<Vec<TokenView>, ApiError> {
    let is_admin = caller.is_allowed(Verb::ManageUsers, &Resource::Server);
    let own = caller.user();
    let directory = accounts.directory().await?;
    let tokens = directory.tokens.values();
    let tokens = tokens.filter(|(_, token)| is_admin || Some(&token.owner) == own.as_ref());
    let mut views: Vec<_> = tokens
        .map(|(at, token)| view(accounts, *at, token))
        .collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.created_at));
    Ok(views)
}

/// Tokens: an admin's list has those of all users, the list of others their own.
#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "list_tokens", responses((status = 200, body = Page<TokenView>)))]
pub(super) async fn list(
    State(accounts): State<Arc<UserAccounts>>,
    caller: Caller,
) -> Result<Json<Page<TokenView>>, ApiError> {
    caller.require(Verb::UseAccount, &Resource::Server)?;
    Ok(Json(Page {
        items: visible_tokens(&accounts, &caller).await?,
        next: None,
    }))
}

/// Creates a token. Its secret is in this response and nowhere else. It expires after 90 days by default, and has at most the roles of
/// its owner.
#[utoipa::path(post, path = "/api/v1/tokens", operation_id = "create_token", request_body = NewTokenRequest, responses((status = 201, body = CreatedToken), (status = 400, body = shipway_api::Problem), (status = 403, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn create(
    State(accounts): State<Arc<UserAccounts>>,
    State(clock): State<Arc<dyn Clock>>,
    caller: Caller,
    Json(request): Json<NewTokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    caller.require(Verb::UseAccount, &Resource::Server)?;
    let created = create_token(&accounts, &caller, &request, clock.now()).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Creates a token for a caller that may use its account.
pub(crate) async fn create_token(
    accounts: &UserAccounts,
    caller: &Caller,
    request: &NewTokenRequest,
    now: Timestamp,
) -> Result<CreatedToken, ApiError> {
    let own = caller.user();
    let is_others = request.owner.is_some() && request.owner != own;
    if is_others || request.no_expiry {
        caller.require(Verb::ManageUsers, &Resource::Server)?;
    }
    let owner: UserName = request.owner.clone().or(own).ok_or_else(|| {
        ApiError::bad_request(
            "a token needs a user that it acts for: name one with `owner` (`shipway token create --owner NAME`); `shipway user add NAME --role admin` adds the first",
        )
    })?;
    let directory = accounts.directory().await?;
    let parent = caller.token().and_then(|id| directory.tokens.get(&id));
    let parent = parent.map(|(_, token)| token);
    let parent_end = parent.and_then(|token| token.expires_at);
    let after = |time: SignedDuration| now.saturating_add(time).unwrap_or(now);
    let expires_at = match (request.no_expiry, request.expires_in_days) {
        (true, _) => None,
        (false, Some(days)) => Some(after(SignedDuration::from_hours(24 * i64::from(days)))),
        (false, None) => {
            let default = after(TOKEN_LIFETIME);
            Some(parent_end.map_or(default, |end| end.min(default)))
        }
    };
    let roles = match (request.roles.is_empty(), parent) {
        (false, _) => request.roles.clone(),
        (true, Some(parent)) => parent.roles.clone(),
        (true, None) => vec![RoleBinding::everywhere(PrincipalRole::Admin)],
    };
    let secret = AccessSecret::random(TOKEN_PREFIX)
        .map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let input = UserDirectoryInput::CreateToken {
        name: request.name.clone(),
        owner,
        hash: secret.hash(),
        roles,
        expires_at,
        parent: parent.map(|token| token.id.clone()),
    };
    let outcome = accounts.change(input, caller.actor()).await?;
    let created = outcome.events.iter().find_map(|event| match &event.body {
        UserDirectoryEvent::TokenCreated { token } => Some(view(accounts, event.at, token)),
        _ => None,
    });
    let token = created
        .ok_or_else(|| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no token was created"))?;
    Ok(CreatedToken {
        secret: secret.as_str().to_owned(),
        token,
    })
}

/// Revokes a token and those made with it: their next request is refused. Users revoke their own, admins all.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", operation_id = "revoke_token", params(("token" = String, Path, description = "Its id: `t7`")), request_body = EmptyRequest, responses((status = 204), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn revoke(
    State(accounts): State<Arc<UserAccounts>>,
    Path(token): Path<String>,
    caller: Caller,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<StatusCode, ApiError> {
    caller.require(Verb::UseAccount, &Resource::Server)?;
    let token: AccessTokenId = parse(&token)?;
    revoke_token(&accounts, &caller, token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a token that the caller may see.
pub(crate) async fn revoke_token(
    accounts: &UserAccounts,
    caller: &Caller,
    token: AccessTokenId,
) -> Result<(), ApiError> {
    let visible = visible_tokens(accounts, caller).await?;
    if !visible.iter().any(|view| view.id == token) {
        let unknown = UserDirectoryRejection::UnknownToken(token);
        return Err(ApiError::missing(unknown.to_string()));
    }
    let input = UserDirectoryInput::RevokeToken { token };
    accounts.change(input, caller.actor()).await?;
    Ok(())
}
