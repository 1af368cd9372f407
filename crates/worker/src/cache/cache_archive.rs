//! Archives of the built-in cache action.
//!
//! Paths in the workspace or home folder are stored relative to these and restored to those of the restoring job;
//! others are absolute. An archive may come from a job of another branch, so it may only write to the paths that the
//! restoring job names.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use crate::{
    file_hash,
    path_error::PathError,
    path_patterns::{self, HiddenFiles, PathMatches, PatternError, SearchRoots},
    untrusted_archive::{ArchiveError, TarLimits, read_tar},
};

/// Limit for the unpacked size: ten times that of all packed caches.
const UNPACKED_BYTES_MAX: u64 = 100 << 30;
const CHUNK_BYTES: usize = 256 * 1024;

/// Why a cache can't be packed or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheArchiveError {
    #[error(transparent)]
    Patterns(#[from] PatternError),
    #[error(transparent)]
    File(#[from] PathError),
    #[error("the cache is damaged: {0}")]
    Archive(#[from] ArchiveError),
    #[error("{} is not an absolute path", .0.display())]
    NotAbsolute(PathBuf),
    #[error("the cache contains {}, which is outside of the requested paths", .0.display())]
    UnexpectedPath(PathBuf),
    #[error("the cache contains {}, which is not a file", .0.display())]
    UnexpectedKind(PathBuf),
    #[error("{}: a link on the path points outside", .0.display())]
    LinkLeadsOut(PathBuf),
    #[error("{}: it would replace a whole folder", .0.display())]
    ReplacesRoot(PathBuf),
}

/// The folder that a stored path is relative to; the first component of its name in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArchiveRoot {
    Workspace,
    Home,
    /// `/`
    Machine,
}

impl ArchiveRoot {
    const ALL: [(Self, &str); 3] = [
        (Self::Workspace, "workspace"),
        (Self::Home, "home"),
        (Self::Machine, "machine"),
    ];

    fn base_folder(self, roots: &SearchRoots) -> &Path {
        match self {
            Self::Workspace => &roots.root,
            Self::Home => &roots.home,
            Self::Machine => Path::new("/"),
        }
    }

    /// The name of a path in an archive.
    fn archive_name(path: &Path, roots: &SearchRoots) -> Option<PathBuf> {
        Self::ALL.into_iter().find_map(|(root, word)| {
            let inner = path.strip_prefix(root.base_folder(roots)).ok()?;
            Some(Path::new(word).join(inner))
        })
    }

    /// Parses a name in an archive into its root and the relative path.
    fn parse_archive_name(name: &Path) -> Option<(Self, PathBuf)> {
        let mut steps = name.components();
        let first = steps.next()?;
        let (root, _) = Self::ALL
            .into_iter()
            .find(|(_, word)| first.as_os_str() == *word)?;
        let rest = steps.as_path();
        let plain = rest
            .components()
            .all(|step| matches!(step, Component::Normal(_)));
        plain.then(|| (root, rest.to_owned()))
    }
}

/// Identifies path list and format: only caches with the same version match.
pub(crate) fn archive_version(patterns: &str) -> String {
    let lines = patterns
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    file_hash::to_hex(&Sha256::digest(format!(
        "shipway tar gzip 1\n{}",
        lines.join("\n")
    )))
}

/// Packs the matching files into `to`; false if there are none.
pub(crate) fn pack_cache(
    roots: &SearchRoots,
    patterns: &str,
    to: &Path,
) -> Result<bool, CacheArchiveError> {
    let found = path_patterns::find_in_roots(roots, &[patterns.to_owned()], HiddenFiles::Include)?;
    if found.files.is_empty() && found.folders.is_empty() {
        return Ok(false);
    }
    let failed = PathError::at(to);
    let file = File::create(to).map_err(&failed)?;
    // Level 1: at higher levels compression, not the disk, is the bottleneck.
    let gzip = GzEncoder::new(
        BufWriter::with_capacity(CHUNK_BYTES, file),
        Compression::fast(),
    );
    let mut builder = tar::Builder::new(gzip);
    builder.follow_symlinks(false);
    // Folders before their contents.
    let PathMatches { files, folders, .. } = found;
    for path in folders.iter().chain(&files) {
        append_path(&mut builder, roots, path)?;
    }
    let gzip = builder.into_inner().map_err(&failed)?;
    let buffer = gzip.finish().map_err(&failed)?;
    buffer
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    Ok(true)
}

fn append_path<W: io::Write>(
    builder: &mut tar::Builder<W>,
    roots: &SearchRoots,
    path: &Path,
) -> Result<(), CacheArchiveError> {
    let failed = PathError::at(path);
    let name = ArchiveRoot::archive_name(path, roots);
    let name = name.ok_or_else(|| CacheArchiveError::NotAbsolute(path.to_owned()))?;
    let found = path.symlink_metadata().map_err(&failed)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&found);
    header.set_uid(0);
    header.set_gid(0);
    if found.is_symlink() {
        let target = fs::read_link(path).map_err(&failed)?;
        header.set_size(0);
        builder
            .append_link(&mut header, name, target)
            .map_err(&failed)?;
    } else if found.is_dir() {
        header.set_size(0);
        builder
            .append_data(&mut header, name, io::empty())
            .map_err(&failed)?;
    } else if found.is_file() {
        let file = File::open(path).map_err(&failed)?;
        let size = found.len();
        // The file may change meanwhile: cut off or pad with zeros to the size in the header.
        let content = file.take(size).chain(io::repeat(0)).take(size);
        builder
            .append_data(&mut header, name, content)
            .map_err(&failed)?;
    }
    // Sockets, FIFOs and devices are skipped.
    Ok(())
}

