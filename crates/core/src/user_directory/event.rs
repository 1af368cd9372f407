//! The facts about users.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    access::RoleBinding,
    ids::{AccessTokenId, Digest, GroupName, UserName},
    sealed_value::SealedValue,
};

/// The data of a user that an administrator edits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserProfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<GroupName>,
    /// Its own roles, without those of its groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleBinding>,
}

/// A person of an OpenID Connect provider. The subject is unique at its issuer and never given to another person.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalIdentity {
    pub issuer: String,
    pub subject: String,
}

/// The data of a user that its provider sends at each login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalProfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Groups of this server that groups of the provider are mapped to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<GroupName>,
}

/// An access token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedToken {
    pub id: AccessTokenId,
    pub name: String,
    pub owner: UserName,
    /// The SHA-256 of the secret.
    pub hash: Digest,
    /// The roles that limit it.
    pub roles: Vec<RoleBinding>,
    /// None for one that never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The token with which it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<AccessTokenId>,
}

/// A fact about users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UserDirectoryEvent {
    UserAdded {
        user: UserName,
        profile: UserProfile,
    },
    UserChanged {
        user: UserName,
        profile: UserProfile,
    },
    UserDisabled {
        user: UserName,
    },
    UserEnabled {
        user: UserName,
    },
    UserRemoved {
        user: UserName,
    },
    /// A user signs in with a provider from now on: it is this person there.
    IdentityLinked {
        user: UserName,
        identity: ExternalIdentity,
    },
    /// At a login, the provider sent other data of a user than before.
    ExternalProfileChanged {
        user: UserName,
        profile: ExternalProfile,
    },
    /// The argon2id hash of a password, encrypted with a key outside the log.
    PasswordSet {
        user: UserName,
        password: SealedValue,
    },
    GroupAdded {
        group: GroupName,
        roles: Vec<RoleBinding>,
    },
    GroupChanged {
        group: GroupName,
        roles: Vec<RoleBinding>,
    },
    GroupRemoved {
        group: GroupName,
    },
    TokenCreated {
        token: IssuedToken,
    },
    TokenRevoked {
        token: AccessTokenId,
    },
    SessionStarted {
        session: Digest,
        user: UserName,
    },
    SessionEnded {
        session: Digest,
    },
    /// All sessions of a user ended.
    SessionsEnded {
        user: UserName,
    },
}
