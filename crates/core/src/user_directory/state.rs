//! The state that the facts about users fold into.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    SESSION_LIFETIME,
    event::{ExternalIdentity, ExternalProfile, IssuedToken, UserDirectoryEvent, UserProfile},
    rejection::TokenProblem,
};
use crate::{
    access::{Principal, PrincipalRole, RoleBinding},
    aggregate::Event,
    ids::{AccessTokenId, Digest, GroupName, UserName},
    sealed_value::SealedValue,
};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryUser {
    pub profile: UserProfile,
    pub is_disabled: bool,
    pub password: Option<SealedValue>,
    pub created_at: Timestamp,
    /// The number of changes, from 1.
    pub version: u64,
    /// The person at a provider that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalAccount>,
}

/// A person at a provider, and what the provider sent at the last login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    pub identity: ExternalIdentity,
    pub profile: ExternalProfile,
}

impl DirectoryUser {
    /// Its groups: those that an administrator set, and those of its provider.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<GroupName> {
        let external = self.external.iter().flat_map(|it| &it.profile.groups);
        self.profile
            .groups
            .iter()
            .chain(external)
            .cloned()
            .collect()
    }
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryGroup {
    pub roles: Vec<RoleBinding>,
    /// The number of changes, from 1.
    pub version: u64,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSession {
    pub user: UserName,
    pub started_at: Timestamp,
}

impl UserSession {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        (self.started_at.checked_add(SESSION_LIFETIME)).is_ok_and(|end| end <= now)
    }
}

/// The users of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserDirectoryState {
    pub users: BTreeMap<UserName, DirectoryUser>,
    pub groups: BTreeMap<GroupName, DirectoryGroup>,
    pub tokens: BTreeMap<AccessTokenId, (Timestamp, IssuedToken)>,
    /// The ids of tokens by the hash of their secret.
    token_hashes: BTreeMap<Digest, AccessTokenId>,
    pub(super) tokens_issued: u64,
    pub(super) sessions: BTreeMap<Digest, UserSession>,
}

impl UserDirectoryState {
    /// Whether requests must come from a user.
    #[must_use]
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// The roles of a user: its own and those of its groups.
    #[must_use]
    pub fn roles(&self, user: &DirectoryUser) -> Vec<RoleBinding> {
        self.roles_with_groups(user, &user.groups())
    }

    fn roles_with_groups(
        &self,
        user: &DirectoryUser,
        groups: &BTreeSet<GroupName>,
    ) -> Vec<RoleBinding> {
        let groups = groups.iter().filter_map(|name| self.groups.get(name));
        let inherited = groups.flat_map(|group| &group.roles);
        let own = user.profile.roles.iter();
        own.chain(inherited).cloned().collect()
    }

    /// The user that is a person of a provider.
    #[must_use]
    pub fn linked_user(&self, identity: &ExternalIdentity) -> Option<&UserName> {
        let mut users = self.users.iter();
        let linked = users.find(|(_, user)| {
            let external = user.external.as_ref();
            external.is_some_and(|it| it.identity == *identity)
        });
        linked.map(|(name, _)| name)
    }

    /// The principal of a user; none when there is no such user, or it is disabled.
    #[must_use]
    pub fn principal(&self, name: &UserName) -> Option<Principal> {
        let user = self.users.get(name).filter(|user| !user.is_disabled)?;
        // Approval rules write groups with an `@`.
        let groups = user.groups();
        let groups = groups.iter().map(|group| format!("@{group}")).collect();
        Some(Principal::user(name, groups, self.roles(user)))
    }

    /// The principal of the secret with this hash.
    ///
    /// # Errors
    /// The token is not known or not valid any more.
    pub fn token_principal(
        &self,
        hash: &Digest,
        now: Timestamp,
    ) -> Result<Principal, TokenProblem> {
        let id = self.token_hashes.get(hash).ok_or(TokenProblem::Unknown)?;
        let (_, token) = self.tokens.get(id).ok_or(TokenProblem::Unknown)?;
        if token.expires_at.is_some_and(|at| at <= now) {
            return Err(TokenProblem::Expired(id.clone()));
        }
        let owner = self.principal(&token.owner);
        let owner = owner.ok_or_else(|| TokenProblem::OwnerDisabled(token.owner.clone()))?;
        Ok(owner.with_token(id.clone(), token.roles.clone()))
    }

    /// The principal of the session with this hash, and when the session started.
    #[must_use]
    pub fn session_principal(
        &self,
        hash: &Digest,
        now: Timestamp,
    ) -> Option<(Principal, Timestamp)> {
        let session = self.sessions.get(hash)?;
        if session.is_over(now) {
            return None;
        }
        Some((self.principal(&session.user)?, session.started_at))
    }

    /// Whether there is a session whose digest has these hex digits.
    #[must_use]
    pub fn has_session(&self, hex: &str, now: Timestamp) -> bool {
        let hash = format!("sha256:{hex}").parse::<Digest>().ok();
        let session = hash.and_then(|hash| self.sessions.get(&hash));
        session.is_some_and(|it| !it.is_over(now))
    }

    /// Whether a user that is not disabled is an admin of everything, without the groups that a provider gives and takes.
    pub(super) fn has_admin(&self) -> bool {
        let admin = RoleBinding::everywhere(PrincipalRole::Admin);
        let mut active = self.users.values().filter(|user| !user.is_disabled);
        active.any(|user| {
            let roles = self.roles_with_groups(user, &user.profile.groups);
            roles.contains(&admin)
        })
    }

