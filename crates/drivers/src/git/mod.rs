//! Git: the server as a remote that people push to, and the reading of what they pushed.
//!
//! [`GitRepositories`] owns one bare repository per service and serves it over smart HTTP by running git's own backend ([`http`]);
//! git's post-receive hook reports the push back to the server and shows its answer live in the pusher's terminal
//! ([`hook`]); [`follow`] does without a push: it watches a repository on this machine. [`GitRepository`] reads files, paths and
//! commits out of any repository.
//!
//! Everything runs the `git` command, in an environment made here and nowhere else: no configuration of the machine or the
//! user, no prompts, no hooks but ours, literal path specifications. No text from a push is ever interpreted as an option,
//! a revision expression or a path outside the repository.
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_drivers::git::GitError> {
//! use shipway_drivers::git::Repos;
//! let repos = Repos::open("/var/lib/shipway/git")?;
//! let shop = repos.ensure(&"shop".parse().expect("a valid name")).await?;
//! if let Some(commit) = shop.resolve("refs/heads/main").await? {
//!     let config = shop.read_file(&commit, "shipway.yaml", 1 << 20).await?;
//! }
//! # Ok(()) }
//! ```

mod command;
mod error;
mod export;
pub mod follow;
pub mod hook;
pub mod http;
mod relay;
mod repositories;
mod repository;

pub use error::GitError;
pub use follow::RepositoryFollower;
pub use repositories::GitRepositories;
pub use repository::{CommitAuthor, CommitInfo, GitRefs, GitRepository};

use serde::{Deserialize, Serialize};
use shipway_core::ids::CommitId;

/// The prefix of branches among references.
pub const BRANCHES: &str = "refs/heads/";

/// One reference that moved, appeared or went away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// Its full name: `refs/heads/main`.
    pub name: String,
    /// Where it was; `None` when it is new.
    pub old: Option<CommitId>,
    /// Where it is; `None` when it was deleted. For an annotated tag this is the tag object: [`GitRepository::resolve`] peels it.
    pub new: Option<CommitId>,
}

impl RefUpdate {
    /// The branch's short name; `None` for tags and anything else.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.name.strip_prefix(BRANCHES)
    }
}

/// What changed between two readings of [`GitRepository::refs`], by name. A server that was down finds the pushes whose hook it missed
/// this way.
#[must_use]
pub fn changed_refs(before: &GitRefs, after: &GitRefs) -> Vec<RefUpdate> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| RefUpdate {
            name: name.clone(),
            old: before.get(name).cloned(),
            new: after.get(name).cloned(),
        })
        .filter(|update| update.old != update.new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_names_what_appeared_moved_and_went_away() {
        let id = |digit: &str| digit.repeat(40).parse::<CommitId>().unwrap();
        let refs = |list: &[(&str, &str)]| -> GitRefs {
            list.iter()
                .map(|(name, digit)| ((*name).to_owned(), id(digit)))
                .collect()
        };
        let updates = changed_refs(
            &refs(&[
                ("refs/heads/gone", "1"),
                ("refs/heads/main", "1"),
                ("refs/heads/same", "3"),
            ]),
            &refs(&[
                ("refs/heads/main", "2"),
                ("refs/heads/new", "4"),
                ("refs/heads/same", "3"),
            ]),
        );
        let update = |name: &str, old: Option<&str>, new: Option<&str>| RefUpdate {
            name: format!("refs/heads/{name}"),
            old: old.map(id),
            new: new.map(id),
        };
        assert_eq!(
            updates,
            [
                update("gone", Some("1"), None),
                update("main", Some("1"), Some("2")),
                update("new", None, Some("4"))
            ]
        );
        assert_eq!(updates[1].branch(), Some("main"));
    }
}
