//! The reader for all untrusted archives: tars of artifacts (also those that targets start), caches of other branches, and zips that
//! actions upload.
//!
//! # Invariants
//!
//! - Paths of entries are relative and contain no `..`. Where an entry may be written in the end, and where its links
//!   may lead, is decided by the caller.
//! - setuid, setgid, the sticky bit and extended attributes are never restored.
//! - The number of entries and the unpacked size are limited.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use zip::{ZipArchive, read::ZipFile};

use crate::{
    artifact_links::{EntryError, check_archive_entry, path_depth},
    path_error::PathError,
};

/// Limit for the entries of an artifact.
pub(crate) const ENTRIES_MAX: usize = 500_000;
/// setuid, setgid and the sticky bit.
const SPECIAL_MODE_BITS: u32 = 0o7000;
/// Unpacked size of a zip that is always accepted.
const UNPACKED_BYTES_FREE: u64 = 1 << 30;
/// Beyond that, the largest compression ratio. Logs shrink to a hundredth; more suggests a zip bomb.
const RATIO_MAX: u64 = 200;
/// Limit for the target of a symlink in a zip.
const LINK_BYTES_MAX: u64 = 4096;
const BUFFER_BYTES: usize = 256 * 1024;

/// Why an archive is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive can't be read, or a file can't be written.
    #[error(transparent)]
    File(#[from] PathError),
    /// Its format is violated.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It has no directory of a zip.
    #[error("it is not a zip file: {0}")]
    NotAZip(zip::result::ZipError),
    /// The limit is in it.
    #[error("it has more than {0} files")]
    TooManyEntries(usize),
    /// The entry would be written through a link.
    #[error("a link is where the folder {} should be", .0.display())]
    LinkInPlaceOfFolder(PathBuf),
    /// It unpacks to more than its size allows.
    #[error("its {packed} bytes unpack to {unpacked}, like a zip bomb; the limit is {max}")]
    TooLarge {
        /// Bytes of the archive.
        packed: u64,
        /// Bytes of its entries.
        unpacked: u64,
        /// Bytes that they may have.
        max: u64,
    },
    /// Two entries have the same path.
    #[error("it has {} twice", .0.display())]
    DuplicateEntry(PathBuf),
    /// A path can't be text.
    #[error("a name in it is not valid UTF-8: {0}")]
    InvalidName(String),
    /// An entry could lead out of the folder, or is no file.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An entry is shorter or longer than it says.
    #[error("{}: its length differs from the declared one", .0.display())]
    WrongLength(PathBuf),
}

impl ArchiveError {
    fn damaged(error: impl Display) -> Self {
        Self::Damaged(error.to_string())
    }

    fn damaged_entry(path: &Path, error: impl Display) -> Self {
        Self::Damaged(format!("{}: {error}", path.display()))
    }
}

/// Limits for a tar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TarLimits {
    /// Number of entries that are not folders.
    pub(crate) entries_max: usize,
    /// Length of the unpacked tar.
    pub(crate) bytes_max: u64,
}

/// An entry of a tar, with a path that can't lead out of the folder that it is unpacked to.
pub(crate) struct TarEntry<'e, R: Read> {
    pub(crate) path: PathBuf,
    pub(crate) kind: tar::EntryType,
    /// Target of a link; empty for other entries. Not checked.
    pub(crate) link_target: PathBuf,
    pub(crate) mode: Option<u32>,
    /// For unpacking.
    pub(crate) inner: tar::Entry<'e, io::Take<R>>,
}

