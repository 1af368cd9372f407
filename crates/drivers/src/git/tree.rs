//! The files and folders of a commit, as `git ls-tree` lists them.

use shipway_core::ids::CommitId;

use super::{
    GitError, GitRepository,
    command::{GitCall, normalize_path},
    repository::split_records,
};

/// The operation of `ls-tree`, for errors.
const LIST_FILES: &str = "list files";
/// Paths in one call of git: far below the limit of a command line, with the longest paths too.
const PATHS_MAX: usize = 200;

/// An entry of a folder of a commit, by its path from the root. Submodules are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderEntry {
    /// A regular file.
    File(String),
    /// A folder with entries of its own.
    Folder(String),
    /// A symbolic link, which git does not follow.
    Link(String),
}

impl FolderEntry {
    /// None for a submodule, and for a path that is not UTF-8.
    fn from_tree(entry: TreeEntry) -> Option<Self> {
        let path = String::from_utf8(entry.path).ok()?;
        match entry.mode & 0o170_000 {
            0o040_000 => Some(Self::Folder(path)),
            0o100_000 => Some(Self::File(path)),
            0o120_000 => Some(Self::Link(path)),
            _ => None,
        }
    }
}

/// A file, symlink or submodule of a commit.
pub(super) struct TreeEntry {
    pub(super) mode: u32,
    pub(super) object: String,
    pub(super) path: Vec<u8>,
}

impl TreeEntry {
    pub(super) const fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    pub(super) const fn is_submodule(&self) -> bool {
        self.mode & 0o170_000 == 0o160_000
    }
}

impl GitRepository {
    /// The sorted paths of all regular files below `under` (empty means the whole commit); empty if there is no such folder.
    /// Files whose names are not UTF-8 are left out.
    ///
    /// # Errors
    /// When the path is invalid, or git fails.
    pub async fn list_files(
        &self,
        commit: &CommitId,
        under: &str,
    ) -> Result<Vec<String>, GitError> {
        let entries = self.tree_entries(commit, under).await?;
        Ok(entries
            .into_iter()
            .filter(TreeEntry::is_file)
            .filter_map(|entry| String::from_utf8(entry.path).ok())
            .collect())
    }

    /// The entries of one folder, sorted; empty if there is no such folder.
    ///
    /// # Errors
    /// When the path is invalid, or git fails.
    pub async fn list_folder(
        &self,
        commit: &CommitId,
        folder: &str,
    ) -> Result<Vec<FolderEntry>, GitError> {
        let folder = normalize_path(folder)?;
        let args = ["ls-tree", "-z", "--full-tree", commit.as_str(), "--"];
        let call = self.call(LIST_FILES).args(args);
        let entries = list_entries(call.args([format!("{folder}/")])).await?;
        Ok(entries
            .into_iter()
            .filter_map(FolderEntry::from_tree)
            .collect())
    }

    /// The entries with these paths, sorted; paths that the commit doesn't have, or no commit can have, are left out.
    ///
    /// # Errors
    /// When git fails.
    pub async fn find_entries(
        &self,
        commit: &CommitId,
        paths: &[String],
    ) -> Result<Vec<FolderEntry>, GitError> {
        let mut found = Vec::new();
        let valid = paths.iter().filter(|path| normalize_path(path).is_ok());
        let valid: Vec<&String> = valid.collect();
        for some in valid.chunks(PATHS_MAX) {
            let args = ["ls-tree", "-z", "--full-tree", commit.as_str(), "--"];
            let call = self.call(LIST_FILES).args(args).args(some);
            found.extend(list_entries(call).await?);
        }
        Ok(found
            .into_iter()
            .filter_map(FolderEntry::from_tree)
            .collect())
    }

    pub(super) async fn tree_entries(
        &self,
        commit: &CommitId,
        under: &str,
    ) -> Result<Vec<TreeEntry>, GitError> {
        let under = normalize_path(under)?;
        let mut call = self.call(LIST_FILES).args([
            "ls-tree",
            "-r",
            "-z",
            "--full-tree",
            commit.as_str(),
            "--",
        ]);
        if !under.is_empty() {
            call = call.args([format!("{under}/")]);
        }
        list_entries(call).await
    }
}

/// Runs `ls-tree -z`, and reads its entries.
async fn list_entries(call: GitCall) -> Result<Vec<TreeEntry>, GitError> {
    let answer = call.run().await?.into_success()?;
    let entry = |record: &[u8]| {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&record[..tab]).ok()?.split(' ');
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let object = words.nth(1)?.to_owned();
        Some(TreeEntry {
            mode,
            object,
            path: record[tab + 1..].to_vec(),
        })
    };
    split_records(&answer)
        .map(|record| entry(record).ok_or_else(|| GitError::answer(LIST_FILES, record)))
        .collect()
}
