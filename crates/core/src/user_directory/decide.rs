//! Which changes of users and tokens are allowed.

use jiff::Timestamp;

use super::{
    GROUPS_MAX, ROLES_MAX, TEXT_CHARS_MAX, TOKEN_LIFETIME_MAX, USER_SESSIONS_MAX, USER_TOKENS_MAX,
    USERS_MAX, UserDirectory, UserDirectoryInput, UserDirectoryState,
    event::{IssuedToken, UserDirectoryEvent, UserProfile},
    external_login,
    rejection::UserDirectoryRejection,
    state::DirectoryUser,
};
use crate::{
    access::RoleBinding,
    aggregate::{Actor, Decider, Event},
    ids::{AccessTokenId, Digest, GroupName, UserName},
    sealed_value::SealedValue,
};

type DirectoryDecider = Decider<UserDirectory>;

pub(super) fn decide(
    state: &UserDirectoryState,
    input: UserDirectoryInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<UserDirectoryEvent>>, UserDirectoryRejection> {
    let mut decider = DirectoryDecider::new(state, by, now);
    decide_input(&mut decider, input)?;
    // Groups give roles too, so this is checked after every change. A server without any user is open to its own machine.
    if state.has_admin() && !decider.state.has_admin() {
        return Err(UserDirectoryRejection::LastAdmin);
    }
    Ok(decider.decided())
}

/// Decides changes of users; the other inputs have functions of their own.
fn decide_input(
    decider: &mut DirectoryDecider,
    input: UserDirectoryInput,
) -> Result<(), UserDirectoryRejection> {
    match input {
        UserDirectoryInput::AddUser {
            user,
            profile,
            password,
        } => add_user(decider, user, profile, password)?,
        UserDirectoryInput::SetUp {
            user,
            profile,
            password,
        } => {
            if decider.state.has_users() {
                return Err(UserDirectoryRejection::AlreadySetUp);
            }
            add_user(decider, user, profile, Some(password))?;
        }
        UserDirectoryInput::ChangeUser {
            user,
            profile,
            version,
        } => {
            let current = require_user(&decider.state, &user, version)?;
            let is_changed = current.profile != profile;
            check_profile(&decider.state, &profile)?;
            if is_changed {
                decider.emit(UserDirectoryEvent::UserChanged { user, profile });
            }
        }
        UserDirectoryInput::DisableUser { user, version } => {
            if !require_user(&decider.state, &user, version)?.is_disabled {
                decider.emit(UserDirectoryEvent::UserDisabled { user });
            }
        }
        UserDirectoryInput::EnableUser { user, version } => {
            if require_user(&decider.state, &user, version)?.is_disabled {
                decider.emit(UserDirectoryEvent::UserEnabled { user });
            }
        }
        UserDirectoryInput::RemoveUser { user, version } => {
            require_user(&decider.state, &user, version)?;
            decider.emit(UserDirectoryEvent::UserRemoved { user });
        }
        UserDirectoryInput::SetPassword { user, password } => {
            require_user(&decider.state, &user, None)?;
            decider.emit(UserDirectoryEvent::PasswordSet { user, password });
        }
        input @ (UserDirectoryInput::AddGroup { .. }
        | UserDirectoryInput::ChangeGroup { .. }
        | UserDirectoryInput::RemoveGroup { .. }
        | UserDirectoryInput::CreateToken { .. }
        | UserDirectoryInput::RevokeToken { .. }) => return decide_group_or_token(decider, input),
        input @ (UserDirectoryInput::StartSession { .. }
        | UserDirectoryInput::StartExternalSession { .. }
        | UserDirectoryInput::EndSession { .. }
        | UserDirectoryInput::EndSessions { .. }
        | UserDirectoryInput::TimerFired) => return decide_session(decider, input),
    }
    Ok(())
}

/// Decides changes of groups and tokens.
fn decide_group_or_token(
    decider: &mut DirectoryDecider,
    input: UserDirectoryInput,
) -> Result<(), UserDirectoryRejection> {
    match input {
        UserDirectoryInput::AddGroup { group, roles } => add_group(decider, group, roles)?,
        UserDirectoryInput::ChangeGroup {
            group,
            roles,
            version,
        } => {
            require_group(&decider.state, &group, version)?;
            check_roles(&roles)?;
            decider.emit(UserDirectoryEvent::GroupChanged { group, roles });
        }
        UserDirectoryInput::RemoveGroup { group, version } => {
            require_group(&decider.state, &group, version)?;
            decider.emit(UserDirectoryEvent::GroupRemoved { group });
        }
        UserDirectoryInput::CreateToken {
            name,
            owner,
            hash,
            roles,
            expires_at,
            parent,
        } => {
            let token = IssuedToken {
                id: next_token_id(&decider.state),
                name,
                owner,
                hash,
                roles,
                expires_at,
                parent,
            };
            check_token(&decider.state, &token, decider.now)?;
            decider.emit(UserDirectoryEvent::TokenCreated { token });
        }
        UserDirectoryInput::RevokeToken { token } => {
            if !decider.state.tokens.contains_key(&token) {
                return Err(UserDirectoryRejection::UnknownToken(token));
            }
            decider.emit(UserDirectoryEvent::TokenRevoked { token });
        }
        UserDirectoryInput::AddUser { .. }
        | UserDirectoryInput::SetUp { .. }
        | UserDirectoryInput::ChangeUser { .. }
        | UserDirectoryInput::DisableUser { .. }
        | UserDirectoryInput::EnableUser { .. }
        | UserDirectoryInput::RemoveUser { .. }
        | UserDirectoryInput::SetPassword { .. }
        | UserDirectoryInput::StartSession { .. }
        | UserDirectoryInput::StartExternalSession { .. }
        | UserDirectoryInput::EndSession { .. }
        | UserDirectoryInput::EndSessions { .. }
        | UserDirectoryInput::TimerFired => {}
    }
    Ok(())
}

/// Starts and ends sessions.
fn decide_session(
    decider: &mut DirectoryDecider,
    input: UserDirectoryInput,
) -> Result<(), UserDirectoryRejection> {
    match input {
        UserDirectoryInput::StartSession { session, user } => {
            start_session(decider, session, user)?;
        }
        UserDirectoryInput::StartExternalSession {
            session,
            identity,
            profile,
            preferred_name,
        } => {
            let user = external_login::admit_user(decider, identity, profile, &preferred_name)?;
            start_session(decider, session, user)?;
        }
        UserDirectoryInput::EndSession { session } => {
            if decider.state.sessions.contains_key(&session) {
                decider.emit(UserDirectoryEvent::SessionEnded { session });
            }
        }
        UserDirectoryInput::EndSessions { user } => {
            if !decider.state.user_sessions(&user).is_empty() {
                decider.emit(UserDirectoryEvent::SessionsEnded { user });
            }
        }
        UserDirectoryInput::TimerFired => {}
        UserDirectoryInput::AddUser { .. }
        | UserDirectoryInput::SetUp { .. }
        | UserDirectoryInput::ChangeUser { .. }
        | UserDirectoryInput::DisableUser { .. }
        | UserDirectoryInput::EnableUser { .. }
        | UserDirectoryInput::RemoveUser { .. }
        | UserDirectoryInput::SetPassword { .. }
        | UserDirectoryInput::AddGroup { .. }
        | UserDirectoryInput::ChangeGroup { .. }
        | UserDirectoryInput::RemoveGroup { .. }
        | UserDirectoryInput::CreateToken { .. }
        | UserDirectoryInput::RevokeToken { .. } => {}
    }
    Ok(())
}

fn add_user(
    decider: &mut DirectoryDecider,
    user: UserName,
    profile: UserProfile,
    password: Option<SealedValue>,
) -> Result<(), UserDirectoryRejection> {
    if decider.state.users.contains_key(&user) {
        return Err(UserDirectoryRejection::UserExists(user));
    }
    UserDirectoryRejection::require_at_most(
        "the server",
        decider.state.users.len() + 1,
        USERS_MAX,
        "users",
    )?;
    check_profile(&decider.state, &profile)?;
    decider.emit(UserDirectoryEvent::UserAdded {
        user: user.clone(),
        profile,
    });
    if !decider.state.has_admin() {
        return Err(UserDirectoryRejection::FirstUserNotAdmin(user));
    }
    if decider.state.users.len() == 1 && password.is_none() {
        return Err(UserDirectoryRejection::FirstUserWithoutPassword);
    }
    if let Some(password) = password {
        decider.emit(UserDirectoryEvent::PasswordSet { user, password });
    }
    Ok(())
}

fn add_group(
    decider: &mut DirectoryDecider,
    group: GroupName,
    roles: Vec<RoleBinding>,
) -> Result<(), UserDirectoryRejection> {
    if decider.state.groups.contains_key(&group) {
        return Err(UserDirectoryRejection::GroupExists(group));
    }
    UserDirectoryRejection::require_at_most(
        "the server",
        decider.state.groups.len() + 1,
        GROUPS_MAX,
        "groups",
    )?;
    check_roles(&roles)?;
    decider.emit(UserDirectoryEvent::GroupAdded { group, roles });
    Ok(())
}

fn start_session(
    decider: &mut DirectoryDecider,
    session: Digest,
    user: UserName,
) -> Result<(), UserDirectoryRejection> {
    require_active(&decider.state, &user)?;
    let open = decider.state.user_sessions(&user);
    let excess = (open.len() + 1).saturating_sub(USER_SESSIONS_MAX);
    for session in open.into_iter().take(excess) {
        decider.emit(UserDirectoryEvent::SessionEnded { session });
    }
    decider.emit(UserDirectoryEvent::SessionStarted { session, user });
    Ok(())
}

fn require_user<'s>(
    state: &'s UserDirectoryState,
    user: &UserName,
    version: Option<u64>,
) -> Result<&'s DirectoryUser, UserDirectoryRejection> {
    let found = state.users.get(user);
    let found = found.ok_or_else(|| UserDirectoryRejection::UnknownUser(user.clone()))?;
    require_version(found.version, version)?;
    Ok(found)
}

