//! Converts between the zip files of GitHub's toolkit and tars of artifacts.
//!
//! A zip is untrusted: paths and links that lead out, and zip bombs, are rejected.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipArchive, ZipWriter, read::ZipFile, write::SimpleFileOptions};

use crate::{
    actions::artifact_tar::{self, ENTRIES_MAX},
    artifact_links,
    path_patterns::{self, HiddenFiles},
};

/// Unpacked size that is always accepted.
const UNPACKED_BYTES_FREE: u64 = 1 << 30;
/// Beyond that, the largest compression ratio. Logs shrink to a hundredth; more suggests a zip bomb.
const RATIO_MAX: u64 = 200;
/// Limit for the target of a symlink.
const LINK_BYTES_MAX: u64 = 4096;
/// Files of this size need Zip64.
const LARGE_BYTES: u64 = u32::MAX as u64;

/// Converts a zip to a tar.
pub(super) fn zip_to_tar(from: &Path, to: &Path) -> Result<artifact_tar::WrittenTar, String> {
    let file = File::open(from).map_err(|error| error.to_string())?;
    let packed = file.metadata().map_err(|error| error.to_string())?.len();
    let unpacked_max = UNPACKED_BYTES_FREE.max(packed.saturating_mul(RATIO_MAX));
    let reader = BufReader::with_capacity(256 * 1024, file);
    let mut archive =
        ZipArchive::new(reader).map_err(|error| format!("it is no zip file: {error}"))?;
    if archive.len() > ENTRIES_MAX {
        return Err(format!("it has more than {ENTRIES_MAX} entries"));
    }
    let (mut names, mut unpacked) = (Vec::with_capacity(archive.len()), 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index);
        let entry = entry.map_err(|error| format!("it is damaged: {error}"))?;
        if !entry.is_dir() {
            names.push((checked_entry_path(&entry)?, index));
            unpacked = unpacked.saturating_add(entry.size());
        }
    }
    if unpacked > unpacked_max {
        return Err(format!(
            "its {packed} bytes unpack to {unpacked}, as those of archives do that are made to fill disks; at most {unpacked_max} are taken"
        ));
    }
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("it has {} twice", twice[0].0.display()));
    }
    let mut builder = artifact_tar::TarWriter::create(to)?;
    for (name, index) in names {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", name.display());
        let mut entry = archive.by_index(index).map_err(|error| failed(&error))?;
        if entry.is_symlink() {
            let mut target = String::new();
            let read = entry.take(LINK_BYTES_MAX).read_to_string(&mut target);
            read.map_err(|error| failed(&error))?;
            builder.add_link(&name, Path::new(&target))?;
            continue;
        }
        // The declared size was checked against the limit: read no more than that.
        let size = entry.size();
        let mode = entry.unix_mode().unwrap_or(0o644);
        let mut counted = CountingReader {
            inner: (&mut entry).take(size),
            count: 0,
        };
        builder.add_file(&name, mode, size, &mut counted)?;
        if counted.count != size || entry.read(&mut [0]).map_err(|error| failed(&error))? > 0 {
            return Err(failed(&"its length is not the one it says"));
        }
    }
    builder.finish()
}

