//! Who changed users, groups and tokens.

use maud::{Markup, html};
use shipway_core::{
    aggregate::Event,
    user_directory::{UserDirectoryEvent, UserProfile},
};

use super::role_list;

/// Changes that are shown.
const CHANGES_MAX: usize = 100;

/// The changes of the directory, from its events, the oldest first.
pub(super) fn directory_changes(events: &[Event<UserDirectoryEvent>]) -> Markup {
    let described = events
        .iter()
        .rev()
        .filter_map(|event| Some((event.at, event.by.to_string(), describe_event(&event.body)?)));
    let described: Vec<_> = described.take(CHANGES_MAX).collect();
    html! {
        div.card {
            h2 { "Who changed what" }
            @if described.is_empty() { p { "Nothing was changed yet." } }
            ul.history {
                @for (at, by, text) in described {
                    li { time datetime=(at) { (format!("{at:.0}")) } " " strong { (by) } " " (text) }
                }
            }
        }
    }
}

/// A change in a sentence whose subject is the person; none for sessions, which change no rights.
fn describe_event(event: &UserDirectoryEvent) -> Option<String> {
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
    Some(match event {
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
    })
}
