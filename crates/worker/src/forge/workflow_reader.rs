//! Workflow files of repositories. During one run each ref of a repository stays at one commit.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Component, Path},
};

use super::{FetchedRepository, Forge};

/// Limit for a workflow file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads workflow files for one run.
#[derive(Debug)]
pub struct WorkflowReader {
    forge: Forge,
    /// By repository (in lower case) and ref.
    held: BTreeMap<(String, String), Result<FetchedRepository, String>>,
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
    ) -> Result<FetchedWorkflow, String> {
        let key = (repository.to_ascii_lowercase(), reference.to_owned());
        if !self.held.contains_key(&key) {
            let held = self.forge.fetch_repository(repository, reference).await;
            self.held.insert(key.clone(), held);
        }
        let forge = self.forge.address();
        let held = self.held[&key].as_ref().map_err(|why| {
            format!(
                "{repository} at {reference} can't be fetched from {forge}: {why}; check its name and ref, or name a forge or a folder of bare repositories that has it with --forge (SHIPWAY_FORGE)"
            )
        })?;
        let text = read_regular_file(&held.folder, path).map_err(|why| {
            let short: String = held.commit.chars().take(7).collect();
            format!("{repository} at {reference} ({short}): {why}")
        })?;
        Ok(FetchedWorkflow {
            text,
            commit: held.commit.clone(),
            stale: held.stale.clone(),
        })
    }
}

/// Reads a regular file below `folder` without following symlinks, which could lead to other files of this machine.
fn read_regular_file(folder: &Path, path: &str) -> Result<String, String> {
    let mut at = folder.to_owned();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    for part in Path::new(path).components() {
        let Component::Normal(part) = part else {
            return Err("its path leaves the repository".to_owned());
        };
        at.push(part);
        if fs::symlink_metadata(&at).map_err(failed)?.is_symlink() {
            return Err("it is a link; only files can be called".to_owned());
        }
    }
    let opened = fs::File::open(&at).map_err(failed)?;
    if !opened.metadata().map_err(failed)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let mut limited = opened.take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
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
            assert!(of(path).unwrap_err().contains(expected), "{path}");
        }
    }
}