/// Calls `visit` for all entries of a tar in their order. Returns the number of regular files.
pub(crate) fn read_tar<R: Read, E: From<ArchiveError>>(
    tar: R,
    limits: TarLimits,
    mut visit: impl FnMut(TarEntry<'_, R>) -> Result<(), E>,
) -> Result<usize, E> {
    let mut archive = tar::Archive::new(tar.take(limits.bytes_max));
    archive.set_preserve_permissions(true);
    archive.set_mask(SPECIAL_MODE_BITS);
    archive.set_unpack_xattrs(false);
    let (mut files, mut entries) = (0, 0);
    for entry in archive.entries().map_err(ArchiveError::damaged)? {
        let entry = entry.map_err(ArchiveError::damaged)?;
        let path = entry.path().map_err(ArchiveError::damaged)?.into_owned();
        if path_depth(&path).is_none() {
            return Err(ArchiveError::from(EntryError::LeavesFolder(path)).into());
        }
        let target = entry.link_name().map_err(ArchiveError::damaged)?;
        let link_target = target.unwrap_or_default().into_owned();
        let kind = entry.header().entry_type();
        files += usize::from(kind.is_file());
        entries += usize::from(!kind.is_dir());
        if entries > limits.entries_max {
            return Err(ArchiveError::TooManyEntries(limits.entries_max).into());
        }
        visit(TarEntry {
            path,
            kind,
            link_target,
            mode: entry.header().mode().ok(),
            inner: entry,
        })?;
    }
    Ok(files)
}

/// Unpacks the tar of an artifact to the folder `to`, and reads it to its end, where readers verify a digest. Returns the number of
/// regular files. After an error `to` has a part of the entries.
///
/// # Errors
/// When an entry is rejected ([`check_archive_entry`]), the tar is damaged, or a file can't be written.
pub fn unpack_untrusted_tar(mut tar: impl Read, to: &Path) -> Result<usize, ArchiveError> {
    let limits = TarLimits {
        entries_max: ENTRIES_MAX,
        // It is not compressed: it takes as much space packed.
        bytes_max: u64::MAX,
    };
    let files = read_tar(&mut tar, limits, |mut entry| unpack_entry(&mut entry, to))?;
    io::copy(&mut tar, &mut io::sink()).map_err(ArchiveError::damaged)?;
    Ok(files)
}

fn unpack_entry<R: Read>(entry: &mut TarEntry<'_, R>, to: &Path) -> Result<(), ArchiveError> {
    let TarEntry {
        path,
        kind,
        link_target,
        inner,
        ..
    } = entry;
    check_archive_entry(path, *kind, link_target, to)?;
    if kind.is_dir() {
        let folder = to.join(&*path);
        if folder.is_symlink() {
            return Err(ArchiveError::LinkInPlaceOfFolder(path.clone()));
        }
        // Without the mode of the entry: a read-only folder can't be filled.
        return Ok(fs::create_dir_all(folder).map_err(PathError::at(path))?);
    }
    // `unpack_in` resolves symlinks and refuses paths outside of `to`.
    match inner.unpack_in(to) {
        Ok(true) => Ok(()),
        Ok(false) => Err(EntryError::LeavesFolder(path.clone()).into()),
        Err(error) => Err(PathError::at(path)(innermost(error)).into()),
    }
}

/// The innermost error: the outer ones of the tar reader repeat the names of files.
fn innermost(error: io::Error) -> io::Error {
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    io::Error::new(error.kind(), cause.to_string())
}

/// A zip whose names and sizes were checked.
pub(crate) struct UntrustedZip {
    archive: ZipArchive<BufReader<File>>,
    /// Paths and indices of all entries except folders, sorted by path.
    entries: Vec<(PathBuf, usize)>,
}

/// The content of a zip's entry.
pub(crate) enum ZipContent<'e> {
    /// A symlink with its target. Not checked.
    Symlink(PathBuf),
    File {
        mode: u32,
        size: u64,
        reader: &'e mut dyn Read,
    },
}

