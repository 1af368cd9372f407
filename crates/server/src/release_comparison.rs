//! What one release has beyond another: commits, from git, and configuration.

use shipway_core::release::{Commit, Release};
use shipway_drivers::git::GitRepositories;
use shipway_pages::ReleasedCommits;

use crate::delivery_engines::DeliveryEngines;

/// Commits that a page shows at most.
const COMMITS_MAX: usize = 100;

/// The commits in `new` and not in `old`, newest first; without `old` the release's own commit alone.
pub(crate) async fn released_commits(
    engines: &DeliveryEngines,
    repositories: &GitRepositories,
    old: Option<&Release>,
    new: &Release,
) -> ReleasedCommits {
    let Some(old) = old else {
        return ReleasedCommits {
            commits: vec![new.commit.clone()],
            ..ReleasedCommits::default()
        };
    };
    if old.commit.id == new.commit.id {
        return ReleasedCommits::default();
    }
    let state = engines.service(&new.service).await.ok().flatten();
    let location = state.as_ref().and_then(|state| state.location.as_ref());
    let repository = location.map_or(&new.service, |location| &location.repository);
    let Some(repository) = repositories.get(repository) else {
        return unreadable("its repository is not here");
    };
    let read = repository.log_between(&old.commit.id, &new.commit.id, COMMITS_MAX + 1);
    match read.await {
        Ok(found) => ReleasedCommits {
            is_cut: found.len() > COMMITS_MAX,
            commits: found
                .into_iter()
                .take(COMMITS_MAX)
                .map(|info| Commit {
                    id: info.id,
                    subject: info.message.lines().next().unwrap_or_default().to_owned(),
                    author: format!("{} <{}>", info.author.name, info.author.email),
                    committer: Some(info.committer),
                    at: info.at,
                })
                .collect(),
            problem: None,
        },
        Err(error) => {
            tracing::debug!(%error, service = %new.service, "the commits of a release can't be read");
            unreadable("git no longer has one of them")
        }
    }
}

fn unreadable(reason: &str) -> ReleasedCommits {
    ReleasedCommits {
        problem: Some(reason.to_owned()),
        ..ReleasedCommits::default()
    }
}
