//! Fetches repositories of a forge, for actions and called workflows. They are cached by commit and shared by all
//! jobs of the machine: `CACHE/FORGE/owner/repo/COMMIT`.
//!
//! Concurrent processes are synchronised by a lock per repository; a commit's folder is created by a rename.
//! Arguments of git come from workflows, so they are validated ([`is_repository`], [`is_reference`]). Logins are
//! never on a command line or in a message ([`forge_login`]).
//!
//! ```no_run
//! # async fn example() -> Result<(), shipway_worker::forge::ForgeError> {
//! use shipway_worker::forge::Forge;
//! let source = shipway_workflow::job::ActionSource::default();
//! let forge = Forge::new(&source, "/tmp/cache".into(), "/tmp/scratch".into());
//! let held = forge.fetch_repository("acme/tools", "v1").await?;
//! println!("{} is {}", held.commit, held.folder.display());
//! # Ok(()) }
//! ```

mod cache_paths;
mod forge_error;
pub mod forge_login;
mod git_command;
mod repository_names;
mod workflow_reader;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use shipway_workflow::job::ActionSource;

use crate::file_hash::to_hex;
use cache_paths::{cache_error, unique_name};
use forge_error::PATIENCE;
pub use forge_error::{ForgeError, TokenFileError, WorkflowError, WorkflowFileProblem};
use forge_login::ForgeLogin;
use git_command::{GitCommand, GitResult};
pub use repository_names::{is_reference, is_repository};
pub use workflow_reader::{FetchedWorkflow, WorkflowReader};

/// A forge and the cache of its repositories.
#[derive(Clone, Debug)]
pub struct Forge {
    /// URL without login, or a folder of bare repositories.
    address: String,
    login: ForgeLogin,
    cache: PathBuf,
    /// `HOME` of git.
    scratch: PathBuf,
}

/// A fetched repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRepository {
    /// Its files, which are shared: they must not be changed.
    pub folder: PathBuf,
    /// The full commit id.
    pub commit: String,
    /// Set if the forge didn't respond and the last known commit of the ref is used: the error.
    pub stale: Option<String>,
}

impl Forge {
    /// The forge of `source`. `cache` is the default for its cache folder; `scratch` is for git.
    #[must_use]
    pub fn new(source: &ActionSource, cache: PathBuf, scratch: PathBuf) -> Self {
        let (address, login) = ForgeLogin::split_address(&source.forge, source.token_file.clone());
        let cache = source.cache.clone().unwrap_or(cache);
        Self {
            cache: cache.join(forge_folder_name(&address)),
            address,
            login,
            scratch,
        }
    }

    /// The address without login.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Fetches a repository at a branch, a tag or a full commit id.
    pub async fn fetch_repository(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<FetchedRepository, ForgeError> {
        if !is_repository(repository) {
            return Err(ForgeError::InvalidRepository(repository.to_owned()));
        }
        if !is_reference(reference) {
            return Err(ForgeError::InvalidReference(reference.to_owned()));
        }
        let fetching = RepositoryFetch {
            url: self.repository_url(repository),
            folder: self.cache.join(repository.to_ascii_lowercase()),
            git: GitCommand::new(&self.address, &self.login, &self.scratch)?,
            is_folder: self.is_local_folder(),
            cache: &self.cache,
            reference,
        };
        let held = tokio::time::timeout(PATIENCE, fetching.fetch_repository()).await;
        held.unwrap_or(Err(ForgeError::TimedOut))
    }

    /// The URL or path of `owner/repo`.
    fn repository_url(&self, repository: &str) -> String {
        if !self.is_local_folder() {
            let joint = if self.address.ends_with(':') { "" } else { "/" };
            return format!("{}{joint}{repository}", self.address);
        }
        let folder = Path::new(&self.address);
        // Forges ignore case.
        let names = [repository.to_owned(), repository.to_ascii_lowercase()];
        let mut paths = names
            .iter()
            .flat_map(|name| [folder.join(format!("{name}.git")), folder.join(name)]);
        let found = paths.find(|path| path.is_dir());
        let found = found.unwrap_or_else(|| folder.join(format!("{repository}.git")));
        found.display().to_string()
    }

    fn is_local_folder(&self) -> bool {
        self.address.starts_with('/')
    }
}

/// One repository to fetch, and its part of the cache.
struct RepositoryFetch<'r> {
    url: String,
    folder: PathBuf,
    git: GitCommand,
    is_folder: bool,
    cache: &'r Path,
    reference: &'r str,
}

