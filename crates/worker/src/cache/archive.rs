//! Files packed for the built-in cache action, and unpacked in another job, whose folders are elsewhere.
//!
//! What is in the workspace or in the home folder goes back to those of the job that takes it up; anything else to the place it
//! came from. What was packed by a job of another branch is not trusted with more than the paths that both jobs name.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use crate::{
    glob::{self, Found, Ground, Hidden},
    hash,
};

/// What a cache may unpack to: ten times what all of them may take up packed.
const UNPACKED_BYTES_MAX: u64 = 100 << 30;
const CHUNK_BYTES: usize = 256 * 1024;

/// What a path is relative to, and what stands for that in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Workspace,
    Home,
    /// `/`
    Machine,
}

impl Root {
    const ALL: [(Self, &str); 3] = [
        (Self::Workspace, "workspace"),
        (Self::Home, "home"),
        (Self::Machine, "machine"),
    ];

    fn folder(self, ground: &Ground) -> &Path {
        match self {
            Self::Workspace => &ground.root,
            Self::Home => &ground.home,
            Self::Machine => Path::new("/"),
        }
    }

    /// The name of a path in an archive.
    fn name(path: &Path, ground: &Ground) -> Option<PathBuf> {
        Self::ALL.into_iter().find_map(|(root, word)| {
            let inner = path.strip_prefix(root.folder(ground)).ok()?;
            Some(Path::new(word).join(inner))
        })
    }

    /// What a name in an archive means: its root and the path from there.
    fn of(name: &Path) -> Option<(Self, PathBuf)> {
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

/// Names what these patterns make: caches of others are not taken up.
pub(crate) fn version(patterns: &str) -> String {
    let lines = patterns
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    hash::hex(&Sha256::digest(format!(
        "shipway tar gzip 1\n{}",
        lines.join("\n")
    )))
}

/// Packs what the patterns take into `to`; false when they take nothing.
pub(crate) fn pack(ground: &Ground, patterns: &str, to: &Path) -> Result<bool, String> {
    let found = glob::find_on(ground, &[patterns.to_owned()], Hidden::Taken)?;
    if found.files.is_empty() && found.folders.is_empty() {
        return Ok(false);
    }
    let failed = |error: io::Error| format!("{}: {error}", to.display());
    let file = File::create(to).map_err(failed)?;
    // The fastest: a disk of today is faster than the better ones.
    let gzip = GzEncoder::new(
        BufWriter::with_capacity(CHUNK_BYTES, file),
        Compression::fast(),
    );
    let mut builder = tar::Builder::new(gzip);
    builder.follow_symlinks(false);
    // Folders before what is in them.
    let Found { files, folders, .. } = found;
    for path in folders.iter().chain(&files) {
        append(&mut builder, ground, path)?;
    }
    let gzip = builder.into_inner().map_err(failed)?;
    let buffer = gzip.finish().map_err(failed)?;
    buffer
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    Ok(true)
}

fn append<W: io::Write>(
    builder: &mut tar::Builder<W>,
    ground: &Ground,
    path: &Path,
) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let name = Root::name(path, ground);
    let name = name.ok_or_else(|| format!("{} is no absolute path", path.display()))?;
    let found = path.symlink_metadata().map_err(failed)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&found);
    header.set_uid(0);
    header.set_gid(0);
    if found.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        header.set_size(0);
        builder
            .append_link(&mut header, name, target)
            .map_err(failed)
    } else if found.is_dir() {
        header.set_size(0);
        builder
            .append_data(&mut header, name, io::empty())
            .map_err(failed)
    } else if found.is_file() {
        let file = File::open(path).map_err(failed)?;
        let size = found.len();
        // One that grows meanwhile is taken as long as it was, one that shrinks is filled up: what follows stays readable.
        let content = file.take(size).chain(io::repeat(0)).take(size);
        builder
            .append_data(&mut header, name, content)
            .map_err(failed)
    } else {
        // Sockets and the like are nothing to keep.
        Ok(())
    }
}

