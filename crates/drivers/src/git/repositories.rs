//! The repositories of a server: `root/{service}.git`, bare, with a shared configuration and hook.
//!
//! The policy is in one file, `root/.shipway/.gitconfig` (the only configuration other than a repository's own, which can't be
//! pushed to), so that a new version of Shipway changes it for all repositories at once. Paths are built only from the service's
//! name, which can't contain a dot or a slash.

use std::{
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use shipway_core::ids::ServiceName;

use super::{
    GitError, GitRepository,
    command::{GitRunner, to_arguments},
};
use shipway_targets::atomic_file::write_atomic;

/// Content of `root/.shipway/hooks/post-receive`. The program is named by the environment, so that an upgraded or moved binary
/// needs no change here.
const HOOK: &[u8] = b"#!/bin/sh\nexec \"$SHIPWAY_EXE\" hook post-receive\n";

/// The repositories below one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GitRepositories {
    root: PathBuf,
    git: GitRunner,
}

impl GitRepositories {
    /// Opens the repositories below `root`, which is created if needed. Rewrites the shared configuration and hook.
    ///
    /// # Errors
    /// When the directory or the two files can't be written.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, GitError> {
        let root =
            std::path::absolute(root.as_ref()).map_err(GitError::io("find", root.as_ref()))?;
        let home = root.join(".shipway");
        let hooks = home.join("hooks");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&hooks)
            .map_err(GitError::io("create", &hooks))?;
        let (config, hook) = (home.join(".gitconfig"), hooks.join("post-receive"));
        write_atomic(&config, shared_configuration(&hooks).as_bytes(), 0o600)
            .map_err(GitError::io("write", &config))?;
        write_atomic(&hook, HOOK, 0o700).map_err(GitError::io("write", &hook))?;
        Ok(Self {
            root,
            git: GitRunner::with_home(home),
        })
    }

    /// The service's repository, created if missing. Safe to call concurrently.
    ///
    /// # Errors
    /// When git can't create it.
    pub async fn ensure(&self, service: &ServiceName) -> Result<GitRepository, GitError> {
        if let Some(repo) = self.get(service) {
            return Ok(repo);
        }
        let dir = self.path(service);
        let git_args = to_arguments([
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--initial-branch=main",
            "--",
        ]);
        // Created under a temporary name and renamed: a crash leaves no incomplete repository under the service's name.
        let aside = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.root)
            .map_err(GitError::io("create a directory in", &self.root))?;
        let made = aside.path().join("git");
        self.git
            .call("create a repository")
            .args(git_args)
            .args([&made])
            .run()
            .await?
            .into_success()?;
        match std::fs::rename(&made, &dir) {
            Ok(()) => {}
            Err(_) if dir.join("HEAD").exists() => {} // a concurrent call created it first
            Err(error) => return Err(GitError::io("create", dir)(error)),
        }
        Ok(GitRepository::new(self.git.clone(), dir))
    }

    /// The service's repository, if it exists.
    #[must_use]
    pub fn get(&self, service: &ServiceName) -> Option<GitRepository> {
        let dir = self.path(service);
        dir.join("HEAD")
            .exists()
            .then(|| GitRepository::new(self.git.clone(), dir))
    }

    /// Removes the service's repository with all its objects. Where there is none, nothing happens.
    ///
    /// # Errors
    /// When files can't be removed; the rest no longer counts as a repository.
    pub fn remove(&self, service: &ServiceName) -> Result<(), GitError> {
        let dir = self.path(service);
        // Renamed first: after a crash half a repository does not count as one.
        let aside = tempfile::Builder::new()
            .prefix(".removed-")
            .tempdir_in(&self.root)
            .map_err(GitError::io("create a directory in", &self.root))?;
        match std::fs::rename(&dir, aside.path().join("git")) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(GitError::io("remove", dir)(error)),
        }
        let path = aside.path().to_owned();
        aside.close().map_err(GitError::io("remove", path))
    }

    /// The services that have a repository.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn services(&self) -> Result<Vec<ServiceName>, GitError> {
        let entries = std::fs::read_dir(&self.root).map_err(GitError::io("read", &self.root))?;
        let service = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".git")?.parse().ok()
        };
        Ok(entries.filter_map(service).collect())
    }

    pub(super) fn path(&self, service: &ServiceName) -> PathBuf {
        self.root.join(format!("{service}.git"))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) const fn git(&self) -> &GitRunner {
        &self.git
    }
}

/// The configuration of all repositories.
fn shared_configuration(hooks: &Path) -> String {
    format!(
        "# Written by shipway at every start; changes made here are lost.\n\
         [safe]\n\tdirectory = *\n\
         [core]\n\thooksPath = {hooks}\n\tfsync = committed,reference\n\
         [http]\n\treceivepack = true\n\tgetanyfile = false\n\
         [protocol]\n\tversion = 2\n\tallow = never\n\
         [protocol \"file\"]\n\tallow = always\n\
         [transfer]\n\thideRefs = refs/shipway\n\
         [receive]\n\tautogc = false\n\tfsckObjects = true\n\tdenyDeleteCurrent = refuse\n\
         [gc]\n\tautoDetach = false\n\
         [maintenance]\n\tautoDetach = false\n\
         [advice]\n\tdetachedHead = false\n",
        hooks = quote_config_value(&hooks.to_string_lossy())
    )
}

/// Quotes a value for git's configuration files.
fn quote_config_value(text: &str) -> String {
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    )
}