/// Unpacks an archive to the paths that the patterns name; returns the number of files.
pub(crate) fn unpack_cache(
    from: &Path,
    roots: &SearchRoots,
    patterns: &str,
) -> Result<usize, CacheArchiveError> {
    // The search paths determine where the archive may write, even if nothing exists there yet.
    let allowed = AllowedPaths::new(path_patterns::search_paths(roots, &[patterns.to_owned()])?)?;
    let file = File::open(from).map_err(PathError::at(from))?;
    let gzip = GzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
    let limits = TarLimits {
        entries_max: usize::MAX,
        bytes_max: UNPACKED_BYTES_MAX,
    };
    let mut modes = Vec::new();
    let count = read_tar(gzip, limits, |mut entry| {
        let path = ArchiveRoot::parse_archive_name(&entry.path)
            .map(|(root, inner)| root.base_folder(roots).join(inner))
            .filter(|path| allowed.contains(path));
        let path = path.ok_or_else(|| CacheArchiveError::UnexpectedPath(entry.path.clone()))?;
        if entry.kind.is_dir() {
            let real = allowed.resolve_folder(&path)?;
            fs::create_dir_all(&real).map_err(PathError::at(&path))?;
            // Set folder modes at the end: a read-only folder can't be filled.
            modes.push((real, entry.mode.unwrap_or(0o755)));
        } else if entry.kind.is_file() || entry.kind.is_symlink() {
            let real = allowed.resolve_file(&path)?;
            replace_entry(&mut entry.inner, &real).map_err(PathError::at(&path))?;
        } else {
            return Err(CacheArchiveError::UnexpectedKind(entry.path));
        }
        Ok(())
    })?;
    for (real, mode) in modes.into_iter().rev() {
        set_folder_mode(&real, mode).map_err(PathError::at(&real))?;
    }
    Ok(count)
}

/// Sets the mode of an unpacked folder. If a later entry has replaced it or a parent folder by a symlink, nothing is
/// changed: the mode of a symlink's target must not be touched.
fn set_folder_mode(real: &Path, mode: u32) -> io::Result<()> {
    let is_unchanged = real.canonicalize().is_ok_and(|found| found == *real) && real.is_dir();
    if !is_unchanged {
        return Ok(());
    }
    fs::set_permissions(real, fs::Permissions::from_mode(mode & 0o777 | 0o700))
}

