//! Why changes of users and tokens are refused.

use crate::{
    access::RoleBinding,
    ids::{AccessTokenId, GroupName, UserName},
};

/// Why a change is refused, with what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDirectoryRejection {
    #[error("there is no user {0}: `shipway user list` shows all")]
    UnknownUser(UserName),
    #[error("there is a user {0} already: change it with `shipway user set {0}`")]
    UserExists(UserName),
    #[error("user {0} is disabled: an admin enables it with `shipway user enable {0}`")]
    UserDisabled(UserName),
    #[error("there is no group {0}: add it with `shipway group add {0}`")]
    UnknownGroup(GroupName),
    #[error(
        "a user can't be in the group {0}, which doesn't exist: add it with `shipway group add {0}`"
    )]
    UnknownMembership(GroupName),
    #[error("there is a group {0} already: change it with `shipway group set {0}`")]
    GroupExists(GroupName),
    #[error("there is no token {0}: `shipway token list` shows all")]
    UnknownToken(AccessTokenId),
    #[error(
        "the first user must be an admin of everything, or no user could add others: `shipway user add {0} --role admin`"
    )]
    FirstUserNotAdmin(UserName),
    #[error(
        "the first user needs a password, or no user could sign in: pass one with `--password-stdin`"
    )]
    FirstUserWithoutPassword,
    #[error("the server would have no admin: make another user an admin first")]
    LastAdmin,
    #[error(
        "this was changed by another request: it is at version {current}, not {given}. Read it again, and repeat the change"
    )]
    Stale { given: u64, current: u64 },
    #[error("{what} must have at most {max} {unit}")]
    TooMany {
        what: &'static str,
        max: usize,
        unit: &'static str,
    },
    #[error("{0} must be 1 to 200 characters without control characters")]
    InvalidText(&'static str),
    #[error("the expiry must be in the future and at most a year away")]
    InvalidExpiry,
    #[error("a token can't outlive the token {0}, with which it is made: choose an earlier expiry")]
    OutlivesParent(AccessTokenId),
    #[error(
        "a token can't have the role {role}, which the token {parent}, with which it is made, doesn't have"
    )]
    ExceedsParent {
        parent: AccessTokenId,
        role: Box<RoleBinding>,
    },
    #[error(
        "this server has no users yet: make the first admin with the setup link that it printed when it started"
    )]
    NoUsers,
    #[error("this server has users already: sign in")]
    AlreadySetUp,
}

impl UserDirectoryRejection {
    pub(super) const fn require_at_most(
        what: &'static str,
        count: usize,
        max: usize,
        unit: &'static str,
    ) -> Result<(), Self> {
        if count > max {
            return Err(Self::TooMany { what, max, unit });
        }
        Ok(())
    }
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    #[error("this access token is not known: it was revoked, or belongs to another server")]
    Unknown,
    #[error("this access token ({0}) has expired: create another with `shipway token create`")]
    Expired(AccessTokenId),
    #[error("the owner of this access token, {0}, is disabled")]
    OwnerDisabled(UserName),
}
