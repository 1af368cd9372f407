//! Exports a commit's files as a tar archive: the same bytes for the same files, on any machine, with any git, from any commit.
//!
//! # Why not `git archive`
//!
//! It leaves out files that `.gitattributes` marks `export-ignore`, stamps the commit's time on each file, and its bytes changed
//! between versions of git. Contents are exported as committed: no line-ending conversion, no filters.

use std::{
    ffi::OsStr,
    io::{self, BufRead as _, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use shipway_core::ids::CommitId;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    process::ChildStdin,
};
use tokio_util::io::SyncIoBridge;

use super::{
    GitError, GitRepository,
    command::{ProcessGroup, STDERR_BYTES_MAX, describe_failure, normalize_path, read_up_to},
    tree::TreeEntry,
};

const WHAT: &str = "export files";
/// Deadline for gigabytes on a slow disk.
const DEADLINE: Duration = Duration::from_secs(600);
/// 2000-01-01. Not zero: zip files, thus Python wheels, cannot hold years before 1980.
const MODIFIED_AT: u64 = 946_684_800;

impl GitRepository {
    /// Writes the files below `under` (empty means all) of a commit to a new tar file at `to`, with paths relative to `under`.
    /// Symlinks are kept; a submodule becomes an empty folder. Without files the archive is empty.
    ///
    /// # Errors
    /// When `to` exists or can't be written, when the path is invalid, or when git fails. The caller must delete a partial file.
    pub async fn export_tar(
        &self,
        commit: &CommitId,
        under: &str,
        to: &Path,
    ) -> Result<(), GitError> {
        let under = normalize_path(under)?;
        let entries = self.tree_entries(commit, under).await?;
        let file = std::fs::File::create_new(to).map_err(GitError::io("create", to))?;
        let mut command = self.git().command();
        command
            .env("GIT_DIR", self.git_dir())
            .args(["cat-file", "--batch", "--buffer"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(GitError::Start)?;
        let group = ProcessGroup::from_child(&child);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let stdout = child.stdout.take().expect("it was piped");
        let wanted: Vec<u8> = entries
            .iter()
            .filter(|entry| !entry.is_submodule())
            .flat_map(|entry| [entry.object.as_bytes(), b"\n"])
            .flatten()
            .copied()
            .collect();
        let strip = if under.is_empty() { 0 } else { under.len() + 1 };
        let objects = SyncIoBridge::new(BufReader::with_capacity(64 << 10, stdout));
        // Dropping the future kills git, so the thread sees the end of its input and stops too.
        let archive =
            tokio::task::spawn_blocking(move || write_archive(&entries, strip, objects, file));
        let work = async {
            let ((), (stderr, _), written) = tokio::join!(
                request_objects(stdin, &wanted),
                read_up_to(stderr, STDERR_BYTES_MAX),
                archive
            );
            (stderr, written, child.wait().await)
        };
        let (stderr, written, status) =
            tokio::time::timeout(DEADLINE, work)
                .await
                .map_err(|_| GitError::Timeout {
                    what: WHAT,
                    after: DEADLINE,
                })?;
        group.disarm();
        let code = super::command::exit_code(status.map_err(GitError::Start)?);
        match written.expect("writing an archive does not panic") {
            Ok(()) if code == 0 => Ok(()),
            Err(error) if code == 0 || stderr.is_empty() => Err(GitError::io("write", to)(error)),
            Ok(()) | Err(_) => Err(GitError::Failed {
                what: WHAT,
                reason: describe_failure(&stderr, code),
            }),
        }
    }
}

async fn request_objects(stdin: Option<ChildStdin>, wanted: &[u8]) {
    if let Some(mut stdin) = stdin {
        // If git stops reading it reports why on stderr.
        let _ = stdin.write_all(wanted).await;
    }
}

/// Copies each entry's object; git prints them in the order of the entries.
fn write_archive(
    entries: &[TreeEntry],
    strip: usize,
    mut objects: impl io::BufRead,
    file: std::fs::File,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(256 << 10, file));
    archive.mode(tar::HeaderMode::Deterministic);
    for entry in entries {
        let path = Path::new(OsStr::from_bytes(&entry.path[strip..]));
        if entry.is_submodule() {
            let mut header = tar_header(tar::EntryType::Directory, 0o755, 0);
            archive.append_data(&mut header, path, io::empty())?;
            continue;
        }
        let size = object_size(&mut objects)?;
        if entry.is_file() {
            let mode = if entry.mode & 0o111 == 0 {
                0o644
            } else {
                0o755
            };
            let mut header = tar_header(tar::EntryType::Regular, mode, size);
            archive.append_data(&mut header, path, (&mut objects).take(size))?;
        } else {
            let mut target = Vec::new();
            (&mut objects)
                .take(size.min(LINK_BYTES_MAX))
                .read_to_end(&mut target)?;
            let mut header = tar_header(tar::EntryType::Symlink, 0o777, 0);
            archive.append_link(&mut header, path, OsStr::from_bytes(&target))?;
        }
        let mut end = [0];
        objects.read_exact(&mut end)?;
        if end != *b"\n" {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "git's output has a different length than announced",
            ));
        }
    }
    archive.into_inner()?.into_inner()?.sync_all()
}

/// Longest symlink target on Linux.
const LINK_BYTES_MAX: u64 = 4096;

fn tar_header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MODIFIED_AT);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Reads `<object> blob <size>`.
fn object_size(objects: &mut impl io::BufRead) -> io::Result<u64> {
    let mut line = String::new();
    objects.take(256).read_line(&mut line)?;
    let size = line
        .strip_suffix('\n')
        .and_then(|line| line.split_once(" blob "))
        .and_then(|(_, size)| size.parse().ok());
    size.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("an object is missing in git: {line:?}"),
        )
    })
}
