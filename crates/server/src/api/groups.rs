//! Groups of users: listed, added, changed and removed.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use shipway_api::{EmptyRequest, GroupRequest, GroupView, NewGroupRequest, Page};
use shipway_core::{
    access::{Resource, Verb},
    ids::GroupName,
    user_directory::{UserDirectoryInput, UserDirectoryRejection, UserDirectoryState},
};

use super::{
    ApiError, Caller,
    edit_version::{seen_version, versioned},
    json_body::OptionalJson,
    services::parse,
};
use crate::accounts::UserAccounts;

/// All groups with their members, by name.
pub(crate) fn group_views(directory: &UserDirectoryState) -> Vec<GroupView> {
    let view = |(name, group): (&GroupName, &shipway_core::user_directory::DirectoryGroup)| {
        let users = directory.users.iter();
        let members = users.filter(|(_, user)| user.groups().contains(name));
        GroupView {
            name: name.clone(),
            roles: group.roles.clone(),
            members: members.map(|(user, _)| user.clone()).collect(),
            version: group.version,
        }
    };
    directory.groups.iter().map(view).collect()
}

fn respond(directory: &UserDirectoryState, name: &GroupName) -> Result<Response, ApiError> {
    let mut views = group_views(directory).into_iter();
    let view = views.find(|view| view.name == *name);
    let view = view.ok_or_else(|| {
        ApiError::missing(UserDirectoryRejection::UnknownGroup(name.clone()).to_string())
    })?;
    Ok(versioned(view.version, view))
}

/// All groups.
#[utoipa::path(get, path = "/api/v1/groups", operation_id = "list_groups", responses((status = 200, body = Page<GroupView>), (status = 403, body = shipway_api::Problem)))]
pub(super) async fn list(
    State(accounts): State<Arc<UserAccounts>>,
    caller: Caller,
) -> Result<Json<Page<GroupView>>, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let directory = accounts.directory().await?;
    Ok(Json(Page {
        items: group_views(&directory),
        next: None,
    }))
}

/// Adds a group. Its members have its roles, and approval rules name it as `@GROUP`.
#[utoipa::path(post, path = "/api/v1/groups", operation_id = "add_group", request_body = NewGroupRequest, responses((status = 201, body = GroupView), (status = 409, body = shipway_api::Problem)))]
pub(super) async fn add(
    State(accounts): State<Arc<UserAccounts>>,
    caller: Caller,
    Json(request): Json<NewGroupRequest>,
) -> Result<Response, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let input = UserDirectoryInput::AddGroup {
        group: request.name.clone(),
        roles: request.roles,
    };
    let outcome = accounts.change(input, caller.actor()).await?;
    let response = respond(&outcome.state, &request.name)?;
    Ok((StatusCode::CREATED, response).into_response())
}

/// One group.
#[utoipa::path(get, path = "/api/v1/groups/{group}", operation_id = "show_group", params(("group" = String, Path)), responses((status = 200, body = GroupView), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(accounts): State<Arc<UserAccounts>>,
    Path(group): Path<String>,
    caller: Caller,
) -> Result<Response, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    respond(&*accounts.directory().await?, &parse(&group)?)
}

/// Replaces the roles of a group. With `If-Match` only if they have the version of the last response.
#[utoipa::path(put, path = "/api/v1/groups/{group}", operation_id = "change_group", params(("group" = String, Path), ("If-Match" = Option<String>, Header)), request_body = GroupRequest, responses((status = 200, body = GroupView), (status = 400, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem), (status = 412, body = shipway_api::Problem)))]
pub(super) async fn change(
    State(accounts): State<Arc<UserAccounts>>,
    Path(group): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<GroupRequest>,
) -> Result<Response, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let group: GroupName = parse(&group)?;
    let input = UserDirectoryInput::ChangeGroup {
        group: group.clone(),
        roles: request.roles,
        version: seen_version(&headers)?,
    };
    let outcome = accounts.change(input, caller.actor()).await?;
    respond(&outcome.state, &group)
}

/// Removes a group. Its members lose its roles.
#[utoipa::path(delete, path = "/api/v1/groups/{group}", operation_id = "remove_group", params(("group" = String, Path), ("If-Match" = Option<String>, Header)), request_body = EmptyRequest, responses((status = 204), (status = 400, body = shipway_api::Problem), (status = 409, body = shipway_api::Problem), (status = 412, body = shipway_api::Problem)))]
pub(super) async fn remove(
    State(accounts): State<Arc<UserAccounts>>,
    Path(group): Path<String>,
    caller: Caller,
    headers: HeaderMap,
    OptionalJson(EmptyRequest {}): OptionalJson<EmptyRequest>,
) -> Result<StatusCode, ApiError> {
    caller.require(Verb::ManageUsers, &Resource::Server)?;
    let input = UserDirectoryInput::RemoveGroup {
        group: parse(&group)?,
        version: seen_version(&headers)?,
    };
    accounts.change(input, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
