//! Files of Git LFS in a checkout. A commit has pointers instead of them; they are fetched from their own server, or the step fails with
//! the reason. Without the input `lfs` the pointers stay, as on GitHub.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    action_error::ActionError,
    fetch_error::LargeFileError,
    source_files::run_git,
    source_network::{NetworkGit, is_network_address},
    step_context::StepContext,
};

/// The start of every pointer.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";
/// No pointer is longer.
const POINTER_BYTES_MAX: u64 = 1_024;

/// Replaces the pointers of a work tree by their files.
pub(super) async fn fetch_large_files(
    context: &mut StepContext<'_>,
    at: &Path,
) -> Result<(), ActionError> {
    let files = list_large_files(context.env, at).await?;
    let pointers = find_pointers(at, &files);
    if pointers.is_empty() {
        return Ok(());
    }
    let fetched = pull_large_files(context, at).await;
    fetched.map_err(|error| unfetched(&pointers, error))?;
    require_files(at, &files)?;
    context.log_message(&format!("Fetched {} files of Git LFS", pointers.len()));
    Ok(())
}

async fn pull_large_files(context: &StepContext<'_>, at: &Path) -> Result<(), LargeFileError> {
    let local = async |arguments: &[&str]| run_git(context.env, at, arguments).await;
    local(&["lfs", "version"])
        .await
        .map_err(|_| LargeFileError::NotInstalled)?;
    let network = NetworkGit::new(context);
    let address = find_lfs_address(context.env, at, &network).await?;
    // Later calls of git in this work tree need the address as well: its remote is a folder of this machine.
    for setting in [
        &["config", "lfs.url", &address][..],
        &["lfs", "install", "--local"],
    ] {
        let set = local(setting).await;
        set.map_err(|error| LargeFileError::Install(error.to_string()))?;
    }
    let pulled = network.run(context.env, at, &["lfs", "pull"]).await;
    pulled.map_err(|source| LargeFileError::Fetch { address, source })
}

/// Checks that a folder has no pointers.
pub(super) async fn require_large_files(
    context: &StepContext<'_>,
    at: &Path,
) -> Result<(), ActionError> {
    // Not a repository: nothing says that a file is one of LFS.
    let files = list_large_files(context.env, at).await.unwrap_or_default();
    require_files(at, &files)
}

fn require_files(at: &Path, files: &[PathBuf]) -> Result<(), ActionError> {
    let pointers = find_pointers(at, files);
    match pointers.is_empty() {
        true => Ok(()),
        false => {
            let folder = at.to_owned();
            Err(unfetched(&pointers, LargeFileError::StillPointers(folder)))
        }
    }
}

fn unfetched(pointers: &[&PathBuf], source: LargeFileError) -> ActionError {
    ActionError::LargeFiles {
        count: pointers.len(),
        first: pointers
            .first()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        source,
    }
}

/// The tracked files with `filter=lfs` in `.gitattributes`.
async fn list_large_files(
    env: &[(String, String)],
    at: &Path,
) -> Result<Vec<PathBuf>, ActionError> {
    let listed = run_git(env, at, &["ls-files", "-z", ":(attr:filter=lfs)"]).await?;
    let names = listed.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(PathBuf::from).collect())
}

fn find_pointers<'f>(at: &Path, files: &'f [PathBuf]) -> Vec<&'f PathBuf> {
    files
        .iter()
        .filter(|file| is_pointer(&at.join(file)))
        .collect()
}

/// Whether a file is a pointer, also in an artifact.
pub(super) fn is_pointer(path: &Path) -> bool {
    let mut start = Vec::new();
    let is_small = |it: std::fs::Metadata| it.is_file() && it.len() <= POINTER_BYTES_MAX;
    let is_file = path.symlink_metadata().is_ok_and(is_small);
    let read = is_file.then(|| File::open(path)).and_then(Result::ok);
    read.is_some_and(|file| {
        let read = file.take(POINTER.len() as u64).read_to_end(&mut start);
        read.is_ok() && start == POINTER
    })
}

/// Where the files are stored: where the commit says, or on the repository's forge.
async fn find_lfs_address(
    env: &[(String, String)],
    at: &Path,
    network: &NetworkGit,
) -> Result<String, LargeFileError> {
    let configured = ["config", "--file", ".lfsconfig", "--get", "lfs.url"];
    let configured = run_git(env, at, &configured).await.unwrap_or_default();
    let address = match (configured.trim(), network.repository_url()) {
        ("", Some(repository)) => format!("{repository}.git/info/lfs"),
        ("", None) => return Err(LargeFileError::UnknownServer),
        (configured, _) => configured.to_owned(),
    };
    match is_network_address(&address) {
        true => Ok(address),
        false => Err(LargeFileError::Address(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_known_by_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        for (content, expected) in [(pointer, true), ("version https", false), ("", false)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(is_pointer(&path), expected, "{content}");
        }
        assert!(!is_pointer(folder.path()) && !is_pointer(&folder.path().join("missing")));
    }
}
