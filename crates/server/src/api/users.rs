//! Users: listed, added, changed and removed.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use shipway_api::{
    EmptyRequest, ExternalAccountView, NewUserRequest, Page, PasswordRequest, UserAction,
    UserProfileRequest, UserView,
};
use shipway_core::{
    access::{Resource, Verb},
    ids::UserName,
    user_directory::{
        DirectoryUser, UserDirectoryInput, UserDirectoryRejection, UserDirectoryState, UserProfile,
    },
};

use super::{
    ApiError, Caller,
    edit_version::{seen_version, versioned},
    error::RejectionStatus,
    json_body::OptionalJson,
    services::parse,
};
use crate::accounts::{LoginError, UserAccounts};

impl RejectionStatus for UserDirectoryRejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownUser(_) | Self::UnknownGroup(_) | Self::UnknownToken(_) => {
                StatusCode::NOT_FOUND
            }
            Self::UserExists(_)
            | Self::GroupExists(_)
            | Self::UserDisabled(_)
            | Self::FirstUserNotAdmin(_)
            | Self::FirstUserWithoutPassword
            | Self::LastAdmin
            | Self::NoUsers
            | Self::AlreadySetUp => StatusCode::CONFLICT,
            Self::Stale { .. } => StatusCode::PRECONDITION_FAILED,
            Self::UnknownMembership(_)
            | Self::TooMany { .. }
            | Self::InvalidText(_)
            | Self::InvalidExpiry => StatusCode::BAD_REQUEST,
            Self::OutlivesParent(_) | Self::ExceedsParent { .. } => StatusCode::FORBIDDEN,
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::InvalidSetupLink => Self::new(StatusCode::GONE, error.to_string()),
            LoginError::Wrong => Self::new(StatusCode::UNAUTHORIZED, error.to_string()),
            LoginError::TooMany { .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
            LoginError::Directory(error) => error.into(),
            LoginError::Store(error) => error.into(),
            LoginError::Password(_) => Self::bad_request(error.to_string()),
            LoginError::System(_) => {
                tracing::error!(%error, "an account can't be used");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}

fn view(directory: &UserDirectoryState, name: &UserName, user: &DirectoryUser) -> UserView {
    UserView {
        name: name.clone(),
        display_name: user.profile.display_name.clone(),
        email: user.profile.email.clone(),
        groups: user.profile.groups.clone(),
        roles: user.profile.roles.clone(),
        effective_roles: directory.roles(user),
        disabled: user.is_disabled,
        has_password: user.password.is_some(),
        created_at: user.created_at,
        version: user.version,
        external: user.external.as_ref().map(|it| ExternalAccountView {
            issuer: it.identity.issuer.clone(),
            subject: it.identity.subject.clone(),
            display_name: it.profile.display_name.clone(),
            email: it.profile.email.clone(),
            groups: it.profile.groups.clone(),
        }),
    }
}

/// All users with their roles, by name.
pub(crate) fn user_views(directory: &UserDirectoryState) -> Vec<UserView> {
    let users = directory.users.iter();
    users
        .map(|(name, user)| view(directory, name, user))
        .collect()
}

fn respond(directory: &UserDirectoryState, name: &UserName) -> Result<Response, ApiError> {
    let user = directory.users.get(name);
    let user = user.ok_or_else(|| {
        ApiError::missing(UserDirectoryRejection::UnknownUser(name.clone()).to_string())
    })?;
    Ok(versioned(user.version, view(directory, name, user)))
}

fn profile(request: UserProfileRequest) -> UserProfile {
    let UserProfileRequest {
        display_name,
        email,
        groups,
        roles,
    } = request;
    UserProfile {
        display_name,
        email,
        groups,
        roles,
    }
}

/// All users.
#[utoipa::path(get, path = "/api/v1/users", operation_id = "list_users", responses((status = 200, body = Page<UserView>), (status = 403, body = shipway_api::Problem)))]
pub(super) async fn list(
    State(accounts): State<Arc<UserAccounts>>,
    caller: Caller,
) -> Result<Json<Page<UserView>>, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let directory = accounts.directory().await?;
    Ok(Json(Page {
        items: user_views(&directory),
        next: None,
    }))
}

/// Adds a user. The first user of a server must be an admin; from then on every request needs a user, a token or the server's token.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "add_user", request_body = NewUserRequest, responses((status = 201, body = UserView), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn add(
    State(accounts): State<Arc<UserAccounts>>,
    caller: Caller,
    Json(request): Json<NewUserRequest>,
) -> Result<Response, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let user: UserName = parse(&request.name)?;
    let password = match &request.password {
        Some(password) => Some(accounts.seal_password(&user, password).await?),
        None => None,
    };
    let input = UserDirectoryInput::AddUser {
        user: user.clone(),
        profile: UserProfile {
            display_name: request.display_name,
            email: request.email,
            groups: request.groups,
            roles: request.roles,
        },
        password,
    };
    let outcome = accounts.change(input, caller.actor()).await?;
    Ok((StatusCode::CREATED, respond(&outcome.state, &user)?).into_response())
}