impl UntrustedZip {
    /// Opens a zip and checks the names and sizes of its entries.
    pub(crate) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(PathError::at(path))?;
        let packed = file.metadata().map_err(PathError::at(path))?.len();
        let max = UNPACKED_BYTES_FREE.max(packed.saturating_mul(RATIO_MAX));
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut archive = ZipArchive::new(reader).map_err(ArchiveError::NotAZip)?;
        if archive.len() > ENTRIES_MAX {
            return Err(ArchiveError::TooManyEntries(ENTRIES_MAX));
        }
        let (mut entries, mut unpacked) = (Vec::with_capacity(archive.len()), 0_u64);
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index);
            let entry = entry.map_err(ArchiveError::damaged)?;
            if !entry.is_dir() {
                entries.push((checked_path(&entry)?, index));
                unpacked = unpacked.saturating_add(entry.size());
            }
        }
        if unpacked > max {
            return Err(ArchiveError::TooLarge {
                packed,
                unpacked,
                max,
            });
        }
        entries.sort();
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(ArchiveError::DuplicateEntry(twice[0].0.clone()));
        }
        Ok(Self { archive, entries })
    }

    /// Calls `visit` for all files and symlinks, sorted by path.
    pub(crate) fn read_entries<E: From<ArchiveError>>(
        mut self,
        mut visit: impl FnMut(&Path, ZipContent<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (path, index) in &self.entries {
            let damaged = |error: &dyn Display| ArchiveError::damaged_entry(path, error);
            let entry = self.archive.by_index(*index);
            let mut entry = entry.map_err(|error| damaged(&error))?;
            if entry.is_symlink() {
                let mut target = String::new();
                let read = entry.take(LINK_BYTES_MAX).read_to_string(&mut target);
                read.map_err(|error| damaged(&error))?;
                visit(path, ZipContent::Symlink(target.into()))?;
                continue;
            }
            // The declared size was checked against the limit: read no more than that.
            let size = entry.size();
            let mode = entry.unix_mode().unwrap_or(0o644);
            let mut counted = CountingReader {
                inner: (&mut entry).take(size),
                count: 0,
            };
            let reader = &mut counted;
            visit(path, ZipContent::File { mode, size, reader })?;
            let rest = |entry: &mut dyn Read| entry.read(&mut [0]);
            if counted.count != size || rest(&mut entry).map_err(|error| damaged(&error))? > 0 {
                return Err(ArchiveError::WrongLength(path.clone()).into());
            }
        }
        Ok(())
    }
}

fn checked_path<R: Read>(entry: &ZipFile<'_, R>) -> Result<PathBuf, ArchiveError> {
    let name = entry.name();
    let name = name.map_err(|error| ArchiveError::InvalidName(error.to_string()))?;
    let path = Path::new(name.as_ref());
    let leaves = name.contains(['\\', '\0'])
        || path_depth(path).is_none()
        || entry.enclosed_name().is_none();
    if leaves {
        return Err(EntryError::LeavesFolder(path.to_owned()).into());
    }
    // Removes `./`.
    Ok(path.components().collect())
}

struct CountingReader<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.count += count as u64;
        Ok(count)
    }
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

    fn unpacked(entries: &[(&str, Is<'_>)]) -> (tempfile::TempDir, Result<usize, ArchiveError>) {
        let folder = tempfile::tempdir().unwrap();
        let result = unpack_untrusted_tar(tar_of(entries).as_slice(), folder.path());
        (folder, result)
    }

    #[test]
    fn hostile_entries_are_refused_by_name() {
        use Is::{Device, File, Hardlink, Symlink};
        for (entries, wanted) in [
            (vec![("../evil", File)], "the entry ../evil is outside"),
            (vec![("/etc/evil", File)], "the entry /etc/evil is outside"),
            (vec![("a/../../evil", File)], "is outside its folder"),
            (
                vec![("l", Symlink("/etc"))],
                "the link l → /etc points outside",
            ),
            (
                vec![("l", Symlink("../x"))],
                "the link l → ../x points outside",
            ),
            (
                vec![("a/b/l", Symlink("../../../x"))],
                "points outside its folder",
            ),
            (
                vec![("l", Symlink("a/../../x"))],
                "points outside its folder",
            ),
            (
                vec![("l", Hardlink("/etc/passwd"))],
                "points outside its folder",
            ),
            (vec![("dev", Device)], "is neither file nor folder nor link"),
            (
                vec![("d/x", File), ("l", Symlink("d")), ("l/y", File)],
                "the entry l/y is below a link",
            ),
            (
                vec![("a/b/l", Symlink("../../x")), ("up", Hardlink("a/b/l"))],
                "the link up → a/b/l points outside",
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
        assert_eq!(result.unwrap(), 1, "links are no files");
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
        let refused = unpack_untrusted_tar(noise.as_slice(), folder.path()).unwrap_err();
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
        assert!(unpack_untrusted_tar(&whole[..2_000], folder.path()).is_err());
    }
}