fn require_active(
    state: &UserDirectoryState,
    user: &UserName,
) -> Result<(), UserDirectoryRejection> {
    match require_user(state, user, None)?.is_disabled {
        true => Err(UserDirectoryRejection::UserDisabled(user.clone())),
        false => Ok(()),
    }
}

fn require_group(
    state: &UserDirectoryState,
    group: &GroupName,
    version: Option<u64>,
) -> Result<(), UserDirectoryRejection> {
    let found = state.groups.get(group);
    let found = found.ok_or_else(|| UserDirectoryRejection::UnknownGroup(group.clone()))?;
    require_version(found.version, version)
}

const fn require_version(current: u64, given: Option<u64>) -> Result<(), UserDirectoryRejection> {
    match given {
        Some(given) if given != current => Err(UserDirectoryRejection::Stale { given, current }),
        Some(_) | None => Ok(()),
    }
}

const fn check_roles(roles: &[RoleBinding]) -> Result<(), UserDirectoryRejection> {
    UserDirectoryRejection::require_at_most(
        "a user, a group or a token",
        roles.len(),
        ROLES_MAX,
        "roles",
    )
}

/// Whether a text can be a display name, an address or the name of a token.
#[must_use]
pub fn is_valid_text(text: &str) -> bool {
    // Bidirectional controls would let a name pose as another one.
    let is_misleading = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    !text.trim().is_empty()
        && text.chars().count() <= TEXT_CHARS_MAX
        && !text.contains(is_misleading)
}