    /// The sessions of a user, the oldest first.
    pub(super) fn user_sessions(&self, user: &UserName) -> Vec<Digest> {
        let own = (self.sessions.iter()).filter(|(_, session)| session.user == *user);
        let mut own: Vec<_> = own
            .map(|(hash, it)| (it.started_at, hash.clone()))
            .collect();
        own.sort();
        own.into_iter().map(|(_, hash)| hash).collect()
    }

    pub(super) fn apply(&mut self, event: &Event<UserDirectoryEvent>) {
        match &event.body {
            UserDirectoryEvent::UserAdded { user, profile } => {
                self.add_user(user, profile, event.at);
            }
            UserDirectoryEvent::UserChanged { user, profile } => {
                self.change_user(user, |it| it.profile = profile.clone());
            }
            UserDirectoryEvent::UserDisabled { user } => {
                self.change_user(user, |it| it.is_disabled = true);
                self.end_sessions(user);
            }
            UserDirectoryEvent::UserEnabled { user } => {
                self.change_user(user, |it| it.is_disabled = false);
            }
            UserDirectoryEvent::UserRemoved { user } => {
                self.users.remove(user);
                self.end_sessions(user);
                self.tokens.retain(|_, (_, token)| token.owner != *user);
                self.drop_hashes();
            }
            UserDirectoryEvent::IdentityLinked { user, identity } => {
                let account = ExternalAccount {
                    identity: identity.clone(),
                    profile: ExternalProfile::default(),
                };
                self.change_user(user, |it| it.external = Some(account));
            }
            UserDirectoryEvent::ExternalProfileChanged { user, profile } => {
                self.change_user(user, |it| {
                    if let Some(account) = &mut it.external {
                        account.profile = profile.clone();
                    }
                });
            }
            UserDirectoryEvent::PasswordSet { user, password } => {
                self.change_user(user, |it| it.password = Some(password.clone()));
                self.end_sessions(user);
            }
            UserDirectoryEvent::GroupAdded { group, roles }
            | UserDirectoryEvent::GroupChanged { group, roles } => self.set_group(group, roles),
            UserDirectoryEvent::GroupRemoved { group } => self.remove_group(group),
            UserDirectoryEvent::TokenCreated { token } => {
                self.add_token(token, event.at);
            }
            UserDirectoryEvent::TokenRevoked { token } => self.revoke(token),
            UserDirectoryEvent::SessionStarted { session, user } => {
                self.sessions.retain(|_, other| !other.is_over(event.at));
                let started = UserSession {
                    user: user.clone(),
                    started_at: event.at,
                };
                self.sessions.insert(session.clone(), started);
            }
            UserDirectoryEvent::SessionEnded { session } => {
                self.sessions.remove(session);
            }
            UserDirectoryEvent::SessionsEnded { user } => self.end_sessions(user),
        }
    }

    fn add_user(&mut self, name: &UserName, profile: &UserProfile, at: Timestamp) {
        let added = DirectoryUser {
            profile: profile.clone(),
            is_disabled: false,
            password: None,
            created_at: at,
            version: 1,
            external: None,
        };
        self.users.insert(name.clone(), added);
    }

    fn set_group(&mut self, group: &GroupName, roles: &[RoleBinding]) {
        let version = self.groups.get(group).map_or(1, |it| it.version + 1);
        let roles = roles.to_vec();
        let changed = DirectoryGroup { roles, version };
        self.groups.insert(group.clone(), changed);
    }

    fn remove_group(&mut self, group: &GroupName) {
        self.groups.remove(group);
        for user in self.users.values_mut() {
            user.profile.groups.remove(group);
            if let Some(account) = &mut user.external {
                account.profile.groups.remove(group);
            }
        }
    }

    fn add_token(&mut self, token: &IssuedToken, at: Timestamp) {
        let IssuedToken { id, hash, .. } = token;
        self.tokens_issued += 1;
        self.token_hashes.insert(hash.clone(), id.clone());
        self.tokens.insert(id.clone(), (at, token.clone()));
    }

    fn change_user(&mut self, name: &UserName, change: impl FnOnce(&mut DirectoryUser)) {
        if let Some(user) = self.users.get_mut(name) {
            change(user);
            user.version += 1;
        }
    }

    fn end_sessions(&mut self, user: &UserName) {
        self.sessions.retain(|_, session| session.user != *user);
    }

    /// Removes a token and all that were made with it.
    fn revoke(&mut self, token: &AccessTokenId) {
        let mut revoked = BTreeSet::from([token.clone()]);
        loop {
            let children = self.tokens.iter().filter(|(id, (_, it))| {
                let parent = it.parent.as_ref();
                !revoked.contains(*id) && parent.is_some_and(|it| revoked.contains(it))
            });
            let children: Vec<_> = children.map(|(id, _)| id.clone()).collect();
            if children.is_empty() {
                break;
            }
            revoked.extend(children);
        }
        self.tokens.retain(|id, _| !revoked.contains(id));
        self.drop_hashes();
    }

    fn drop_hashes(&mut self) {
        let tokens = &self.tokens;
        self.token_hashes.retain(|_, id| tokens.contains_key(id));
    }
}
