//! Users, groups, access tokens, and the account of the caller.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{
    access::RoleBinding,
    ids::{AccessTokenId, GroupName, UserName},
};
use utoipa::ToSchema;

/// A user. Passwords are never returned.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    #[schema(value_type = String)]
    pub name: UserName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// Its own roles: `deployer:shop/staging`.
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
    /// These and the roles of its groups.
    #[schema(value_type = Vec<String>)]
    pub effective_roles: Vec<RoleBinding>,
    pub disabled: bool,
    pub has_password: bool,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// For `If-Match`: changes with every change.
    pub version: u64,
    /// The person of an OpenID Connect provider that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalAccountView>,
}

/// A person of an OpenID Connect provider, as the provider described them at the last login.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExternalAccountView {
    pub issuer: String,
    pub subject: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Groups of this server, beyond those of the user itself.
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
}

/// A new user.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUserRequest {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// `viewer`, `deployer`, `approver` or `admin`, each with an optional `:SERVICE` or `:SERVICE/ENVIRONMENT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
    /// At least 12 characters. Without one the user can't sign in, but can own tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for NewUserRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewUserRequest({:?})", self.name)
    }
}

/// What can be edited of a user. All of it is replaced.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserProfileRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub groups: BTreeSet<GroupName>,
    /// `viewer`, `deployer`, `approver` or `admin`, each with an optional `:SERVICE` or `:SERVICE/ENVIRONMENT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
}

/// A new password. The user's sessions end.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// At least 12 characters.
    pub password: String,
    /// Who changes the own password gives the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
}

impl std::fmt::Debug for PasswordRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordRequest")
    }
}

/// A request without parameters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmptyRequest {}

/// A request about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserAction {
    /// Its sessions end, its tokens are refused.
    Disable,
    Enable,
    /// Its sessions end.
    Logout,
}

impl UserAction {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Logout => "logout",
        }
    }
}

/// A group.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    #[schema(value_type = String)]
    pub name: GroupName,
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
    #[schema(value_type = Vec<String>)]
    pub members: Vec<UserName>,
    /// For `If-Match`: changes with every change of its roles.
    pub version: u64,
}

/// A new group.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroupRequest {
    #[schema(value_type = String)]
    pub name: GroupName,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
}

/// The roles of a group, which are replaced.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupRequest {
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
}

/// An access token without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    #[schema(value_type = String)]
    pub id: AccessTokenId,
    pub name: String,
    #[schema(value_type = String)]
    pub owner: UserName,
    /// The roles that limit it: it has those of its owner within these.
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// None for one that never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    /// To the minute; none when it was never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub last_used_at: Option<Timestamp>,
    /// The token with which it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub made_with: Option<AccessTokenId>,
}

/// A new access token.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTokenRequest {
    pub name: String,
    /// The user that it acts for; the caller by default. Only admins create tokens of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub owner: Option<UserName>,
    /// The roles that limit it; by default all of its owner's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
    /// In how many days it expires, 1 to 366; 90 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u16>,
    /// It never expires. For admins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_expiry: bool,
}

/// A token that was created. Its secret is shown here and never again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    pub secret: String,
    pub token: TokenView,
}

/// A user's name and password.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    pub user: String,
    pub password: String,
    /// With a name the answer has an access token, which expires after 90 days; without, it sets the cookie of a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_name: Option<String>,
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoginRequest({:?})", self.user)
    }
}

/// An answered login.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginResult {
    #[schema(value_type = String)]
    pub user: UserName,
    /// For the header `X-Shipway-Csrf` of requests with the cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_token: Option<CreatedToken>,
}

/// The principal of the request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CallerView {
    /// `user:ada`, `token:server`, `person:ada`, `job:shop/r7/build/1`.
    pub principal: String,
    pub name: String,
    /// The access token of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub token: Option<AccessTokenId>,
    pub groups: Vec<String>,
    #[schema(value_type = Vec<String>)]
    pub roles: Vec<RoleBinding>,
    /// The roles that limit its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub limit: Option<Vec<RoleBinding>>,
    /// Whether this server has users: without, its own machine needs no login.
    pub has_users: bool,
}
