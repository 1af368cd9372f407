//! Artifacts as tar files: deterministic (equal files give equal bytes), and unpacked without trusting their
//! contents.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    artifact_files::{ArtifactFile, ArtifactLinkError, resolve_links},
    artifact_links::is_contained_link,
    file_hash,
    path_error::PathError,
    path_patterns::PatternError,
    untrusted_archive::{ArchiveError, unpack_untrusted_tar},
};

/// Modification time of all entries, for deterministic archives: 2000-01-01. Not 0, which zip files can't represent.
const MODIFIED: u64 = 946_684_800;
/// Why an artifact can't be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    #[error(transparent)]
    File(#[from] PathError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Patterns(#[from] PatternError),
    #[error(transparent)]
    Link(#[from] ArtifactLinkError),
    #[error("{} is neither a file nor a link", .0.display())]
    UnsupportedFile(PathBuf),
    #[error("its bytes are {found}, not {expected}")]
    WrongDigest { found: String, expected: String },
    #[error("{}: its name is not valid UTF-8", .0.display())]
    InvalidName(PathBuf),
}

/// A finished tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenTar {
    /// `sha256:…`
    pub(crate) digest: String,
    /// In bytes.
    pub(crate) size: u64,
}

/// Writes the files and links below `base` to a tar file; see [`resolve_links`] for `within`.
pub(crate) fn write_tar(
    path: &Path,
    base: &Path,
    within: &[PathBuf],
    files: &[PathBuf],
) -> Result<WrittenTar, ArtifactError> {
    let mut builder = TarWriter::create(path)?;
    for file in resolve_links(base, within, files)? {
        append_file(&mut builder, &file)?;
    }
    builder.finish()
}

fn append_file(builder: &mut TarWriter, file: &ArtifactFile) -> Result<(), ArtifactError> {
    if let Some(target) = &file.link {
        return builder.add_link(&file.name, target);
    }
    let failed = PathError::at(&file.name);
    let found = file.source.symlink_metadata().map_err(&failed)?;
    if !found.is_file() {
        return Err(ArtifactError::UnsupportedFile(file.name.clone()));
    }
    let content = File::open(&file.source).map_err(&failed)?;
    // `take`: the file may be growing.
    let content = content.take(found.len());
    builder.add_file(&file.name, found.permissions().mode(), found.len(), content)
}

/// Writes a deterministic tar file.
pub(crate) struct TarWriter {
    path: PathBuf,
    inner: tar::Builder<HashingWriter>,
}

impl TarWriter {
    pub(crate) fn create(path: &Path) -> Result<Self, ArtifactError> {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let file = made
            .and_then(|()| File::create(path))
            .map_err(PathError::at(path))?;
        let inner = tar::Builder::new(HashingWriter {
            inner: io::BufWriter::with_capacity(256 * 1024, file),
            hash: Sha256::new(),
            size: 0,
        });
        Ok(Self {
            path: path.to_owned(),
            inner,
        })
    }

    /// Adds a file of `size` bytes.
    pub(crate) fn add_file(
        &mut self,
        name: &Path,
        mode: u32,
        size: u64,
        content: impl Read,
    ) -> Result<(), ArtifactError> {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(MODIFIED);
        header.set_mode(mode & 0o755 | 0o644);
        header.set_size(size);
        let added = self.inner.append_data(&mut header, name, content);
        Ok(added.map_err(PathError::at(name))?)
    }

    /// Adds a symlink, whose target must stay inside the artifact.
    pub(crate) fn add_link(&mut self, name: &Path, target: &Path) -> Result<(), ArtifactError> {
        if !is_contained_link(name, target) {
            return Err(ArtifactError::Link(ArtifactLinkError::LinkLeaves {
                link: name.to_owned(),
                target: target.to_owned(),
            }));
        }
        let mut header = tar::Header::new_gnu();
        header.set_mtime(MODIFIED);
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        let added = self.inner.append_link(&mut header, name, target);
        Ok(added.map_err(PathError::at(name))?)
    }

    /// Finishes the file and fsyncs it.
    pub(crate) fn finish(self) -> Result<WrittenTar, ArtifactError> {
        let failed = PathError::at(&self.path);
        let hashing = self.inner.into_inner().map_err(&failed)?;
        let file = hashing
            .inner
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(&failed)?;
        Ok(WrittenTar {
            digest: format!("sha256:{}", file_hash::to_hex(&hashing.hash.finalize())),
            size: hashing.size,
        })
    }
}

/// Unpacks a tar file after verifying its digest. Returns the number of files.
pub(crate) fn unpack_tar(path: &Path, digest: &str, to: &Path) -> Result<usize, ArtifactError> {
    let found = file_hash::hash_file(path).map_err(PathError::at(path))?;
    let found = format!("sha256:{}", file_hash::to_hex(&found));
    if found != digest {
        let expected = digest.to_owned();
        return Err(ArtifactError::WrongDigest { found, expected });
    }
    fs::create_dir_all(to).map_err(PathError::at(to))?;
    let file = File::open(path).map_err(PathError::at(path))?;
    let file = io::BufReader::with_capacity(256 * 1024, file);
    Ok(unpack_untrusted_tar(file, to)?)
}