/// Unpacks an archive where the patterns say; gives the number of files.
pub(crate) fn unpack(from: &Path, ground: &Ground, patterns: &str) -> Result<usize, String> {
    // What they look for decides where things may go, though nothing is there yet.
    let allowed = glob::search_paths(ground, &[patterns.to_owned()])?;
    let damaged = |error: io::Error| format!("the cache is damaged: {error}");
    let file = File::open(from).map_err(damaged)?;
    let gzip = GzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, file));
    let mut archive = tar::Archive::new(gzip.take(UNPACKED_BYTES_MAX));
    archive.set_preserve_permissions(true);
    archive.set_unpack_xattrs(false);
    let (mut count, mut modes) = (0, Vec::new());
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.into_owned();
        let place = Root::of(&name).map(|(root, inner)| {
            let base = root.folder(ground);
            (base.to_owned(), base.join(inner))
        });
        let place = place.filter(|(_, path)| allowed.iter().any(|it| path.starts_with(it)));
        let Some((base, path)) = place else {
            return Err(format!(
                "the cache holds {}, which is none of the paths that are asked for",
                name.display()
            ));
        };
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            // Its mode comes last: it may forbid what is still to be put there.
            modes.push((path.clone(), entry.header().mode().unwrap_or(0o755)));
        } else if kind.is_file() {
            count += 1;
        } else if !kind.is_symlink() {
            return Err(format!(
                "the cache holds {}, which is no file",
                name.display()
            ));
        }
        put(&mut entry, &base, &path).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    for (path, mode) in modes.into_iter().rev() {
        let permissions = fs::Permissions::from_mode(mode & 0o777 | 0o700);
        fs::set_permissions(&path, permissions).map_err(damaged)?;
    }
    Ok(count)
}

/// Puts an entry at `path`, below `base`; what is there makes room for it.
fn put<R: Read>(entry: &mut tar::Entry<'_, R>, base: &Path, path: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let parent = path.parent().unwrap_or(base);
    let folder = if entry.header().entry_type().is_dir() {
        path
    } else {
        parent
    };
    fs::create_dir_all(folder).map_err(text)?;
    // A link that came before must not lead what comes after it elsewhere. Below `/` there is no elsewhere.
    let real = folder.canonicalize().map_err(text)?;
    if !real.starts_with(base.canonicalize().map_err(text)?) {
        return Err("a link in the way leads out".to_owned());
    }
    if folder == path {
        return Ok(());
    }
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).map_err(text)?,
        Ok(_) => fs::remove_file(path).map_err(text)?,
        Err(_) => {}
    }
    entry.unpack(path).map(drop).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(folder: &Path) -> Ground {
        let ground = Ground {
            root: folder.join("w"),
            home: folder.join("h"),
            within: Vec::new(),
        };
        fs::create_dir_all(&ground.root).unwrap();
        fs::create_dir_all(&ground.home).unwrap();
        ground
    }

    #[test]
    fn a_cache_comes_back_in_the_folders_of_another_job() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (ground(one.path()), ground(two.path()));
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
        assert_eq!(pack(&from, &patterns, &archive), Ok(true));
        fs::remove_file(elsewhere.path().join("x")).unwrap();
        fs::create_dir_all(to.root.join("deps")).unwrap();
        fs::write(to.root.join("deps/run"), "old").unwrap();
        assert_eq!(unpack(&archive, &to, &patterns), Ok(3));
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
        let refused = unpack(&archive, &to, "deps").unwrap_err();
        assert!(refused.contains("none of the paths"), "{refused}");
    }

    #[test]
    fn patterns_that_take_nothing_pack_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ground = ground(folder.path());
        let to = folder.path().join("cache");
        assert_eq!(pack(&ground, "nothing\n~/nor/this", &to), Ok(false));
        assert!(!to.exists());
        assert_ne!(version("a\nb"), version("a"));
        assert_eq!(version(" a \n\nb"), version("a\nb"));
    }

    #[test]
    fn hostile_archives_are_refused_and_nothing_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let ground = ground(folder.path());
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
            assert!(unpack(&path, &ground, "d").is_err(), "{headers:?}");
            for out in ["out", "h/out", "w/out"] {
                assert!(!folder.path().join(out).exists(), "{headers:?}");
            }
        }
        fs::write(&path, "no gzip").unwrap();
        assert!(unpack(&path, &ground, "d").unwrap_err().contains("damaged"));
    }
}
