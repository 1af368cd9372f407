//! Unpacks artifacts completely or not at all, and never outside of their folder. [`shipway_worker::check_archive_entry`] decides which
//! entries are rejected.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use shipway_core::ids::Digest;
use shipway_worker::check_archive_entry;
use tokio_util::io::SyncIoBridge;

use super::ArtifactSource;
use crate::target::TargetError;

/// The folder of an unpacked artifact, below that of each slot: instances have separate copies.
pub(super) const APP: &str = "app";
/// Limit of entries in an artifact.
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
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it has more than {ENTRIES_MAX} files")]
    TooManyFiles,
    #[error("{0}")]
    Refused(String),
    #[error("the entry {} is outside its folder", .0.display())]
    LeavesFolder(PathBuf),
    #[error("{}: {cause}", .path.display())]
    Entry { path: PathBuf, cause: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn unpack_to(reader: impl io::Read, beside: &Path, to: &Path) -> Result<(), UnpackError> {
    remove_folder(beside)?;
    fs::create_dir_all(beside)?;
    if unpack_tar(reader, beside)? == 0 {
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

/// Unpacks the archive; returns the number of files.
fn unpack_tar(reader: impl io::Read, to: &Path) -> Result<usize, UnpackError> {
    let mut archive = tar::Archive::new(reader);
    // Keeps the executable bit, drops setuid.
    archive.set_preserve_permissions(false);
    let mut count = 0;
    for entry in archive.entries().map_err(|error| damaged_error(&error))? {
        let mut entry = entry.map_err(|error| damaged_error(&error))?;
        let path = entry
            .path()
            .map_err(|error| damaged_error(&error))?
            .into_owned();
        let link = entry.link_name().map_err(|error| damaged_error(&error))?;
        let link = link.unwrap_or_default();
        check_archive_entry(&path, entry.header().entry_type(), &link, to)
            .map_err(|error| UnpackError::Refused(error.to_string()))?;
        if entry.header().entry_type().is_dir() {
            fs::create_dir_all(to.join(&path)).map_err(|error| entry_error(&path, &error))?;
            continue;
        }
        count += 1;
        if count > ENTRIES_MAX {
            return Err(UnpackError::TooManyFiles);
        }
        // `unpack_in` also checks that the entry stays inside the folder.
        let inside = entry
            .unpack_in(to)
            .map_err(|error| entry_error(&path, &error))?;
        if !inside {
            return Err(UnpackError::LeavesFolder(path));
        }
    }
    // Read to the end: the digest is verified there.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| damaged_error(&error))?;
    Ok(count)
}

fn damaged_error(error: &io::Error) -> UnpackError {
    UnpackError::Damaged(root_cause(error))
}

fn entry_error(path: &Path, error: &io::Error) -> UnpackError {
    UnpackError::Entry {
        path: path.to_owned(),
        cause: root_cause(error),
    }
}

/// The innermost error: the outer ones repeat the file names.
fn root_cause(error: &io::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Is<'a> {
        File,
        Symlink(&'a str),
        Hardlink(&'a str),
        Device,
    }

    fn tar_of(entries: &[(&str, Is<'_>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, is) in entries {
            let mut header = tar::Header::new_gnu();
            // Past the checks of the builder, as an attacker would.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(0o4755);
            header.set_size(0);
            let (kind, link) = match is {
                Is::File => (tar::EntryType::Regular, ""),
                Is::Symlink(link) => (tar::EntryType::Symlink, *link),
                Is::Hardlink(link) => (tar::EntryType::Link, *link),
                Is::Device => (tar::EntryType::Char, ""),
            };
            header.set_entry_type(kind);
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(entries: &[(&str, Is<'_>)]) -> (tempfile::TempDir, Result<usize, UnpackError>) {
        let folder = tempfile::tempdir().unwrap();
        let result = unpack_tar(tar_of(entries).as_slice(), folder.path());
        (folder, result)
    }

    #[test]
    fn hostile_entries_are_refused_by_name() {
        use Is::{Device, File, Hardlink, Symlink};
        for (entries, wanted) in [
            (vec![("../evil", File)], "the entry ../evil leaves"),
            (vec![("/etc/evil", File)], "the entry /etc/evil leaves"),
            (vec![("a/../../evil", File)], "leaves its folder"),
            (vec![("l", Symlink("/etc"))], "the link l → /etc leaves"),
            (vec![("l", Symlink("../x"))], "the link l → ../x leaves"),
            (vec![("a/b/l", Symlink("../../../x"))], "leaves its folder"),
            (vec![("l", Symlink("a/../../x"))], "leaves its folder"),
            (vec![("l", Hardlink("/etc/passwd"))], "leaves its folder"),
            (vec![("dev", Device)], "is neither file nor folder nor link"),
            (
                vec![("d/x", File), ("l", Symlink("d")), ("l/y", File)],
                "the entry l/y is below a link",
            ),
            (
                vec![("a/b/l", Symlink("../../x")), ("up", Hardlink("a/b/l"))],
                "the link up → a/b/l leaves",
            ),
        ] {
            let (folder, result) = unpacked(&entries);
            let refused = result.unwrap_err();
            assert!(refused.to_string().contains(wanted), "{refused}");
            assert!(!folder.path().parent().unwrap().join("evil").exists());
        }
    }

    #[test]
    fn what_builds_need_is_unpacked() {
        let (folder, result) = unpacked(&[
            ("./bin/run", Is::File),
            ("modules/.bin/tool", Is::Symlink("../tool/cli.js")),
            ("latest", Is::Symlink("bin")),
            ("same", Is::Hardlink("bin/run")),
        ]);
        assert_eq!(result.unwrap(), 4);
        let mode = |path: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = folder.path().join(path);
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(mode("bin/run") & 0o7000, 0, "setuid is gone");
        assert_eq!(mode("latest/run") & 0o700, 0o700);
    }

    #[test]
    fn what_is_no_tar_or_half_of_one_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let noise = vec![7; 4_096];
        let refused = unpack_tar(noise.as_slice(), folder.path()).unwrap_err();
        assert!(
            refused.to_string().starts_with("it is damaged"),
            "{refused}"
        );
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4_096);
        builder
            .append_data(&mut header, "file", noise.as_slice())
            .unwrap();
        let whole = builder.into_inner().unwrap();
        assert!(unpack_tar(&whole[..2_000], folder.path()).is_err());
    }
}