/// Creates a file or symlink at `real`, replacing any existing one.
fn replace_entry<R: Read>(entry: &mut tar::Entry<'_, R>, real: &Path) -> io::Result<()> {
    if let Some(folder) = real.parent() {
        fs::create_dir_all(folder)?;
    }
    match real.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(real)?,
        Ok(_) => fs::remove_file(real)?,
        Err(_) => {}
    }
    entry.unpack(real).map(drop)
}

/// Where an archive may write: the paths that the patterns name, resolved before unpacking. A symlink in the archive
/// must not redirect later entries.
struct AllowedPaths(Vec<AllowedPath>);

struct AllowedPath {
    /// As in the patterns.
    named: PathBuf,
    /// With all symlinks resolved.
    content: PathBuf,
    /// With the symlinks in the parent folder resolved; `None` for `/`.
    entry: Option<PathBuf>,
}

impl AllowedPaths {
    fn new(paths: Vec<PathBuf>) -> Result<Self, CacheArchiveError> {
        let allowed = paths.into_iter().map(|named| {
            let content = resolve_links(&named).map_err(PathError::at(&named))?;
            let entry = match (named.parent(), named.file_name()) {
                (Some(folder), Some(name)) => {
                    let folder = resolve_links(folder).map_err(PathError::at(&named))?;
                    Some(folder.join(name))
                }
                _ => None,
            };
            Ok(AllowedPath {
                named,
                content,
                entry,
            })
        });
        allowed.collect::<Result<_, _>>().map(Self)
    }

    fn contains(&self, path: &Path) -> bool {
        self.0.iter().any(|it| path.starts_with(&it.named))
    }

    /// Resolves the path of a folder that exists or will be created.
    fn resolve_folder(&self, path: &Path) -> Result<PathBuf, CacheArchiveError> {
        let real = resolve_links(path).map_err(PathError::at(path))?;
        let mut inside = self.0.iter().filter(|it| path.starts_with(&it.named));
        if inside.any(|it| real.starts_with(&it.content)) {
            return Ok(real);
        }
        Err(CacheArchiveError::LinkLeadsOut(path.to_owned()))
    }

    /// Resolves the path of a file or symlink that will be created; the last component is not resolved.
    fn resolve_file(&self, path: &Path) -> Result<PathBuf, CacheArchiveError> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(CacheArchiveError::ReplacesRoot(path.to_owned()));
        };
        let real = resolve_links(folder)
            .map_err(PathError::at(path))?
            .join(name);
        let is_inside = |it: &AllowedPath| match path == it.named {
            true => it.entry.as_ref() == Some(&real),
            false => path.starts_with(&it.named) && real.starts_with(&it.content),
        };
        if self.0.iter().any(is_inside) {
            return Ok(real);
        }
        Err(CacheArchiveError::LinkLeadsOut(path.to_owned()))
    }
}

