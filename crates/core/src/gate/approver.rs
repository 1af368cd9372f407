//! Identity of approvers, and the people of a change, whom rules may exclude from approving it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{aggregate::Actor, principal_id::PrincipalId};

/// A person who decides at a gate, as of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovingPerson {
    pub name: String,
    /// None in snapshots from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalId>,
    /// The groups of the person at that moment, each as `@name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl ApprovingPerson {
    /// The person behind an event or a request.
    #[must_use]
    pub fn new(actor: &Actor, groups: &[String]) -> Self {
        Self {
            name: actor.to_string(),
            principal: Some(actor.principal()),
            groups: groups.to_vec(),
        }
    }

    /// Whether both are one person: by the principal, or by the name where several people share a principal.
    #[must_use]
    pub fn is_same_person(&self, other: &Self) -> bool {
        match (&self.principal, &other.principal) {
            (Some(mine), Some(theirs)) if !mine.is_shared() || !theirs.is_shared() => {
                mine == theirs
            }
            _ => self.name == other.name,
        }
    }

    /// Whether `entry` of a list names the person, or a group that the person is a member of.
    #[must_use]
    pub fn is_named_by(&self, entry: &str) -> bool {
        self.name == entry || self.groups.iter().any(|group| group == entry)
    }

    /// The names by which the person may appear in a commit, in lower case.
    fn aliases(&self) -> impl Iterator<Item = String> + '_ {
        let principal = self.principal.as_ref().filter(|it| !it.is_shared());
        let login = principal.and_then(|it| it.as_str().split_once(':'));
        let names = login.map(|(_, login)| login).into_iter();
        names.chain([self.name.as_str()]).map(normalized)
    }
}

/// A person's part in a change, by which a rule may exclude them from approving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeRole {
    /// Wrote the commit.
    Author,
    /// Committed it.
    Committer,
    /// Pushed it or requested the deployment.
    Triggerer,
}

impl ChangeRole {
    /// The words of `not` in `shipway.yaml`.
    pub const WORDS: [(&str, Self); 3] = [
        ("author", Self::Author),
        ("committer", Self::Committer),
        ("triggerer", Self::Triggerer),
    ];
}

impl fmt::Display for ChangeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Author => "author",
            Self::Committer => "committer",
            Self::Triggerer => "triggerer",
        })
    }
}

/// The people of the change that waits at a gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePeople {
    /// `Ada <ada@example.com>`, as git has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer: Option<String>,
    /// Who pushed the change, and who requested its deployment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggerers: Vec<ApprovingPerson>,
}

impl ChangePeople {
    /// Whether no person is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the person behind a push or a request; automation triggers nothing in this sense.
    pub fn add_triggerer(&mut self, actor: &Actor) {
        match actor {
            Actor::Person { .. } | Actor::Push { .. } => {
                let person = ApprovingPerson::new(actor, &[]);
                if !self.triggerers.contains(&person) {
                    self.triggerers.push(person);
                }
            }
            Actor::Shipway(_) | Actor::Workload { .. } => {}
        }
    }

    /// Whether `who` has this part in the change. Names of git are free text, so a match of the name, the address or its local part
    /// is enough: a wrong exclusion costs a second opinion, a wrong admission lets authors approve their own change.
    #[must_use]
    pub fn has_role(&self, who: &ApprovingPerson, role: ChangeRole) -> bool {
        match role {
            ChangeRole::Author => is_commit_person(who, self.author.as_deref()),
            ChangeRole::Committer => is_commit_person(who, self.committer.as_deref()),
            ChangeRole::Triggerer => self.triggerers.iter().any(|it| {
                it.is_same_person(who) || who.aliases().any(|alias| alias == normalized(&it.name))
            }),
        }
    }
}

fn normalized(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Whether `who` is the person of `signature`, such as `Ada <ada@example.com>`.
fn is_commit_person(who: &ApprovingPerson, signature: Option<&str>) -> bool {
    let Some(signature) = signature else {
        return false;
    };
    let (name, email) = match signature.rsplit_once('<') {
        Some((name, email)) => (name, email.trim_end().trim_end_matches('>')),
        None => (signature, signature),
    };
    let local = email.split_once('@').map_or(email, |(local, _)| local);
    // Forges hide addresses behind `12345+login@users.noreply.…`.
    let login = local.rsplit_once('+').map_or(local, |(_, login)| login);
    let known = [name, email, local, login].map(normalized);
    who.aliases()
        .any(|alias| !alias.is_empty() && known.contains(&alias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Principal;

    fn person(name: &str) -> ApprovingPerson {
        ApprovingPerson::new(&Principal::person(name).actor(), &[])
    }

    #[test]
    fn an_author_is_recognized_by_name_address_local_part_and_login_of_a_forge() {
        let people = |signature: &str| ChangePeople {
            author: Some(signature.to_owned()),
            ..ChangePeople::default()
        };
        for (signature, name, is_author) in [
            ("ada <ada@example.com>", "ada", true),
            ("Ada Lovelace <ada@example.com>", "ada", true),
            ("Ada Lovelace <al@example.com>", "ADA LOVELACE", true),
            ("Ada <al@example.com>", "al@example.com", true),
            ("A <123+ada@users.noreply.example.com>", "ada", true),
            ("ada", "ada", true),
            ("Adam <adam@example.com>", "ada", false),
            ("<>", "", false),
            ("", "ada", false),
        ] {
            let people = people(signature);
            let found = people.has_role(&person(name), ChangeRole::Author);
            assert_eq!(found, is_author, "{signature} / {name}");
            assert!(!people.has_role(&person(name), ChangeRole::Committer));
        }
    }

    #[test]
    fn people_who_share_a_token_are_told_apart_by_name_and_others_by_their_principal() {
        let with_token = |name: &str| {
            let principal = Principal::server_token(Some(name.to_owned()));
            ApprovingPerson::new(&principal.actor(), &[])
        };
        assert!(with_token("ada").is_same_person(&with_token("ada")));
        assert!(!with_token("ada").is_same_person(&with_token("bob")));
        let renamed = ApprovingPerson {
            name: "Countess".to_owned(),
            ..person("ada")
        };
        assert!(renamed.is_same_person(&person("ada")));
        let impostor = ApprovingPerson {
            principal: Some("user:eve".parse().unwrap()),
            ..person("ada")
        };
        assert!(!impostor.is_same_person(&person("ada")));
    }

    #[test]
    fn automation_is_no_triggerer_and_a_push_is() {
        let mut people = ChangePeople::default();
        people.add_triggerer(&Actor::Shipway("promotion".to_owned()));
        assert!(people.triggerers.is_empty());
        let push = Principal::person("ada").pusher().actor("ada");
        people.add_triggerer(&push);
        people.add_triggerer(&push);
        assert_eq!(people.triggerers.len(), 1);
        assert!(people.has_role(&person("ada"), ChangeRole::Triggerer));
        assert!(!people.has_role(&person("bob"), ChangeRole::Triggerer));
    }
}
