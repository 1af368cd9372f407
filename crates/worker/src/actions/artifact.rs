//! `actions/upload-artifact` and `actions/download-artifact`: files as one tar, equal for equal files, named by its digest.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use shipway_workflow::job::{JournalBody, StoredArtifact};

use super::{Call, Left, checkout::inside};
use crate::hash::matching;

/// Where time begins in artifacts: the same files make the same bytes. Not zero, for zip files within can't hold that.
const MODIFIED: u64 = 946_684_800;

/// Stores files under a name.
pub(super) fn upload(call: &mut Call<'_>) -> Result<Left, String> {
    let name = call.get("name").unwrap_or("artifact").to_owned();
    if name.is_empty()
        || name.len() > 200
        || name.contains(['/', '\\', '"', ':', '<', '>', '|', '*', '?', '\r', '\n'])
        || name.starts_with('.')
    {
        return Err(format!("{name:?} can't be the name of an artifact"));
    }
    let patterns: Vec<String> = call
        .get("path")
        .ok_or("upload-artifact needs `path`")?
        .lines()
        .map(str::to_owned)
        .collect();
    let root = call.folders.workspace.clone();
    let files = matching(&root, &patterns)?;
    let hidden = call.get("include-hidden-files") == Some("true");
    let is_hidden = |path: &Path| {
        path.strip_prefix(&root)
            .unwrap_or(path)
            .components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
    };
    let files: Vec<PathBuf> = files
        .into_iter()
        .filter(|path| hidden || !is_hidden(path))
        .collect();
    if files.is_empty() {
        let what = format!("no files were found for {:?}", patterns.join(", "));
        return match call.get("if-no-files-found").unwrap_or("warn") {
            "error" => Err(what),
            "ignore" => Ok(Left::default()),
            _ => {
                call.say(format!("::warning::{what}; no artifact is uploaded"));
                Ok(Left::default())
            }
        };
    }
    let base = common_base(&root, &patterns, &files);
    let path = call.folders.artifacts.join(format!("{name}.tar"));
    let (digest, size) = write_tar(&path, &base, &files)?;
    call.say(format!(
        "Artifact {name}: {} files, {size} bytes, {digest}",
        files.len()
    ));
    let outputs = vec![
        ("artifact-digest".to_owned(), digest.clone()),
        ("artifact-id".to_owned(), name.clone()),
    ];
    Ok(Left {
        outputs,
        entries: vec![JournalBody::ArtifactSaved {
            name,
            path,
            digest,
            size,
        }],
    })
}

/// The folder that paths in the artifact are relative to: of one pattern that names a folder, that folder; else what all files
/// have in common.
fn common_base(root: &Path, patterns: &[String], files: &[PathBuf]) -> PathBuf {
    let taking: Vec<&str> = patterns
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !line.starts_with('!'))
        .collect();
    if let [one] = taking.as_slice()
        && !one.contains(['*', '?', '['])
    {
        let named = root.join(one.trim_start_matches("./"));
        if named.is_dir() {
            return named;
        }
    }
    let mut base = files
        .first()
        .and_then(|first| first.parent())
        .unwrap_or(root)
        .to_owned();
    for file in files {
        while !file.starts_with(&base) && base.pop() {}
    }
    if base.starts_with(root) {
        base
    } else {
        root.to_owned()
    }
}

