//! The reader for all archives that the worker doesn't trust: tars of artifacts, caches of other branches, and zips that
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
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use zip::{ZipArchive, read::ZipFile};

use crate::{
    artifact_links::{EntryError, path_depth},
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
pub(crate) enum ArchiveError {
    #[error(transparent)]
    File(#[from] PathError),
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it is not a zip file: {0}")]
    NotAZip(zip::result::ZipError),
    #[error("it has more than {0} files")]
    TooManyEntries(usize),
    #[error("its {packed} bytes unpack to {unpacked}, like a zip bomb; the limit is {max}")]
    TooLarge {
        packed: u64,
        unpacked: u64,
        max: u64,
    },
    #[error("it has {} twice", .0.display())]
    DuplicateEntry(PathBuf),
    #[error("a name in it is not valid UTF-8: {0}")]
    InvalidName(String),
    #[error(transparent)]
    Entry(#[from] EntryError),
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
    /// Number of regular files.
    pub(crate) files_max: usize,
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
    let mut files = 0;
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
        if files > limits.files_max {
            return Err(ArchiveError::TooManyEntries(limits.files_max).into());
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