/// Resolves the symlinks in the existing part of a path.
fn resolve_links(path: &Path) -> io::Result<PathBuf> {
    let exists = |path: &&Path| path.symlink_metadata().is_ok();
    let Some(existing) = path.ancestors().find(exists) else {
        return Ok(path.to_owned());
    };
    let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
    let real = existing.canonicalize()?;
    Ok(if rest.as_os_str().is_empty() {
        real
    } else {
        real.join(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(folder: &Path) -> SearchRoots {
        let roots = SearchRoots {
            root: folder.join("w"),
            home: folder.join("h"),
            within: Vec::new(),
        };
        fs::create_dir_all(&roots.root).unwrap();
        fs::create_dir_all(&roots.home).unwrap();
        roots
    }

    #[test]
    fn a_cache_comes_back_in_the_folders_of_another_job() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (roots(one.path()), roots(two.path()));
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir_all(from.root.join("deps/refs/empty")).unwrap();
        fs::write(from.root.join("deps/run"), "run").unwrap();
        fs::set_permissions(
            from.root.join("deps/run"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        fs::write(from.root.join("deps/skip.log"), "no").unwrap();
        std::os::unix::fs::symlink("../deps/run", from.root.join("deps/link")).unwrap();
        fs::create_dir_all(from.home.join(".tool")).unwrap();
        fs::write(from.home.join(".tool/db"), "db").unwrap();
        fs::write(elsewhere.path().join("x"), "x").unwrap();
        let patterns = format!("deps\n~/.tool\n{}/*\n!**/*.log", elsewhere.path().display());
        let archive = one.path().join("cache");
        assert!(pack_cache(&from, &patterns, &archive).unwrap());
        fs::remove_file(elsewhere.path().join("x")).unwrap();
        fs::create_dir_all(to.root.join("deps")).unwrap();
        fs::write(to.root.join("deps/run"), "old").unwrap();
        assert_eq!(unpack_cache(&archive, &to, &patterns).unwrap(), 3);
        assert_eq!(
            fs::read_to_string(to.root.join("deps/link")).unwrap(),
            "run"
        );
        let mode = to
            .root
            .join("deps/run")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(to.root.join("deps/refs/empty").is_dir());
        assert!(!to.root.join("deps/skip.log").exists());
        assert_eq!(fs::read_to_string(to.home.join(".tool/db")).unwrap(), "db");
        assert_eq!(fs::read_to_string(elsewhere.path().join("x")).unwrap(), "x");
        let refused = unpack_cache(&archive, &to, "deps").unwrap_err().to_string();
        assert!(
            refused.contains("outside of the requested paths"),
            "{refused}"
        );
    }

    #[test]
    fn patterns_that_take_nothing_pack_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let to = folder.path().join("cache");
        assert!(!pack_cache(&roots, "nothing\n~/nor/this", &to).unwrap());
        assert!(!to.exists());
        assert_ne!(archive_version("a\nb"), archive_version("a"));
        assert_eq!(archive_version(" a \n\nb"), archive_version("a\nb"));
    }

    #[test]
    fn hostile_archives_are_refused_and_nothing_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let path = folder.path().join("cache");
        let entry = |name: &str, kind: tar::EntryType, link: &str| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            if !link.is_empty() {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            header
        };
        use tar::EntryType::{Char, Link, Regular, Symlink};
        for headers in [
            vec![entry("workspace/../../out", Regular, "")],
            vec![entry("../out", Regular, "")],
            vec![entry("elsewhere/x", Regular, "")],
            vec![entry("machine/etc/out", Regular, "")],
            vec![entry("home/out", Regular, "")],
            vec![
                entry("workspace/d/a", Symlink, "../../.."),
                entry("workspace/d/a/out", Regular, ""),
            ],
            vec![entry("workspace/d/a", Link, "/etc/passwd")],
            vec![entry("workspace/d/a", Char, "")],
        ] {
            let file = File::create(&path).unwrap();
            let mut builder = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
            for header in &headers {
                builder.append(header, io::empty()).unwrap();
            }
            builder.into_inner().unwrap().finish().unwrap();
            assert!(unpack_cache(&path, &roots, "d").is_err(), "{headers:?}");
            for out in ["out", "h/out", "w/out"] {
                assert!(!folder.path().join(out).exists(), "{headers:?}");
            }
        }
        fs::write(&path, "no gzip").unwrap();
        assert!(
            unpack_cache(&path, &roots, "d")
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }

    /// Writes an archive of empty entries, bypassing the builder's checks.
    fn archive_of(path: &Path, entries: &[(&str, tar::EntryType, u32, &str)]) {
        let file = File::create(path).unwrap();
        let mut builder = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        for (name, kind, mode, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mode(*mode);
            if !link.is_empty() {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
    }

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_takes_no_mode_to_what_it_leads_to() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let victims = tempfile::tempdir().unwrap();
        let victim = |name: &str| victims.path().join(name);
        fs::create_dir(victim("folder")).unwrap();
        fs::create_dir(victim("folder/inner")).unwrap();
        fs::write(victim("file"), "").unwrap();
        for (name, mode) in [("folder/inner", 0o700), ("folder", 0o700), ("file", 0o600)] {
            fs::set_permissions(victim(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let text = |path: PathBuf| path.display().to_string();
        let (to_folder, to_file) = (text(victim("folder")), text(victim("file")));
        let path = folder.path().join("cache");
        archive_of(
            &path,
            &[
                ("workspace/d/inner", Directory, 0o777, ""),
                ("workspace/d", Directory, 0o777, ""),
                ("workspace/d", Symlink, 0o777, &to_folder),
                ("workspace/e", Directory, 0o777, ""),
                ("workspace/e", Symlink, 0o777, &to_file),
            ],
        );
        assert_eq!(unpack_cache(&path, &roots, "d\ne").unwrap(), 0);
        assert!(roots.root.join("d").is_symlink() && roots.root.join("e").is_symlink());
        for (name, mode) in [("folder", 0o700), ("folder/inner", 0o700), ("file", 0o600)] {
            assert_eq!(mode_of(&victim(name)), mode, "{name}");
        }
        let _ = fs::remove_file(roots.root.join("d"));
        for entries in [
            // Below a symlink that leads out.
            vec![
                ("workspace/d/l", Symlink, 0o777, to_folder.as_str()),
                ("workspace/d/l/new/deep", Directory, 0o777, ""),
            ],
            vec![
                ("workspace/d/l", Symlink, 0o777, to_folder.as_str()),
                ("workspace/d/l/new", Regular, 0o644, ""),
            ],
            // A requested path becomes a symlink.
            vec![
                ("workspace/d", Symlink, 0o777, to_folder.as_str()),
                ("workspace/d/new", Regular, 0o644, ""),
            ],
            // Inside the workspace, but outside of the requested paths.
            vec![
                ("workspace/d/l", Symlink, 0o777, ".."),
                ("workspace/d/l/new", Regular, 0o644, ""),
            ],
        ] {
            archive_of(&path, &entries);
            let refused = unpack_cache(&path, &roots, "d").unwrap_err().to_string();
            assert!(refused.contains("points outside"), "{refused}: {entries:?}");
            assert!(!victim("folder/new").exists(), "{entries:?}");
            assert!(!roots.root.join("new").exists(), "{entries:?}");
            let _ = fs::remove_file(roots.root.join("d"));
            let _ = fs::remove_dir_all(roots.root.join("d"));
        }
    }

    #[test]
    fn a_path_below_the_root_folder_has_an_elsewhere_too() {
        use tar::EntryType::{Regular, Symlink};
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let elsewhere = tempfile::tempdir().unwrap();
        let real = elsewhere.path().canonicalize().unwrap();
        let tool = real.join("tool").display().to_string();
        let link = format!("machine{tool}/l");
        let file = format!("machine{tool}/l/new");
        let path = folder.path().join("cache");
        archive_of(
            &path,
            &[(&link, Symlink, 0o777, ".."), (&file, Regular, 0o644, "")],
        );
        let refused = unpack_cache(&path, &roots, &tool).unwrap_err().to_string();
        assert!(refused.contains("points outside"), "{refused}");
        assert!(!real.join("new").exists());
    }

    #[test]
    fn no_archive_brings_setuid() {
        use tar::EntryType::{Directory, Regular};
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        let path = folder.path().join("cache");
        archive_of(
            &path,
            &[
                ("workspace/d", Directory, 0o2755, ""),
                ("workspace/d/tool", Regular, 0o6755, ""),
            ],
        );
        assert_eq!(unpack_cache(&path, &roots, "d").unwrap(), 1);
        assert_eq!(mode_of(&roots.root.join("d/tool")), 0o755);
        assert_eq!(mode_of(&roots.root.join("d")), 0o755);
    }
}
