//! Logins of people whom a provider has authenticated.

use super::{
    USERS_MAX, UserDirectory,
    event::{ExternalIdentity, ExternalProfile, UserDirectoryEvent, UserProfile},
    rejection::UserDirectoryRejection,
    state::UserDirectoryState,
};
use crate::{aggregate::Decider, ids::UserName};

/// Returns the linked user of a person, or adds one, and updates its groups from the provider.
pub(super) fn admit_user(
    decider: &mut Decider<UserDirectory>,
    identity: ExternalIdentity,
    mut profile: ExternalProfile,
    preferred_name: &UserName,
) -> Result<UserName, UserDirectoryRejection> {
    if !decider.state.has_users() {
        return Err(UserDirectoryRejection::NoUsers);
    }
    let groups = &decider.state.groups;
    profile.groups.retain(|group| groups.contains_key(group));
    let linked = decider.state.linked_user(&identity).cloned();
    let user = match linked {
        Some(user) => user,
        None => add_linked_user(decider, identity, preferred_name)?,
    };
    let account = decider.state.users.get(&user);
    let last = account.and_then(|user| user.external.as_ref());
    let is_disabled = account.is_some_and(|it| it.is_disabled);
    if last.is_some_and(|it| it.profile != profile) && !is_disabled {
        let user = user.clone();
        decider.emit(UserDirectoryEvent::ExternalProfileChanged { user, profile });
    }
    Ok(user)
}

fn add_linked_user(
    decider: &mut Decider<UserDirectory>,
    identity: ExternalIdentity,
    preferred_name: &UserName,
) -> Result<UserName, UserDirectoryRejection> {
    let count = decider.state.users.len() + 1;
    UserDirectoryRejection::require_at_most("the server", count, USERS_MAX, "users")?;
    let user = unused_name(&decider.state, preferred_name);
    decider.emit(UserDirectoryEvent::UserAdded {
        user: user.clone(),
        profile: UserProfile::default(),
    });
    let linked = user.clone();
    decider.emit(UserDirectoryEvent::IdentityLinked {
        user: linked,
        identity,
    });
    Ok(user)
}

/// `ada`, or `ada-2` where another user is called so.
fn unused_name(state: &UserDirectoryState, preferred: &UserName) -> UserName {
    let numbered = (2..).map(|number| {
        let room = preferred.as_str().len().min(50);
        let start = preferred.as_str()[..room].trim_end_matches('-');
        format!("{start}-{number}")
            .parse()
            .expect("a name with a number is a name")
    });
    let mut names = std::iter::once(preferred.clone()).chain(numbered);
    let unused = names.find(|name| !state.users.contains_key(name));
    unused.expect("there are more numbers than users")
}
