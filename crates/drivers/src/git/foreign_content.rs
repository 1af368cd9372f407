//! Finds submodules and pointers of Git LFS in a commit: their content is not in its repository.

use shipway_core::ids::CommitId;

use super::{GitError, GitRepository, repository::split_records};

/// The start of every pointer of Git LFS.
const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1";

/// Paths of a commit whose content is not in its repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignContent {
    /// Commits of other repositories.
    pub submodules: Vec<String>,
    /// Pointers of Git LFS.
    pub large_files: Vec<String>,
}

impl ForeignContent {
    /// Whether all content is in the repository.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.submodules.is_empty() && self.large_files.is_empty()
    }
}

impl GitRepository {
    /// Finds paths of a commit with content that is not in its repository.
    ///
    /// # Errors
    /// When git fails.
    pub async fn find_foreign_content(
        &self,
        commit: &CommitId,
    ) -> Result<ForeignContent, GitError> {
        let entries = self.tree_entries(commit, "").await?;
        let submodules = entries.iter().filter(|entry| entry.is_submodule());
        let submodules = submodules
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .collect();
        let attributes = entries.iter().map(|entry| entry.path.as_slice());
        let has_attributes = attributes
            .clone()
            .any(|path| path == b".gitattributes" || path.ends_with(b"/.gitattributes"));
        // Only files that an attribute names are files of LFS; without any, no blob is read.
        let large_files = match has_attributes && self.has_lfs_attribute(commit).await? {
            true => self.grep(commit, LFS_POINTER).await?,
            false => Vec::new(),
        };
        Ok(ForeignContent {
            submodules,
            large_files,
        })
    }

    async fn has_lfs_attribute(&self, commit: &CommitId) -> Result<bool, GitError> {
        let files = self.grep(commit, "filter=lfs").await?;
        Ok(files
            .iter()
            .any(|file| file.rsplit('/').next() == Some(".gitattributes")))
    }

    /// The files of a commit that contain a text.
    async fn grep(&self, commit: &CommitId, text: &str) -> Result<Vec<String>, GitError> {
        let options = [
            "grep",
            "-z",
            "--text",
            "--files-with-matches",
            "--fixed-strings",
            "--no-recurse-submodules",
        ];
        let call = self.call("search files").args(options);
        let found = call.args(["-e", text, commit.as_str(), "--"]).run().await?;
        // 1: nothing matches.
        if found.code == 1 && found.stdout.is_empty() {
            return Ok(Vec::new());
        }
        let prefix = format!("{commit}:");
        let found = found.into_success()?;
        let names = split_records(&found).map(String::from_utf8_lossy);
        Ok(names
            .map(|name| name.strip_prefix(&prefix).unwrap_or(&name).to_owned())
            .collect())
    }
}
