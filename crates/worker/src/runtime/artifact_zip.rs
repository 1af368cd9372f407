//! Converts between the zip files of GitHub's toolkit and tars of artifacts.
//!
//! A zip is untrusted: paths and links that lead out, and zip bombs, are rejected.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    artifact_tar::{self, ArtifactError, TarWriter, WrittenTar},
    path_error::PathError,
    path_patterns::{self, HiddenFiles},
    untrusted_archive::{UntrustedZip, ZipContent},
};

/// Files of this size need Zip64.
const LARGE_BYTES: u64 = u32::MAX as u64;

/// Converts a zip to a tar.
pub(super) fn zip_to_tar(from: &Path, to: &Path) -> Result<WrittenTar, ArtifactError> {
    let zip = UntrustedZip::open(from)?;
    let mut builder = TarWriter::create(to)?;
    zip.read_entries(|path, content| match content {
        ZipContent::Symlink(target) => builder.add_link(path, &target),
        ZipContent::File { mode, size, reader } => builder.add_file(path, mode, size, reader),
    })?;
    builder.finish()
}

/// Converts the tar at `from` to a zip, after verifying its digest. `scratch` is a temporary folder.
///
/// Symlinks are replaced by their targets: GitHub's artifacts contain none, and not every unzip tool supports them.
pub(super) fn tar_to_zip(
    from: &Path,
    digest: &str,
    scratch: &Path,
    to: &Path,
) -> Result<(), ArtifactError> {
    let made =
        artifact_tar::unpack_tar(from, digest, scratch).and_then(|_| zip_folder(scratch, to));
    // Best effort: otherwise it is removed with the job's folder.
    let _ = fs::remove_dir_all(scratch);
    made
}

fn zip_folder(folder: &Path, to: &Path) -> Result<(), ArtifactError> {
    let file = File::create(to).map_err(PathError::at(to))?;
    let mut writer = ZipWriter::new(BufWriter::with_capacity(256 * 1024, file));
    for path in path_patterns::find_files(folder, &["**".to_owned()], HiddenFiles::Include)?.files {
        let Ok(found) = path.metadata() else {
            // A dangling symlink.
            continue;
        };
        if !found.is_file() {
            continue;
        }
        let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
        let name = name.ok_or_else(|| ArtifactError::InvalidName(path.clone()))?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(1))
            .unix_permissions(found.permissions().mode() & 0o777)
            .large_file(found.len() >= LARGE_BYTES);
        let started = writer.start_file(name, options);
        started.map_err(|error| PathError::at(&path)(error.into()))?;
        let mut file = File::open(&path).map_err(PathError::at(&path))?;
        io::copy(&mut file, &mut writer).map_err(PathError::at(&path))?;
    }
    let writer = writer.finish();
    let writer = writer.map_err(|error| PathError::at(to)(error.into()))?;
    let done = writer.into_inner().map(drop);
    done.map_err(|error| PathError::at(to)(error.into_error()).into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use zip::ZipArchive;

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
        const LEAVES: &str = "points outside the artifact";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let refused = |entries: &[(&str, &[u8], u32)], why: &str| {
            zip(&path, entries);
            let refused = zip_to_tar(&path, &folder.path().join("a.tar"))
                .unwrap_err()
                .to_string();
            assert!(refused.contains(why), "{refused}");
        };
        refused(&[("../out", b"x", 0o644)], "is outside its folder");
        refused(&[("a/../../out", b"x", 0o644)], "is outside its folder");
        refused(&[("/tmp/out", b"x", 0o644)], "is outside its folder");
        refused(&[("..\\out", b"x", 0o644)], "is outside its folder");
        refused(&[("a", b"/etc/passwd", 0o120_777)], LEAVES);
        refused(&[("a", b"../../x", 0o120_777)], LEAVES);
        fs::write(&path, "no zip").unwrap();
        let refused = zip_to_tar(&path, &folder.path().join("a.tar"))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("not a zip file"), "{refused}");
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
        let refused = zip_to_tar(&path, Path::new("/nowhere/a.tar"))
            .unwrap_err()
            .to_string();
        assert!(refused.contains("like a zip bomb"), "{refused}");
    }
}