impl RepositoryFetch<'_> {
    async fn fetch_repository(&self) -> Result<FetchedRepository, ForgeError> {
        let failed = cache_error(&self.folder);
        fs::create_dir_all(self.folder.join("refs")).map_err(&failed)?;
        let (commit, stale) = self.resolve_ref().await?;
        let folder = self.folder.join(&commit);
        if !folder.is_dir() {
            let lock = self.folder.join("lock");
            // Released at the end of this block. Another process may have fetched the commit meanwhile.
            let _lock = acquire_lock(lock).await?;
            if !folder.is_dir() {
                self.remove_unfinished();
                let temp = self.folder.join(unique_name());
                let result = self.fetch_commit(&temp, &commit).await;
                let kept = result.and_then(|()| fs::rename(&temp, &folder).map_err(&failed));
                if kept.is_err() {
                    let _ = fs::remove_dir_all(&temp);
                }
                kept?;
            }
        }
        Ok(FetchedRepository {
            folder,
            commit,
            stale,
        })
    }

    /// Removes unfinished folders of crashed processes. The caller holds the lock, so nothing else writes here.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("temp-") {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Resolves the ref to a commit. If the forge doesn't respond, uses the last known commit and returns the error,
    /// too.
    async fn resolve_ref(&self) -> Result<(String, Option<String>), ForgeError> {
        let reference = self.reference;
        if reference.len() == 40 && reference.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok((reference.to_ascii_lowercase(), None));
        }
        let note = self.folder.join("refs").join(hex_digest(reference));
        let names = [
            format!("refs/tags/{reference}^{{}}"),
            format!("refs/tags/{reference}"),
            format!("refs/heads/{reference}"),
        ];
        let mut arguments = vec!["ls-remote", "--quiet", self.url.as_str()];
        arguments.extend(names.iter().map(String::as_str));
        match self.git.run_with_retries(self.cache, &arguments).await? {
            GitResult::Success(lines) => {
                let find = |name: &String| {
                    let mut lines = lines.lines().filter_map(|line| line.split_once('\t'));
                    let found = lines.find(|(_, known)| known == name);
                    found.map(|(commit, _)| commit.to_owned())
                };
                let commit = names
                    .iter()
                    .find_map(find)
                    .ok_or_else(|| ForgeError::UnknownReference(reference.to_owned()))?;
                // Best effort: only needed when the forge is unreachable.
                let _ = fs::write(&note, &commit);
                Ok((commit, None))
            }
            GitResult::Failure(why) => {
                let error = if self.is_folder && !Path::new(&self.url).is_dir() {
                    ForgeError::NoRepository(self.url.clone())
                } else {
                    ForgeError::Git(why.text)
                };
                let known = fs::read_to_string(&note).unwrap_or_default();
                if known.is_empty() || !self.folder.join(&known).is_dir() {
                    return Err(error);
                }
                Ok((known, Some(error.to_string())))
            }
        }
    }

    /// Fetches the files of a commit.
    async fn fetch_commit(&self, to: &Path, commit: &str) -> Result<(), ForgeError> {
        let folder = to.display().to_string();
        self.run_git_checked(&self.folder, &["init", "--quiet", "--template=", &folder])
            .await?;
        let url = self.url.as_str();
        let one = ["fetch", "--quiet", "--no-tags", "--depth=1", url, commit];
        match self.git.run_with_retries(to, &one).await? {
            GitResult::Success(_) => {}
            GitResult::Failure(why) if why.may_pass => return Err(ForgeError::Git(why.text)),
            // Some forges don't allow fetching a commit by id: fetch all refs.
            GitResult::Failure(_) => {
                let heads = "+refs/heads/*:refs/heads/*";
                let tags = "+refs/tags/*:refs/tags/*";
                let all = ["fetch", "--quiet", "--update-head-ok", url, heads, tags];
                self.git.run_with_retries(to, &all).await?.into_stdout()?;
            }
        }
        let checkout = ["checkout", "--quiet", "--force", "--detach", commit];
        let checked_out = self.run_git_checked(to, &checkout).await;
        checked_out.map_err(|_| ForgeError::UnknownCommit(commit.to_owned()))?;
        fs::remove_dir_all(to.join(".git")).map_err(cache_error(to))
    }

    async fn run_git_checked(&self, at: &Path, arguments: &[&str]) -> Result<String, ForgeError> {
        self.git.run_once(at, arguments).await?.into_stdout()
    }
}

/// Acquires a file lock without blocking the runtime.
async fn acquire_lock(path: PathBuf) -> Result<fs::File, ForgeError> {
    let lock = path.clone();
    let locking = tokio::task::spawn_blocking(move || {
        let file = fs::File::create(&lock)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    });
    let locked = locking.await.unwrap_or_else(|error| Err(error.into()));
    locked.map_err(cache_error(&path))
}

/// A unique, readable folder name for a forge.
fn forge_folder_name(forge: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '_'
        }
    };
    let name: String = forge.chars().map(plain).take(60).collect();
    format!("{name}-{}", &hex_digest(forge)[..8])
}

fn hex_digest(text: &str) -> String {
    to_hex(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forge_has_a_folder_of_its_own() {
        assert_ne!(
            forge_folder_name("https://a/b"),
            forge_folder_name("https://a_b")
        );
        let source = ActionSource {
            forge: "https://u:hunter2@host".to_owned(),
            ..ActionSource::default()
        };
        let forge = Forge::new(&source, "/c".into(), "/s".into());
        assert_eq!(forge.address(), "https://host");
        assert!(!forge.cache.display().to_string().contains("hunter2"));
        assert!(!format!("{forge:?}").contains("hunter2"));
        assert_eq!(forge.repository_url("a/b"), "https://host/a/b");
    }
}
