//! Packs a commit with its history, for a worker on another machine.

use std::{io, process::Stdio};

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use shipway_core::ids::CommitId;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdout},
};

use super::{GitError, GitRepository, command::ProcessGroup};

/// Bytes per read.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of a pack. Git is killed when the stream is dropped; when git fails the stream ends with an error.
pub type PackStream = BoxStream<'static, io::Result<Bytes>>;

/// Git as it writes a pack.
struct PackProcess {
    child: Child,
    stdout: ChildStdout,
    group: ProcessGroup,
}

impl GitRepository {
    /// Packs everything that a commit needs: its files and its history, and nothing of other branches.
    ///
    /// # Errors
    /// When git can't be started.
    pub async fn pack_commit(&self, commit: &CommitId) -> Result<PackStream, GitError> {
        let mut command = self.git().command();
        command
            .env("GIT_DIR", self.git_dir())
            .args(["pack-objects", "--revs", "--stdout", "--quiet"])
            .arg("--delta-base-offset")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(GitError::Start)?;
        let group = ProcessGroup::from_child(&child);
        if let Some(mut stdin) = child.stdin.take() {
            // If git stops reading, its exit code is not 0.
            let _ = stdin.write_all(format!("{commit}\n").as_bytes()).await;
        }
        let stdout = child.stdout.take().expect("it was piped");
        let process = PackProcess {
            child,
            stdout,
            group,
        };
        Ok(stream::try_unfold(process, read_chunk).boxed())
    }
}

async fn read_chunk(mut process: PackProcess) -> io::Result<Option<(Bytes, PackProcess)>> {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    if process.stdout.read_buf(&mut chunk).await? > 0 {
        return Ok(Some((chunk.freeze(), process)));
    }
    let status = process.child.wait().await?;
    process.group.disarm();
    match status.success() {
        true => Ok(None),
        false => Err(io::Error::other(format!("git pack-objects: {status}"))),
    }
}
