//! Scenarios of users, tokens and sessions.

use jiff::SignedDuration;

use super::*;
use crate::{access::Principal, aggregate::fold, sealed_value::SealingKeyId};

struct Directory {
    state: UserDirectoryState,
    events: Vec<Event<UserDirectoryEvent>>,
    now: Timestamp,
}

fn profile(roles: &[&str]) -> UserProfile {
    UserProfile {
        roles: roles.iter().map(|it| it.parse().unwrap()).collect(),
        ..UserProfile::default()
    }
}

fn sealed() -> SealedValue {
    SealedValue {
        key: SealingKeyId(1),
        data: "c2VhbGVk".to_owned(),
    }
}

fn hash(text: &str) -> Digest {
    Digest::compute(text.as_bytes())
}

impl Directory {
    fn new() -> Self {
        Self {
            state: UserDirectoryState::default(),
            events: Vec::new(),
            now: "2026-11-30T09:00:00Z".parse().unwrap(),
        }
    }

    /// With an admin `ada` and a deployer `bob`.
    fn with_users() -> Self {
        let mut directory = Self::new();
        directory.add("ada", &["admin"]).unwrap();
        directory.add("bob", &["deployer:shop"]).unwrap();
        directory
    }

    fn send(&mut self, input: UserDirectoryInput) -> Result<usize, UserDirectoryRejection> {
        let by = Principal::person("ada").actor();
        let events = UserDirectory::decide(&self.state, input, by, self.now)?;
        fold::<UserDirectory>(&mut self.state, &events);
        self.events.extend(events.iter().cloned());
        Ok(events.len())
    }

    fn add(&mut self, user: &str, roles: &[&str]) -> Result<usize, UserDirectoryRejection> {
        self.send(UserDirectoryInput::AddUser {
            user: user.parse().unwrap(),
            profile: profile(roles),
            password: (!self.state.has_users()).then(sealed),
        })
    }

    fn token(
        &mut self,
        secret: &str,
        roles: &[&str],
        days: i64,
        parent: Option<&str>,
    ) -> Result<usize, UserDirectoryRejection> {
        self.send(UserDirectoryInput::CreateToken {
            name: "ci".to_owned(),
            owner: "bob".parse().unwrap(),
            hash: hash(secret),
            roles: profile(roles).roles,
            expires_at: Some(self.now + SignedDuration::from_hours(24 * days)),
            parent: parent.map(|id| id.parse().unwrap()),
        })
    }
}

#[test]
fn the_first_user_is_an_admin_and_the_last_admin_stays() {
    let mut directory = Directory::new();
    assert!(matches!(
        directory.add("bob", &["deployer"]),
        Err(UserDirectoryRejection::FirstUserNotAdmin(_))
    ));
    assert!(directory.add("bob", &["admin:shop"]).is_err());
    directory.add("ada", &["admin"]).unwrap();
    let user = || "ada".parse().unwrap();
    for input in [
        UserDirectoryInput::RemoveUser {
            user: user(),
            version: None,
        },
        UserDirectoryInput::DisableUser {
            user: user(),
            version: None,
        },
        UserDirectoryInput::ChangeUser {
            user: user(),
            profile: profile(&["deployer"]),
            version: None,
        },
    ] {
        assert_eq!(
            directory.send(input),
            Err(UserDirectoryRejection::LastAdmin)
        );
    }
    let group = || "ops".parse().unwrap();
    directory
        .send(UserDirectoryInput::AddGroup {
            group: group(),
            roles: profile(&["admin"]).roles,
        })
        .unwrap();
    let member = UserProfile {
        groups: [group()].into(),
        ..profile(&[])
    };
    directory
        .send(UserDirectoryInput::ChangeUser {
            user: user(),
            profile: member,
            version: Some(2),
        })
        .unwrap();
    let removal = directory.send(UserDirectoryInput::RemoveGroup {
        group: group(),
        version: None,
    });
    assert_eq!(removal, Err(UserDirectoryRejection::LastAdmin));
    let ada = directory.state.principal(&user()).unwrap();
    assert_eq!(ada.groups, ["@ops"]);
}

#[test]
fn of_two_admins_who_edit_one_user_the_second_is_told() {
    let mut directory = Directory::with_users();
    let change = |role| UserDirectoryInput::ChangeUser {
        user: "bob".parse().unwrap(),
        profile: profile(&[role]),
        version: Some(1),
    };
    directory.send(change("viewer")).unwrap();
    assert_eq!(
        directory.send(change("approver")),
        Err(UserDirectoryRejection::Stale {
            given: 1,
            current: 2
        })
    );
}

