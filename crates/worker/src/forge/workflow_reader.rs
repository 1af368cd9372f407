//! Workflow files of repositories. During one run each ref of a repository stays at one commit.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Component, Path},
    sync::Arc,
};

use super::{
    FetchedRepository, Forge, ForgeError, WorkflowError, WorkflowFileProblem,
    forge_error::FILE_BYTES_MAX,
};

/// Reads workflow files for one run.
#[derive(Debug)]
pub struct WorkflowReader {
    forge: Forge,
    /// By repository (in lower case) and ref.
    held: BTreeMap<(String, String), Result<FetchedRepository, Arc<ForgeError>>>,
}

/// A workflow file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedWorkflow {
    /// Its contents.
    pub text: String,
    /// The full commit id.
    pub commit: String,
    /// Set if the forge didn't respond and the last known commit is used: the error.
    pub stale: Option<String>,
}

impl WorkflowReader {
    /// Creates a reader with an empty cache.
    #[must_use]
    pub const fn new(forge: Forge) -> Self {
        Self {
            forge,
            held: BTreeMap::new(),
        }
    }

    /// Reads the file at `path` in a repository at a ref.
    pub async fn read_workflow(
        &mut self,
        repository: &str,
        path: &str,
        reference: &str,
    ) -> Result<FetchedWorkflow, WorkflowError> {
        let key = (repository.to_ascii_lowercase(), reference.to_owned());
        if !self.held.contains_key(&key) {
            let held = self.forge.fetch_repository(repository, reference).await;
            self.held.insert(key.clone(), held.map_err(Arc::new));
        }
        let held = self.held[&key].as_ref();
        let held = held.map_err(|source| WorkflowError::NotFetched {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            forge: self.forge.address().to_owned(),
            source: Arc::clone(source),
        })?;
        let text = read_regular_file(&held.folder, path);
        let text = text.map_err(|problem| WorkflowError::File {
            repository: repository.to_owned(),
            reference: reference.to_owned(),
            commit: held.commit.chars().take(7).collect(),
            problem,
        })?;
        Ok(FetchedWorkflow {
            text,
            commit: held.commit.clone(),
            stale: held.stale.clone(),
        })
    }
}

/// Reads a regular file below `folder` without following symlinks, which could lead to other files of this machine.
fn read_regular_file(folder: &Path, path: &str) -> Result<String, WorkflowFileProblem> {
    let mut at = folder.to_owned();
    for part in Path::new(path).components() {
        let Component::Normal(part) = part else {
            return Err(WorkflowFileProblem::LeavesRepository);
        };
        at.push(part);
        if fs::symlink_metadata(&at)?.is_symlink() {
            return Err(WorkflowFileProblem::IsLink);
        }
    }
    let opened = fs::File::open(&at)?;
    if !opened.metadata()?.is_file() {
        return Err(WorkflowFileProblem::NotAFile);
    }
    let mut bytes = Vec::new();
    let mut limited = opened.take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(WorkflowFileProblem::TooLarge);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_repository_are_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("repo");
        fs::create_dir_all(folder.join("w")).unwrap();
        fs::write(folder.join("w/a.yml"), "on: push").unwrap();
        fs::write(root.path().join("secret"), "hunter2").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), folder.join("w/b.yml")).unwrap();
        std::os::unix::fs::symlink(root.path(), folder.join("out")).unwrap();
        fs::write(folder.join("w/big.yml"), vec![b'x'; 2 << 20]).unwrap();
        let of = |path: &str| read_regular_file(&folder, path);
        assert_eq!(of("w/a.yml").unwrap(), "on: push");
        for (path, expected) in [
            ("w/b.yml", "it is a link"),
            ("out/secret", "it is a link"),
            ("../secret", "leaves the repository"),
            ("w/c.yml", "no such file"),
            ("w", "not a file"),
            ("w/big.yml", "larger than"),
        ] {
            assert!(
                of(path).unwrap_err().to_string().contains(expected),
                "{path}"
            );
        }
    }
}
