//! Commits that the log refers to stay in a repository; other objects that no branch or tag reaches are removed when they are old.

use std::{collections::BTreeSet, path::PathBuf};

use jiff::Timestamp;
use shipway_core::ids::CommitId;

use super::{GitError, GitRepository, repository::MAINTAIN_DEADLINE};
use crate::folder_size::folder_size;

/// References to commits that the log still refers to; hidden from clients.
const RETAINED: &str = "refs/shipway/retained/";
/// An empty file whose time is that of the last removal of unreachable objects.
const COLLECTED: &str = "shipway-gc";

impl GitRepository {
    /// Adds references to exactly these commits, as far as they are there: [`GitRepository::remove_unreachable`] leaves them alone.
    ///
    /// # Errors
    /// When git fails.
    pub async fn retain_commits(&self, commits: &BTreeSet<CommitId>) -> Result<(), GitError> {
        const WHAT: &str = "retain commits";
        let retained: BTreeSet<CommitId> =
            self.list_refs(&[RETAINED]).await?.into_values().collect();
        let missing = commits.difference(&retained);
        let names: String = missing.map(|commit| format!("{commit}\n")).collect();
        let check = self
            .call(WHAT)
            .args(["cat-file", "--batch-check=%(objecttype) %(objectname)"])
            .stdin(names.into_bytes());
        let answer = check.run().await?.into_success()?;
        let answer = String::from_utf8_lossy(&answer);
        let added = answer
            .lines()
            .filter_map(|line| line.strip_prefix("commit "));
        let added = added.map(|commit| format!("create {RETAINED}{commit} {commit}\n"));
        let dropped = retained.difference(commits);
        let dropped = dropped.map(|commit| format!("delete {RETAINED}{commit}\n"));
        let commands: String = added.chain(dropped).collect();
        if commands.is_empty() {
            return Ok(());
        }
        let call = self.call(WHAT).args(["update-ref", "--stdin"]);
        call.stdin(commands.into_bytes())
            .run()
            .await?
            .into_success()
            .map(drop)
    }

    /// Removes objects that no reference has reached for two weeks, as git does by default: an object of a push that isn't complete yet is
    /// younger. Returns the freed space in bytes.
    ///
    /// # Errors
    /// When git fails.
    pub async fn remove_unreachable(&self) -> Result<u64, GitError> {
        let before = self.size().await;
        let call = self.call("remove unreachable objects");
        call.args(["gc", "--quiet", "--prune=2.weeks.ago"])
            .deadline(MAINTAIN_DEADLINE)
            .run()
            .await?
            .into_success()?;
        let marker = self.git_dir().join(COLLECTED);
        std::fs::write(&marker, "").map_err(GitError::io("write", &marker))?;
        Ok(before.saturating_sub(self.size().await))
    }

    /// When [`GitRepository::remove_unreachable`] last succeeded, or the repository was created.
    #[must_use]
    pub fn collected_at(&self) -> Option<Timestamp> {
        let times = [COLLECTED, "config"].map(|name| {
            let modified = std::fs::metadata(self.git_dir().join(name))
                .ok()?
                .modified()
                .ok()?;
            Timestamp::try_from(modified).ok()
        });
        times.into_iter().flatten().max()
    }

    async fn size(&self) -> u64 {
        let dir: PathBuf = self.git_dir().to_owned();
        let measured = tokio::task::spawn_blocking(move || folder_size(&dir)).await;
        measured.unwrap_or_default()
    }
}
