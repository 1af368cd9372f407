//! Copies of fetched actions: each job has its own, because actions write into their folders.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use shipway_workflow::job::ActionSource;

use super::{
    action_error::ActionError, action_reference::RemoteAction, blocking_task::run_blocking,
    source_files::OwnRepository,
};
use crate::forge::{FetchedRepository, Forge};
use crate::path_error::PathError;

/// Fetches actions of repositories.
#[derive(Clone, Debug)]
pub(crate) struct ActionStore {
    pub(crate) forge: Forge,
    own_repository: OwnRepository,
    /// The folder of the job's copies.
    own: PathBuf,
}

impl ActionStore {
    pub(crate) fn new(source: &ActionSource, own_repository: OwnRepository, job: &Path) -> Self {
        let own = job.join("actions");
        Self {
            forge: Forge::new(source, own.join("cache"), own.clone()),
            own_repository,
            own,
        }
    }

    /// Fetches an action's repository at its ref and copies it into the job's folder.
    pub(crate) async fn fetch_copy(
        &self,
        remote: &RemoteAction,
    ) -> Result<FetchedRepository, ActionError> {
        if remote.is_own() {
            let folder = self.own.join("own_repository");
            self.own_repository.copy_once(&folder).await?;
            return Ok(FetchedRepository {
                folder,
                commit: self.own_repository.commit().to_owned(),
                stale: None,
            });
        }
        let held = self
            .forge
            .fetch_repository(&remote.repository, &remote.reference)
            .await;
        let held = held.map_err(|source| ActionError::NotFetched {
            action: remote.to_string(),
            forge: self.forge.address().to_owned(),
            source,
        })?;
        let name = remote.repository.to_ascii_lowercase().replace('/', "_");
        let folder = self.own.join(name + "_" + &held.commit);
        let (from, to) = (held.folder.clone(), folder.clone());
        run_blocking(move || copy_once(&from, &to).map_err(PathError::at(&to))).await?;
        Ok(FetchedRepository { folder, ..held })
    }
}

/// Copies a folder, unless the copy exists.
fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() {
        return Ok(());
    }
    let temp = to.with_extension("new");
    if temp.exists() {
        fs::remove_dir_all(&temp)?;
    }
    copy_folder(from, &temp)?;
    fs::rename(&temp, to)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