#[test]
fn a_token_ends_with_its_expiry_its_owner_and_its_parent() {
    let mut directory = Directory::with_users();
    directory.token("one", &["admin"], 10, None).unwrap();
    directory
        .token("two", &["viewer:shop"], 5, Some("t1"))
        .unwrap();
    directory.token("three", &["admin"], 10, None).unwrap();
    let refused = directory.token("x", &["viewer"], 11, Some("t1"));
    assert!(matches!(
        refused,
        Err(UserDirectoryRejection::OutlivesParent(_))
    ));
    let refused = directory.token("x", &["deployer:shop"], 1, Some("t2"));
    assert!(matches!(
        refused,
        Err(UserDirectoryRejection::ExceedsParent { .. })
    ));
    assert!(directory.token("x", &[], 367, None).is_err());
    let now = directory.now;
    let principal = directory.state.token_principal(&hash("two"), now).unwrap();
    assert_eq!(principal.id.as_str(), "user:bob");
    assert_eq!(principal.name.as_deref(), Some("bob"));
    let later = now + SignedDuration::from_hours(24 * 5);
    assert!(matches!(
        directory.state.token_principal(&hash("two"), later),
        Err(TokenProblem::Expired(_))
    ));
    directory
        .send(UserDirectoryInput::RevokeToken {
            token: "t1".parse().unwrap(),
        })
        .unwrap();
    for secret in ["one", "two"] {
        let found = directory.state.token_principal(&hash(secret), now);
        assert_eq!(found, Err(TokenProblem::Unknown), "{secret}");
    }
    directory
        .send(UserDirectoryInput::DisableUser {
            user: "bob".parse().unwrap(),
            version: None,
        })
        .unwrap();
    assert!(matches!(
        directory.state.token_principal(&hash("three"), now),
        Err(TokenProblem::OwnerDisabled(_))
    ));
    directory.token("x", &[], 1, None).unwrap_err();
}

#[test]
fn a_session_ends_after_a_week_with_a_new_password_and_with_its_user() {
    let mut directory = Directory::with_users();
    let user = || "bob".parse::<UserName>().unwrap();
    for (ends_with, input) in [
        (
            "a password",
            UserDirectoryInput::SetPassword {
                user: user(),
                password: sealed(),
            },
        ),
        (
            "log out everywhere",
            UserDirectoryInput::EndSessions { user: user() },
        ),
        (
            "a logout",
            UserDirectoryInput::EndSession { session: hash("s") },
        ),
        (
            "being disabled",
            UserDirectoryInput::DisableUser {
                user: user(),
                version: None,
            },
        ),
    ] {
        let start = UserDirectoryInput::StartSession {
            session: hash("s"),
            user: user(),
        };
        directory.send(start).unwrap();
        let now = directory.now;
        let week = now + SESSION_LIFETIME;
        assert!(directory.state.session_principal(&hash("s"), now).is_some());
        assert!(
            directory
                .state
                .session_principal(&hash("s"), week)
                .is_none()
        );
        directory.send(input).unwrap();
        let found = directory.state.session_principal(&hash("s"), now);
        assert!(found.is_none(), "{ends_with}");
    }
}

#[test]
fn a_server_is_set_up_once() {
    let setup = || UserDirectoryInput::SetUp {
        user: "ada".parse().unwrap(),
        profile: profile(&["admin"]),
        password: sealed(),
    };
    let mut directory = Directory::new();
    assert_eq!(directory.send(setup()), Ok(2));
    assert_eq!(
        directory.send(setup()),
        Err(UserDirectoryRejection::AlreadySetUp)
    );
}

#[test]
fn hostile_names_and_too_much_of_anything_are_refused() {
    let mut directory = Directory::with_users();
    for name in [
        "",
        " ",
        "a\nb",
        "\u{202e}nimda",
        "a\u{200b}",
        &"x".repeat(1 << 20),
    ] {
        let changed = directory.send(UserDirectoryInput::ChangeUser {
            user: "bob".parse().unwrap(),
            profile: UserProfile {
                display_name: Some(name.to_owned()),
                ..profile(&[])
            },
            version: None,
        });
        assert!(matches!(
            changed,
            Err(UserDirectoryRejection::InvalidText(_))
        ));
    }
    assert!(
        directory
            .token("x", &["viewer"; ROLES_MAX + 1], 1, None)
            .is_err()
    );
    for name in ["Ada", "a b", "../x", "<script>", "a\u{202e}b"] {
        assert!(name.parse::<UserName>().is_err(), "{name}");
    }
}

