//! The users of a server with their groups, roles, tokens and sessions: one stream, `access/server`.
//!
//! # Invariants
//!
//! - Secrets are random values whose SHA-256 is recorded, or passwords whose hash is recorded sealed: the log opens nothing.
//! - Of the users, if there are any, at least one is enabled and an admin of everything.
//! - A token has its owner's rights within its own roles. A token made with another token has no role that the other lacks, expires no
//!   later, and is revoked with it.
//! - A person of a provider is one user, by issuer and subject. It never becomes a user that exists already, whatever its name or address.
//! - Removing or disabling a user, and a new password, end the user's sessions; tokens of a disabled user are refused.

mod decide;
mod event;
mod external_login;
mod rejection;
mod state;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use decide::is_valid_text;
pub use event::{ExternalIdentity, ExternalProfile, IssuedToken, UserDirectoryEvent, UserProfile};
pub use rejection::{TokenProblem, UserDirectoryRejection};
pub use state::{DirectoryGroup, DirectoryUser, ExternalAccount, UserDirectoryState};

use crate::{
    access::RoleBinding,
    aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow},
    ids::{AccessTokenId, Digest, GroupName, UserName},
    sealed_value::SealedValue,
};

/// The only stream.
pub const STREAM: &str = "access/server";
/// A session ends after this time, however it is used.
pub const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A session that is not used ends after this time.
pub const SESSION_IDLE: SignedDuration = SignedDuration::from_hours(12);
/// The lifetime of a token by default.
pub const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The longest lifetime of a token that expires.
pub const TOKEN_LIFETIME_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Users of a server at most.
pub const USERS_MAX: usize = 10_000;
/// Groups of a server at most.
pub const GROUPS_MAX: usize = 1_000;
/// Tokens of a user at most.
pub const USER_TOKENS_MAX: usize = 200;
/// Open sessions of a user at most; a further one ends the oldest.
pub const USER_SESSIONS_MAX: usize = 50;
/// Roles of a user, a group or a token at most.
pub const ROLES_MAX: usize = 200;
/// Characters of a display name, an address or the name of a token at most.
pub const TEXT_CHARS_MAX: usize = 200;

/// The aggregate of users.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct UserDirectory;

/// A change that an administrator or a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserDirectoryInput {
    AddUser {
        user: UserName,
        profile: UserProfile,
        password: Option<SealedValue>,
    },
    /// Adds the first admin.
    SetUp {
        user: UserName,
        profile: UserProfile,
        password: SealedValue,
    },
    ChangeUser {
        user: UserName,
        profile: UserProfile,
        /// The version that the caller has seen; none for any.
        version: Option<u64>,
    },
    DisableUser {
        user: UserName,
        version: Option<u64>,
    },
    EnableUser {
        user: UserName,
        version: Option<u64>,
    },
    RemoveUser {
        user: UserName,
        version: Option<u64>,
    },
    SetPassword {
        user: UserName,
        password: SealedValue,
    },
    AddGroup {
        group: GroupName,
        roles: Vec<RoleBinding>,
    },
    ChangeGroup {
        group: GroupName,
        roles: Vec<RoleBinding>,
        version: Option<u64>,
    },
    RemoveGroup {
        group: GroupName,
        version: Option<u64>,
    },
    CreateToken {
        name: String,
        owner: UserName,
        hash: Digest,
        roles: Vec<RoleBinding>,
        expires_at: Option<Timestamp>,
        /// The token with which it is made.
        parent: Option<AccessTokenId>,
    },
    RevokeToken {
        token: AccessTokenId,
    },
    StartSession {
        session: Digest,
        user: UserName,
    },
    /// A person whom a provider has authenticated signs in.
    StartExternalSession {
        session: Digest,
        identity: ExternalIdentity,
        profile: ExternalProfile,
        /// The name of a new user, where no other one has it.
        preferred_name: UserName,
    },
    EndSession {
        session: Digest,
    },
    EndSessions {
        user: UserName,
    },
    TimerFired,
}

/// The directory asks nothing of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserDirectoryEffect {}

impl Aggregate for UserDirectory {
    const KIND: &'static str = "access";
    type State = UserDirectoryState;
    type Body = UserDirectoryEvent;
    type Input = UserDirectoryInput;
    type Effect = UserDirectoryEffect;
    type Rejection = UserDirectoryRejection;

    fn decide(
        state: &UserDirectoryState,
        input: UserDirectoryInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<UserDirectoryEvent>>, UserDirectoryRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut UserDirectoryState, event: &Event<UserDirectoryEvent>) {
        state.apply(event);
    }

    fn pending(_state: &UserDirectoryState, _now: Timestamp) -> PendingWork<UserDirectoryEffect> {
        PendingWork::nothing()
    }

    fn rows(_state: &UserDirectoryState, _events: &[Event<UserDirectoryEvent>]) -> Vec<ViewRow> {
        Vec::new()
    }

    fn timer_fired() -> UserDirectoryInput {
        UserDirectoryInput::TimerFired
    }
}
