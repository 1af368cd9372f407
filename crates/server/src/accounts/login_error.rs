//! Why logins are refused.

use shipway_core::user_directory::UserDirectoryRejection;
use shipway_engine::{EngineError, StoreError};

use super::password_hash::PasswordError;

/// Why a login is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("the user name or the password is wrong")]
    Wrong,
    #[error("too many failed logins: try again in {seconds} s")]
    TooMany { seconds: i64 },
    #[error(transparent)]
    Directory(#[from] EngineError<UserDirectoryRejection>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the system failed: {0}")]
    System(#[from] std::io::Error),
    #[error(
        "this setup link is not valid any more: it can be used once, within an hour. Restart the server for a new one, or run `shipway user add NAME --role admin` on the server's machine"
    )]
    InvalidSetupLink,
}