#[test]
fn the_state_is_the_fold_of_its_events_as_they_are_stored() {
    let mut directory = Directory::with_users();
    directory.token("one", &["viewer"], 1, None).unwrap();
    let password = sealed();
    let user = "bob".parse().unwrap();
    directory
        .send(UserDirectoryInput::SetPassword { user, password })
        .unwrap();
    let stored = serde_json::to_string(&directory.events).unwrap();
    let events: Vec<Event<UserDirectoryEvent>> = serde_json::from_str(&stored).unwrap();
    let mut state = UserDirectoryState::default();
    fold::<UserDirectory>(&mut state, &events);
    assert_eq!(state, directory.state);
    let snapshot = serde_json::to_string(&state).unwrap();
    let read: UserDirectoryState = serde_json::from_str(&snapshot).unwrap();
    assert_eq!(read, directory.state);
}

impl Directory {
    /// Ada of a provider signs in, in groups.
    fn sign_in(&mut self, subject: &str, groups: &[&str]) -> Result<usize, UserDirectoryRejection> {
        self.send(UserDirectoryInput::StartExternalSession {
            session: hash(subject),
            identity: ExternalIdentity {
                issuer: "https://login.example.com".to_owned(),
                subject: subject.to_owned(),
            },
            profile: ExternalProfile {
                groups: groups.iter().map(|it| it.parse().unwrap()).collect(),
                ..ExternalProfile::default()
            },
            preferred_name: "ada".parse().unwrap(),
        })
    }

    fn session(&self, subject: &str) -> Principal {
        let session = self.state.session_principal(&hash(subject), self.now);
        session.unwrap().0
    }
}

#[test]
fn a_person_of_a_provider_is_never_a_user_that_exists() {
    let mut directory = Directory::new();
    assert_eq!(
        directory.sign_in("1", &[]),
        Err(UserDirectoryRejection::NoUsers)
    );
    directory.add("ada", &["admin"]).unwrap();
    directory.add("ada-2", &["admin"]).unwrap();
    for (subject, name) in [
        ("1", "user:ada-3"),
        ("2", "user:ada-4"),
        ("1", "user:ada-3"),
    ] {
        directory.sign_in(subject, &[]).unwrap();
        let principal = directory.session(subject);
        assert_eq!((principal.id.as_str(), principal.roles.len()), (name, 0));
    }
    let disable = UserDirectoryInput::DisableUser {
        user: "ada-3".parse().unwrap(),
        version: None,
    };
    directory.send(disable).unwrap();
    assert!(matches!(
        directory.sign_in("1", &[]),
        Err(UserDirectoryRejection::UserDisabled(_))
    ));
}

#[test]
fn groups_of_a_provider_come_and_go_and_are_no_reason_to_have_no_other_admin() {
    let mut directory = Directory::with_users();
    let group = || "ops".parse().unwrap();
    let roles = profile(&["admin"]).roles;
    directory
        .send(UserDirectoryInput::AddGroup {
            group: group(),
            roles,
        })
        .unwrap();
    directory.sign_in("1", &["ops", "unknown"]).unwrap();
    assert_eq!(directory.session("1").groups, ["@ops"]);
    assert_eq!(directory.session("1").roles.len(), 1);
    let remove = UserDirectoryInput::RemoveUser {
        user: "ada".parse().unwrap(),
        version: None,
    };
    assert_eq!(
        directory.send(remove),
        Err(UserDirectoryRejection::LastAdmin)
    );
    // A session of an earlier login loses the role, too.
    directory.sign_in("1", &[]).unwrap();
    assert!(directory.session("1").roles.is_empty());
    directory.sign_in("1", &["ops"]).unwrap();
    directory
        .send(UserDirectoryInput::RemoveGroup {
            group: group(),
            version: None,
        })
        .unwrap();
    assert!(directory.session("1").groups.is_empty());
    let stored = serde_json::to_string(&directory.state).unwrap();
    assert_eq!(
        serde_json::from_str::<UserDirectoryState>(&stored).unwrap(),
        directory.state
    );
}