fn check_text(what: &'static str, text: &str) -> Result<(), UserDirectoryRejection> {
    is_valid_text(text)
        .then_some(())
        .ok_or(UserDirectoryRejection::InvalidText(what))
}

fn check_profile(
    state: &UserDirectoryState,
    profile: &UserProfile,
) -> Result<(), UserDirectoryRejection> {
    check_roles(&profile.roles)?;
    if let Some(name) = &profile.display_name {
        check_text("the display name", name)?;
    }
    if let Some(email) = &profile.email {
        check_text("the e-mail address", email)?;
    }
    let mut groups = profile.groups.iter();
    match groups.find(|group| !state.groups.contains_key(*group)) {
        Some(unknown) => Err(UserDirectoryRejection::UnknownMembership(unknown.clone())),
        None => Ok(()),
    }
}

fn check_token(
    state: &UserDirectoryState,
    token: &IssuedToken,
    now: Timestamp,
) -> Result<(), UserDirectoryRejection> {
    require_active(state, &token.owner)?;
    check_text("the name of a token", &token.name)?;
    check_roles(&token.roles)?;
    let own = state.tokens.values();
    let own = own.filter(|(_, other)| other.owner == token.owner).count();
    UserDirectoryRejection::require_at_most("a user", own + 1, USER_TOKENS_MAX, "tokens")?;
    if let Some(at) = token.expires_at {
        let latest = now.saturating_add(TOKEN_LIFETIME_MAX).unwrap_or(now);
        if at <= now || at > latest {
            return Err(UserDirectoryRejection::InvalidExpiry);
        }
    }
    let Some(id) = &token.parent else {
        return Ok(());
    };
    let parent = state.tokens.get(id);
    let (_, parent) = parent.ok_or_else(|| UserDirectoryRejection::UnknownToken(id.clone()))?;
    if let Some(end) = parent.expires_at
        && token.expires_at.is_none_or(|at| at > end)
    {
        return Err(UserDirectoryRejection::OutlivesParent(id.clone()));
    }
    let mut roles = token.roles.iter();
    let exceeding = roles.find(|role| !parent.roles.iter().any(|own| own.includes(role)));
    match exceeding {
        Some(role) => Err(UserDirectoryRejection::ExceedsParent {
            parent: id.clone(),
            role: Box::new(role.clone()),
        }),
        None => Ok(()),
    }
}

fn next_token_id(state: &UserDirectoryState) -> AccessTokenId {
    let id = format!("t{}", state.tokens_issued + 1);
    id.parse().expect("a letter and digits are an id")
}