/// Hashes and counts the written bytes.
struct HashingWriter {
    inner: io::BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folder: &Path) -> Vec<PathBuf> {
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::write(folder.join("bin/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(folder.join("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(folder.join("data"), "x").unwrap();
        std::os::unix::fs::symlink("bin/run", folder.join("start")).unwrap();
        ["bin/run", "data", "start"]
            .map(|name| folder.join(name))
            .to_vec()
    }

    #[test]
    fn equal_files_make_equal_bytes_and_come_out_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let base = folder.path().join(name);
            let files = tree(&base);
            write_tar(
                &folder.path().join(format!("{name}.tar")),
                &base,
                &[],
                &files,
            )
            .unwrap()
        };
        let (one, two) = (of("one"), of("two"));
        assert_eq!(one, two);
        let to = folder.path().join("out");
        assert_eq!(
            unpack_tar(&folder.path().join("one.tar"), &one.digest, &to).unwrap(),
            2
        );
        let mode = to.join("bin/run").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o744);
        assert_eq!(fs::read_to_string(to.join("start")).unwrap(), "#!/bin/sh\n");
    }

    #[test]
    fn links_that_leave_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for target in ["/etc/passwd", "../x"] {
            let link = folder.path().join("link");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            let refused = write_tar(&folder.path().join("a.tar"), folder.path(), &[], &[link]);
            assert!(
                refused.unwrap_err().to_string().contains("points outside"),
                "{target}"
            );
        }
    }

    #[test]
    fn a_folder_in_the_place_of_a_link_takes_no_mode_to_what_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (victim, to) = (folder.path().join("victim"), folder.path().join("to"));
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink(&victim, to.join("d")).unwrap();
        let path = folder.path().join("a.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o777);
        header.set_size(0);
        builder.append_data(&mut header, "d", io::empty()).unwrap();
        builder.into_inner().unwrap().sync_all().unwrap();
        let digest = format!(
            "sha256:{}",
            file_hash::to_hex(&file_hash::hash_file(&path).unwrap())
        );
        let refused = unpack_tar(&path, &digest, &to).unwrap_err().to_string();
        assert!(refused.contains("a link is where the folder"), "{refused}");
        let mode = victim.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn links_that_go_up_and_stay_inside_come_out_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        fs::create_dir_all(base.join("packages/pkg")).unwrap();
        fs::create_dir_all(base.join("node_modules")).unwrap();
        fs::write(base.join("packages/pkg/index.js"), "1").unwrap();
        let link = base.join("node_modules/pkg");
        std::os::unix::fs::symlink("../packages/pkg", &link).unwrap();
        let files = [link, base.join("packages/pkg/index.js")];
        let tar = folder.path().join("a.tar");
        let written = write_tar(&tar, &base, &[], &files).unwrap();
        let to = folder.path().join("out");
        unpack_tar(&tar, &written.digest, &to).unwrap();
        let text = fs::read_to_string(to.join("node_modules/pkg/index.js"));
        assert_eq!(text.unwrap(), "1");
        // Unpacking over an existing copy works, too.
        unpack_tar(&tar, &written.digest, &to).unwrap();
    }

    #[test]
    fn hostile_tars_are_refused_and_nothing_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let entry = |name: &str, kind: tar::EntryType, link: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            if let Some(link) = link {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            header
        };
        for headers in [
            vec![entry("../out", tar::EntryType::Regular, None)],
            vec![entry("/tmp/out", tar::EntryType::Regular, None)],
            vec![entry("a", tar::EntryType::Symlink, Some("/tmp"))],
            vec![
                entry("a", tar::EntryType::Symlink, Some("../..")),
                entry("a/out", tar::EntryType::Regular, None),
            ],
            vec![entry("a", tar::EntryType::Link, Some("../../etc/passwd"))],
            vec![entry("a", tar::EntryType::Char, None)],
        ] {
            let mut builder = tar::Builder::new(File::create(&path).unwrap());
            for header in &headers {
                builder.append(header, io::empty()).unwrap();
            }
            builder.into_inner().unwrap().sync_all().unwrap();
            let digest = format!(
                "sha256:{}",
                file_hash::to_hex(&file_hash::hash_file(&path).unwrap())
            );
            let to = folder.path().join("deep/to");
            assert!(unpack_tar(&path, &digest, &to).is_err(), "{headers:?}");
            assert!(
                !folder.path().join("out").exists() && !folder.path().join("deep/out").exists()
            );
        }
        let other = format!("sha256:{}", "0".repeat(64));
        let refused = unpack_tar(&path, &other, &folder.path().join("to"));
        assert!(refused.unwrap_err().to_string().contains("not sha256:000"));
    }
}
