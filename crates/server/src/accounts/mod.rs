//! Users at run time: secrets of tokens and sessions, passwords, logins, and when a token or a session was last used.
//! [`shipway_core::user_directory`] decides; `api/identity.rs` authenticates requests with it.

mod access_grant;
mod access_secret;
mod approval_link;
mod login_error;
mod login_limiter;
mod openid_login;
mod password_hash;
mod usage_times;
mod user_accounts;

pub(crate) use access_grant::AccessGrant;
pub(crate) use access_secret::{AccessSecret, TOKEN_PREFIX};
pub(crate) use approval_link::ApprovalLink;
pub(crate) use login_error::LoginError;
pub(crate) use openid_login::{AuthorizationResponse, OpenIdLogin, OpenIdLoginError};
pub(crate) use user_accounts::{NoDirectoryEffects, UserAccounts, recorded_directory};
