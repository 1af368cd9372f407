//! Git: the server as a remote, and reading the pushed commits.
//!
//! [`GitRepositories`] owns one bare repository per service and serves it over smart HTTP by git's own backend ([`http`]); git's
//! post-receive hook reports a push to the server and shows the response in the pusher's terminal ([`hook`]); [`follow`] works
//! without pushes: it watches a repository on this machine. [`GitRepository`] reads files, paths and commits of any repository.
//!
//! # Invariants
//!
//! - Every git process runs in an environment made here: no configuration of the machine or the user, no prompts, no hooks but
//!   Shipway's, literal path specifications.
//! - No text of a push is interpreted as an option, a revision expression or a path outside the repository.
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_drivers::git::GitError> {
//! use shipway_drivers::git::GitRepositories;
//! let repos = GitRepositories::open("/var/lib/shipway/git")?;
//! let shop = repos.ensure(&"shop".parse().expect("a valid name")).await?;
//! if let Some(commit) = shop.resolve("refs/heads/main").await? {
//! let config = shop.read_file(&commit, "shipway.yaml", 1 << 20).await?;
//! }
//! # Ok(()) }
//! ```

mod command;
mod error;
mod export;
pub mod follow;
mod foreign_content;
pub mod hook;
pub mod http;
mod operation;
mod pack;
mod relay;
mod remote;
mod repositories;
mod repository;
mod retention;
mod tree;

pub use error::GitError;
pub use follow::RepositoryFollower;
pub use foreign_content::ForeignContent;
pub use operation::GitOperation;
pub use pack::PackStream;
pub use remote::{FetchedPullRequest, ForgeRemote, PullRequestReferences};
pub use repositories::GitRepositories;
pub use repository::{CommitAuthor, CommitInfo, CommitRange, GitRefs, GitRepository};
pub use tree::FolderEntry;

use serde::{Deserialize, Serialize};
use shipway_core::ids::CommitId;

/// The prefix of branches among references.
pub const BRANCHES: &str = "refs/heads/";

/// A reference that was created, updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// Its full name: `refs/heads/main`.
    pub name: String,
    /// The old commit; `None` if the reference is new.
    pub old: Option<CommitId>,
    /// The new commit; `None` if the reference was deleted. For an annotated tag this is the tag object:
    /// [`GitRepository::resolve`] peels it.
    pub new: Option<CommitId>,
}

impl RefUpdate {
    /// The branch's short name; `None` for tags and anything else.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.name.strip_prefix(BRANCHES)
    }
}

/// The differences between two results of [`GitRepository::refs`], by name. A server that was down finds missed pushes this way.
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
