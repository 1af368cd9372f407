//! Runs a check command. It has its own process group, which is killed when the command exits, times out or is cancelled; its
//! environment is clean, so that a release can't read the server's.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use rustix::process::{Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

use crate::{
    procfs::ProcessId,
    target::{CommandError, CommandRunner, SetCommand},
};
use shipway_core::target::ReplicaSetKey;

/// Bytes at the end of the output that are kept; the last line is quoted.
const OUTPUT_BYTES_KEPT: usize = 16 << 10;
/// Timeout for reading the remaining output after the command exited.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// Longest quoted line.
const QUOTED_CHARS: usize = 300;

/// Runs the commands of all sets in one folder of this machine.
#[derive(Clone, Debug)]
pub struct FolderCommands(pub PathBuf);

#[async_trait]
impl CommandRunner for FolderCommands {
    async fn run_command(
        &self,
        _set: &ReplicaSetKey,
        command: &SetCommand<'_>,
    ) -> Result<String, CommandError> {
        command_output(command, &self.0).await
    }
}

/// The variables of a command that checks the instance at `address`: `URL` and `PORT`.
pub(super) fn check_environment(address: &str) -> [(&'static str, String); 2] {
    let port = address.rsplit(':').next().unwrap_or_default();
    [
        ("URL", format!("http://{address}")),
        ("PORT", port.to_owned()),
    ]
}

/// Runs a shell command in a folder; returns the last [`OUTPUT_BYTES_KEPT`] bytes of its output. A non-zero exit or a timeout is an
/// error with the command's last line.
pub(crate) async fn command_output(
    command: &SetCommand<'_>,
    workdir: &Path,
) -> Result<String, CommandError> {
    let timeout = command.timeout;
    let mut child =
        start_command(command, workdir).map_err(|error| CommandError::Shell(error.to_string()))?;
    let mut group = CommandGroup::from_child(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::join!(
            read_last_bytes(stdout, &mut out),
            read_last_bytes(stderr, &mut err)
        );
    };
    let in_time = wait_until_ended(&group, reading, timeout).await;
    let status = child
        .wait()
        .await
        .map_err(|error| CommandError::Wait(error.to_string()))?;
    group.release();
    let last = last_line(&err).or_else(|| last_line(&out));
    let how = match (in_time, status.code()) {
        (true, Some(0)) => return Ok(String::from_utf8_lossy(&out).into_owned()),
        (false, _) => format!("not done within {} s", timeout.as_secs_f32()),
        (true, Some(code)) => format!("exit code {code}"),
        (true, None) => status.to_string(),
    };
    Err(CommandError::Failed { how, last })
}

/// Waits until the command has exited or kills it at the timeout; returns whether it was in time. All output has been read then.
async fn wait_until_ended(
    group: &CommandGroup,
    reading: impl Future<Output = ()>,
    timeout: Duration,
) -> bool {
    tokio::pin!(reading);
    let mut all_read = false;
    let ended = async {
        let main_ended = group.wait_for_main();
        tokio::pin!(main_ended);
        loop {
            tokio::select! {
                () = &mut main_ended => break,
                () = &mut reading, if !all_read => all_read = true,
            }
        }
    };
    let in_time = tokio::time::timeout(timeout, ended).await.is_ok();
    // Kill its descendants; only then the pipes are certainly closed.
    group.kill();
    if !all_read {
        let _ = tokio::time::timeout(READ_WITHIN, reading).await;
    }
    in_time
}

fn start_command(command: &SetCommand<'_>, workdir: &Path) -> std::io::Result<Child> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let child = Command::new("/bin/sh")
        .args(["-c", command.command])
        .env_clear()
        .env("PATH", path)
        .env("LANG", "C.UTF-8")
        .env("HOME", workdir)
        .envs(
            command
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(workdir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    crate::open_files::restore_limit(child.id());
    Ok(child)
}

/// The process group of a command; killed on drop.
struct CommandGroup(Option<ProcessId>);

impl CommandGroup {
    fn from_child(child: &Child) -> Self {
        Self(child.id().and_then(ProcessId::find))
    }

    async fn wait_for_main(&self) {
        if let Some(main) = self.0 {
            main.wait_until_ended().await;
        }
    }

    /// Only before the main process is reaped: until then its pid, and the group's, can't be reused.
    fn kill(&self) {
        if let Some(group) = self.0.and_then(ProcessId::as_pid) {
            // It may have exited already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Called when the main process has been reaped.
    fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for CommandGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads to the end and keeps the last bytes, so that endless output uses bounded memory.
async fn read_last_bytes(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; OUTPUT_BYTES_KEPT];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..count]);
        let too_many = kept.len().saturating_sub(OUTPUT_BYTES_KEPT);
        kept.drain(..too_many);
    }
}

fn last_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(QUOTED_CHARS).collect())
}
