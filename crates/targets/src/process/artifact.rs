//! Unpacks artifacts completely or not at all, and never outside of their folder: [`unpack_untrusted_tar`] decides which entries are
//! rejected.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use shipway_core::ids::Digest;
use shipway_worker::{ArchiveError, unpack_untrusted_tar};
use tokio_util::io::SyncIoBridge;

use super::ArtifactSource;
use crate::target::TargetError;

/// The folder of an unpacked artifact, below that of each slot: instances have separate copies.
pub(super) const APP: &str = "app";
/// Limit of entries of an unpacked artifact that are looked through for written files.
const ENTRIES_MAX: usize = 500_000;
/// Extension of the folder while unpacking.
const UNFINISHED: &str = "unpacking";
/// Extension of an empty file that is written after unpacking.
pub(super) const UNPACKED: &str = "unpacked";

/// Unpacks the artifact to `to`, unless it exists. A crash leaves `to` absent.
pub(super) async fn unpack_artifact(
    artifacts: &dyn ArtifactSource,
    digest: &Digest,
    to: &Path,
) -> Result<(), TargetError> {
    if to.exists() {
        return Ok(());
    }
    replace_artifact(artifacts, digest, to).await
}

/// Unpacks the artifact to `to`, replacing its content.
async fn replace_artifact(
    artifacts: &dyn ArtifactSource,
    digest: &Digest,
    to: &Path,
) -> Result<(), TargetError> {
    let reader = artifacts
        .open(digest)
        .await
        .map_err(|error| TargetError::Artifact(error.to_string()))?;
    let (to, beside) = (to.to_owned(), to.with_extension(UNFINISHED));
    let unpacked = tokio::task::spawn_blocking(move || {
        let result = unpack_to(SyncIoBridge::new(reader), &beside, &to);
        if result.is_err() {
            let _ = fs::remove_dir_all(&beside);
        }
        result
    });
    unpacked
        .await
        .map_err(|error| error.to_string())
        .and_then(|result| result.map_err(|error| error.to_string()))
        .map_err(|why| TargetError::Artifact(format!("{}: {why}", digest.short())))
}

/// Why an artifact can't be unpacked.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn unpack_to(reader: impl io::Read, beside: &Path, to: &Path) -> Result<(), UnpackError> {
    remove_folder(beside)?;
    fs::create_dir_all(beside)?;
    if unpack_untrusted_tar(reader, beside)? == 0 {
        return Err(UnpackError::Empty);
    }
    remove_folder(to)?;
    fs::rename(beside, to)?;
    // Its time tells which files are written later; without it none are reported.
    let _ = fs::write(to.with_extension(UNPACKED), "");
    Ok(())
}

/// Files below an unpacked artifact that were written after unpacking, as sorted relative paths, without language caches.
pub(super) fn find_written_files(app: &Path) -> Vec<String> {
    let unpacked = app.with_extension(UNPACKED);
    let Ok(since) = fs::metadata(unpacked).map(|it| (it.ctime(), it.ctime_nsec())) else {
        return Vec::new();
    };
    let (mut found, mut folders, mut seen) = (Vec::new(), vec![app.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            let is_cache = entry.file_name() == "__pycache__" || entry.file_name() == ".cache";
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if is_cache || seen > ENTRIES_MAX {
                continue;
            }
            let path = entry.path();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() && (metadata.ctime(), metadata.ctime_nsec()) > since {
                let inside = path.strip_prefix(app).unwrap_or(&path);
                found.push(inside.display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