/// One user.
#[utoipa::path(get, path = "/api/v1/users/{user}", operation_id = "show_user", params(("user" = String, Path)), responses((status = 200, body = UserView), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(accounts): State<Arc<UserAccounts>>,
    Path(user): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    respond(&*accounts.directory().await?, &parse(&user)?)
}

/// Replaces the name, address, groups and roles of a user. With `If-Match` only if it has the version of the last response.
#[utoipa::path(put, path = "/api/v1/users/{user}", operation_id = "change_user", params(("user" = String, Path), ("If-Match" = Option<String>, Header)), request_body = UserProfileRequest, responses((status = 200, body = UserView), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem), (status = 412, body = shipway_api::Problem)))]
pub(super) async fn change(
    State(accounts): State<Arc<UserAccounts>>,
    Path(user): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<UserProfileRequest>,
) -> Result<Response, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let user: UserName = parse(&user)?;
    let input = UserDirectoryInput::ChangeUser {
        user: user.clone(),
        profile: profile(request),
        version: seen_version(&headers)?,
    };
    let outcome = accounts.change(input, caller.actor()).await?;
    respond(&outcome.state, &user)
}

/// Removes a user with its tokens and sessions. What it did stays in the log.
#[utoipa::path(delete, path = "/api/v1/users/{user}", operation_id = "remove_user", params(("user" = String, Path), ("If-Match" = Option<String>, Header)), request_body = EmptyRequest, responses((status = 204), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem), (status = 412, body = shipway_api::Problem)))]
pub(super) async fn remove(
    State(accounts): State<Arc<UserAccounts>>,
    Path(user): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<StatusCode, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let input = UserDirectoryInput::RemoveUser {
        user: parse(&user)?,
        version: seen_version(&headers)?,
    };
    accounts.change(input, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets a password. Users set their own with the current one, admins that of others. The user's sessions end.
#[utoipa::path(post, path = "/api/v1/users/{user}/password", operation_id = "set_password", params(("user" = String, Path)), request_body = PasswordRequest, responses((status = 204), (status = 400, body = shipway_api::Problem), (status = 401, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn set_password(
    State(accounts): State<Arc<UserAccounts>>,
    Path(user): Path<String>,
    caller: Caller,
    Json(request): Json<PasswordRequest>,
) -> Result<StatusCode, ApiError> {
    let user: UserName = parse(&user)?;
    let is_own = caller.user().as_ref() == Some(&user);
    match (is_own, &request.current) {
        (true, Some(current)) => {
            caller.require(Verb::UseAccount, &Resource::Server)?;
            accounts.check_login(user.as_str(), current, None).await?;
        }
        (true | false, _) => caller.require(Verb::ManageUsers, &Resource::Server)?,
    }
    let password = accounts.seal_password(&user, &request.password).await?;
    let input = UserDirectoryInput::SetPassword { user, password };
    accounts.change(input, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Disables or enables a user, or ends its sessions. A disabled user's sessions and tokens are refused at once.
#[utoipa::path(post, path = "/api/v1/users/{user}/{action}", operation_id = "act_on_user", params(("user" = String, Path), ("action" = UserAction, Path), ("If-Match" = Option<String>, Header)), request_body = EmptyRequest, responses((status = 200, body = UserView), (status = 404, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem), (status = 412, body = shipway_api::Problem)))]
pub(super) async fn act(
    State(accounts): State<Arc<UserAccounts>>,
    Path((user, action)): Path<(String, UserAction)>,
    caller: Caller,
    headers: HeaderMap,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<Response, ApiError> {
    let user: UserName = parse(&user)?;
    let is_own_logout = action == UserAction::Logout && caller.user().as_ref() == Some(&user);
    let verb = match is_own_logout {
        true => Verb::UseAccount,
        false => Verb::ManageUsers,
    };
    caller.require(verb, &Resource::Server)?;
    let version = seen_version(&headers)?;
    let named = user.clone();
    let input = match action {
        UserAction::Disable => UserDirectoryInput::DisableUser { user, version },
        UserAction::Enable => UserDirectoryInput::EnableUser { user, version },
        UserAction::Logout => UserDirectoryInput::EndSessions { user },
    };
    let outcome = accounts.change(input, caller.actor()).await?;
    respond(&outcome.state, &named)
}