fn checked_entry_path<R: Read>(entry: &ZipFile<'_, R>) -> Result<PathBuf, String> {
    let name = entry.name();
    let name = name.map_err(|error| format!("a name in it is no text: {error}"))?;
    let path = Path::new(name.as_ref());
    let leaves = name.contains(['\\', '\0'])
        || artifact_links::path_depth(path).is_none()
        || entry.enclosed_name().is_none();
    if leaves {
        return Err(format!("the entry {name:?} leaves its folder"));
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

/// Converts the tar at `from` to a zip, after verifying its digest. `scratch` is a temporary folder.
///
/// Symlinks are replaced by their targets: GitHub's artifacts contain none, and not every unzip tool supports them.
pub(super) fn tar_to_zip(
    from: &Path,
    digest: &str,
    scratch: &Path,
    to: &Path,
) -> Result<(), String> {
    let made =
        artifact_tar::unpack_tar(from, digest, scratch).and_then(|_| zip_folder(scratch, to));
    // Best effort: otherwise it is removed with the job's folder.
    let _ = fs::remove_dir_all(scratch);
    made
}

fn zip_folder(folder: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", to.display());
    let file = File::create(to).map_err(|error| failed(&error))?;
    let mut writer = ZipWriter::new(BufWriter::with_capacity(256 * 1024, file));
    for path in path_patterns::find_files(folder, &["**".to_owned()], HiddenFiles::Include)?.files {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let Ok(found) = path.metadata() else {
            // A dangling symlink.
            continue;
        };
        if !found.is_file() {
            continue;
        }
        let name = path.strip_prefix(folder).map_err(|error| failed(&error))?;
        let name = name
            .to_str()
            .ok_or_else(|| failed(&"its name is no text"))?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(1))
            .unix_permissions(found.permissions().mode() & 0o777)
            .large_file(found.len() >= LARGE_BYTES);
        let started = writer.start_file(name, options);
        started.map_err(|error| failed(&error))?;
        let mut file = File::open(&path).map_err(|error| failed(&error))?;
        io::copy(&mut file, &mut writer).map_err(|error| failed(&error))?;
    }
    let writer = writer.finish().map_err(|error| failed(&error))?;
    let done = writer.into_inner().map(drop);
    done.map_err(|error| failed(error.error()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn zip(path: &Path, entries: &[(&str, &[u8], u32)]) {
        let mut writer = ZipWriter::new(File::create(path).unwrap());
        for (name, content, mode) in entries {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            if mode & 0o170_000 == 0o120_000 {
                let target = std::str::from_utf8(content).unwrap();
                writer.add_symlink(*name, target, options).unwrap();
            } else {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content).unwrap();
            }
        }
        writer.finish().unwrap();
    }

    #[test]
    fn a_zip_becomes_a_tar_and_a_zip_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let entries: [(&str, &[u8], u32); 4] = [
            ("start", b"bin/run", 0o120_777),
            ("bin/run", b"#!/bin/sh\n", 0o755),
            (".hidden", b"h", 0o600),
            ("empty", b"", 0o644),
        ];
        zip(&at("a.zip"), &entries);
        let tar = zip_to_tar(&at("a.zip"), &at("a.tar")).unwrap();
        zip(
            &at("b.zip"),
            &[entries[1], entries[2], entries[0], entries[3]],
        );
        assert_eq!(zip_to_tar(&at("b.zip"), &at("b.tar")).unwrap(), tar);
        tar_to_zip(&at("a.tar"), &tar.digest, &at("scratch"), &at("c.zip")).unwrap();
        assert!(!at("scratch").exists());
        let mut archive = ZipArchive::new(File::open(at("c.zip")).unwrap()).unwrap();
        let mut names: Vec<String> = archive
            .file_names()
            .map(|name| name.unwrap().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, [".hidden", "bin/run", "empty", "start"]);
        let mut text = String::new();
        let mut start = archive.by_name("start").unwrap();
        start.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), start.is_symlink()), ("#!/bin/sh\n", false));
        assert_eq!(start.unix_mode().unwrap() & 0o777, 0o755);
    }

    #[test]
    fn hostile_zips_are_refused() {
        const LEAVES: &str = "leaves the artifact's folder";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let refused = |entries: &[(&str, &[u8], u32)], why: &str| {
            zip(&path, entries);
            let refused = zip_to_tar(&path, &folder.path().join("a.tar")).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        };
        refused(&[("../out", b"x", 0o644)], "leaves its folder");
        refused(&[("a/../../out", b"x", 0o644)], "leaves its folder");
        refused(&[("/tmp/out", b"x", 0o644)], "leaves its folder");
        refused(&[("..\\out", b"x", 0o644)], "leaves its folder");
        refused(&[("a", b"/etc/passwd", 0o120_777)], LEAVES);
        refused(&[("a", b"../../x", 0o120_777)], LEAVES);
        fs::write(&path, "no zip").unwrap();
        let refused = zip_to_tar(&path, &folder.path().join("a.tar")).unwrap_err();
        assert!(refused.contains("no zip file"), "{refused}");
    }

    #[test]
    fn an_archive_made_to_fill_disks_is_refused_before_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        // Each claims to be 256 MiB of zeros, and is: five exceed the limit for this size.
        writer.start_file("0", options).unwrap();
        io::copy(&mut io::repeat(0).take(256 << 20), &mut writer).unwrap();
        for copy in 1..5 {
            writer.shallow_copy_file("0", &copy.to_string()).unwrap();
        }
        writer.finish().unwrap();
        assert!(path.metadata().unwrap().len() < 1 << 20);
        let refused = zip_to_tar(&path, Path::new("/nowhere/a.tar")).unwrap_err();
        assert!(refused.contains("made to fill disks"), "{refused}");
    }
}
