//! Changes of users, groups, roles and tokens.

use super::{AuditArea, DescribedChange};
use crate::{
    access::RoleBinding,
    user_directory::{UserDirectoryEvent, UserProfile},
};

fn role_list(roles: &[RoleBinding]) -> String {
    match roles.is_empty() {
        true => "no roles".to_owned(),
        false => (roles.iter().map(ToString::to_string).collect::<Vec<_>>()).join(", "),
    }
}

/// A change; none for sessions, which change no rights.
pub(super) fn describe(event: &UserDirectoryEvent) -> Option<DescribedChange> {
    let with_profile = |profile: &UserProfile| {
        let groups: Vec<&str> = profile.groups.iter().map(|group| group.as_str()).collect();
        match groups.is_empty() {
            true => role_list(&profile.roles),
            false => format!(
                "{}; groups {}",
                role_list(&profile.roles),
                groups.join(", ")
            ),
        }
    };
    let change = match event {
        UserDirectoryEvent::UserAdded { user, profile } => {
            format!("added user {user} ({})", with_profile(profile))
        }
        UserDirectoryEvent::UserChanged { user, profile } => {
            format!("changed user {user} ({})", with_profile(profile))
        }
        UserDirectoryEvent::UserDisabled { user } => format!("disabled user {user}"),
        UserDirectoryEvent::UserEnabled { user } => format!("enabled user {user}"),
        UserDirectoryEvent::UserRemoved { user } => format!("removed user {user}"),
        UserDirectoryEvent::IdentityLinked { user, identity } => {
            format!(
                "linked user {user} to {} of {}",
                identity.subject, identity.issuer
            )
        }
        UserDirectoryEvent::ExternalProfileChanged { user, profile } => {
            let groups: Vec<_> = profile.groups.iter().map(|it| it.as_str()).collect();
            match groups.is_empty() {
                true => format!("signed in as {user}, without groups of the provider"),
                false => format!("signed in as {user}, in the groups {}", groups.join(", ")),
            }
        }
        UserDirectoryEvent::PasswordSet { user, .. } => format!("set the password of {user}"),
        UserDirectoryEvent::GroupAdded { group, roles } => {
            format!("added group {group} ({})", role_list(roles))
        }
        UserDirectoryEvent::GroupChanged { group, roles } => {
            format!("changed group {group} ({})", role_list(roles))
        }
        UserDirectoryEvent::GroupRemoved { group } => format!("removed group {group}"),
        UserDirectoryEvent::TokenCreated { token } => format!(
            "created token {} of {} ({})",
            token.id,
            token.owner,
            role_list(&token.roles)
        ),
        UserDirectoryEvent::TokenRevoked { token } => format!("revoked token {token}"),
        UserDirectoryEvent::SessionStarted { .. }
        | UserDirectoryEvent::SessionEnded { .. }
        | UserDirectoryEvent::SessionsEnded { .. } => return None,
    };
    Some(DescribedChange::new(AuditArea::Access, change))
}