fn write_tar(path: &Path, base: &Path, files: &[PathBuf]) -> Result<(String, u64), String> {
    let failed = |what: &Path, error: io::Error| format!("{}: {error}", what.display());
    let file = File::create(path).map_err(|error| failed(path, error))?;
    let mut builder = tar::Builder::new(Hashing {
        inner: io::BufWriter::new(file),
        hash: Sha256::new(),
        size: 0,
    });
    builder.follow_symlinks(false);
    for file in files {
        let name = file
            .strip_prefix(base)
            .map_err(|_| format!("{} is outside of {}", file.display(), base.display()))?;
        let found = file
            .symlink_metadata()
            .map_err(|error| failed(file, error))?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(MODIFIED);
        if found.is_symlink() {
            let link = fs::read_link(file).map_err(|error| failed(file, error))?;
            let leaves = link.is_absolute()
                || link
                    .components()
                    .any(|part| matches!(part, Component::ParentDir));
            if leaves {
                return Err(format!(
                    "the link {} → {} leaves its folder; artifacts can't hold it",
                    name.display(),
                    link.display()
                ));
            }
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder
                .append_link(&mut header, name, link)
                .map_err(|error| failed(file, error))?;
        } else if found.is_file() {
            header.set_mode(if found.permissions().mode() & 0o111 == 0 {
                0o644
            } else {
                0o755
            });
            header.set_size(found.len());
            let open = File::open(file).map_err(|error| failed(file, error))?;
            builder
                .append_data(&mut header, name, open.take(found.len()))
                .map_err(|error| failed(file, error))?;
        } else {
            return Err(format!("{} is neither a file nor a link", name.display()));
        }
    }
    let mut hashing = builder.into_inner().map_err(|error| failed(path, error))?;
    hashing.flush().map_err(|error| failed(path, error))?;
    let file = hashing
        .inner
        .into_inner()
        .map_err(|error| failed(path, error.into_error()))?;
    file.sync_all().map_err(|error| failed(path, error))?;
    Ok((hex(hashing.hash), hashing.size))
}

struct Hashing {
    inner: io::BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
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

fn hex(hash: Sha256) -> String {
    let digits: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{digits}")
}

/// Fetches one artifact, or all of the run, each into a folder of its name.
pub(super) fn download(call: &mut Call<'_>) -> Result<Left, String> {
    let to = inside(&call.folders.workspace, call.get("path").unwrap_or("."))?;
    let stored = call.spec.artifacts.clone();
    match call.get("name").map(str::to_owned) {
        Some(name) => {
            let known = || {
                stored
                    .iter()
                    .map(|artifact| artifact.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let artifact = stored
                .iter()
                .find(|artifact| artifact.name == name)
                .ok_or_else(|| {
                    format!(
                        "there is no artifact {name:?} in this run; there are: {}",
                        known()
                    )
                })?;
            unpack(artifact, &to)?;
            call.say(format!("Downloaded {name} to {}", to.display()));
        }
        None => {
            let merge = call.get("merge-multiple") == Some("true");
            for artifact in &stored {
                unpack(
                    artifact,
                    &if merge {
                        to.clone()
                    } else {
                        to.join(&artifact.name)
                    },
                )?;
                call.say(format!("Downloaded {}", artifact.name));
            }
        }
    }
    Ok(Left {
        outputs: vec![("download-path".to_owned(), to.display().to_string())],
        ..Left::default()
    })
}

fn unpack(artifact: &StoredArtifact, to: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("the artifact {} can't be unpacked: {error}", artifact.name)
    };
    let mut hash = Sha256::new();
    let mut file = File::open(&artifact.path).map_err(|error| failed(&error))?;
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut chunk).map_err(|error| failed(&error))?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
    }
    let found = hex(hash);
    if found != artifact.digest {
        return Err(failed(&format!(
            "its bytes are {found}, not {}",
            artifact.digest
        )));
    }
    fs::create_dir_all(to).map_err(|error| failed(&error))?;
    let mut archive =
        tar::Archive::new(File::open(&artifact.path).map_err(|error| failed(&error))?);
    archive.set_preserve_permissions(true);
    for entry in archive.entries().map_err(|error| failed(&error))? {
        let mut entry = entry.map_err(|error| failed(&error))?;
        if !entry.unpack_in(to).map_err(|error| failed(&error))? {
            return Err(failed(&"an entry leaves its folder"));
        }
    }
    Ok(())
}
