//! The shim: a small process above each instance. It survives the server, keeps the instance's log within bounds, passes
//! SIGTERM on, leaves nothing of the instance behind, and writes down how it ended.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group, set_child_subreaper};
use serde::{Deserialize, Serialize};
use shipway_core::target::Limits;
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::{cgroup, proc::ProcessId};

/// A log file is rotated at this size.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// Rotated files kept beside the current one.
const LOGS_KEPT: u32 = 2;

/// What the shim is told; holds secrets, so it is read and removed at once.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) command: String,
    pub(super) workdir: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) limits: Limits,
    pub(super) grace: Duration,
    pub(super) address: String,
}

/// What runs; written once it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Runs {
    pub(super) shim: ProcessId,
    pub(super) instance: ProcessId,
    pub(super) address: String,
    pub(super) since: Timestamp,
}

/// How the instance ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) at: Timestamp,
}

impl Ended {
    /// `exit code 1`, `signal 9`.
    pub(super) fn sentence(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        }
    }
}

pub(super) const TOLD: &str = "told.json";
pub(super) const RUNS: &str = "runs.json";
pub(super) const ENDED: &str = "ended.json";
pub(super) const LOG: &str = "log";

/// The main function of `shipway instance --dir FOLDER`.
#[must_use]
pub fn main(folder: &Path) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shipway instance: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(supervise(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The server reads it as the instance's last words.
            if let Ok(mut log) = OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(LOG))
            {
                let _ = writeln!(log, "shipway: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn supervise(folder: &Path) -> io::Result<()> {
    let told: Told = serde_json::from_slice(&std::fs::read(folder.join(TOLD))?)?;
    std::fs::remove_file(folder.join(TOLD))?;
    // What the instance leaves behind becomes ours, and ends with it.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(io::Error::from)?;
    let mut log = Log::open(&folder.join(LOG))?;
    if let Err(why) = cgroup::enter(&told.name, &told.limits) {
        log.write(format!("shipway: {why}\n").as_bytes());
    }
    let (writer, reader) = tokio::net::unix::pipe::pipe()?;
    let writer = writer.into_blocking_fd()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = Command::new("sh")
        .args(["-c", &told.command])
        .env_clear()
        .envs(&told.env)
        .current_dir(&told.workdir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        .process_group(0)
        .spawn()?;
    let pid = child
        .id()
        .ok_or_else(|| io::Error::other("the instance ended before it began"))?;
    let runs = Runs {
        shim: ProcessId::of(std::process::id())
            .ok_or_else(|| io::Error::other("/proc can't be read"))?,
        instance: ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }),
        address: told.address.clone(),
        since: Timestamp::now(),
    };
    write_whole(folder, RUNS, &runs)?;
    let group = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("no process group"))?;
    let logging = tokio::spawn(copy(reader, log));
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = terminate.recv() => stop(&mut child, group, told.grace).await?,
    };
    // Whatever of the group is left; none left is fine.
    let _ = kill_process_group(group, Signal::KILL);
    // The pipe closes with its last writer; a stray one is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(1), logging).await;
    write_whole(
        folder,
        ENDED,
        &Ended {
            code: status.code(),
            signal: status.signal(),
            at: Timestamp::now(),
        },
    )?;
    Ok(())
}

async fn stop(
    child: &mut Child,
    group: Pid,
    grace: Duration,
) -> io::Result<std::process::ExitStatus> {
    // Gone already is fine, here and below.
    let _ = kill_process_group(group, Signal::TERM);
    if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
        return status;
    }
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().await
}

async fn copy(mut from: tokio::net::unix::pipe::Receiver, mut log: Log) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        log.write(&chunk[..count]);
    }
}

/// Written beside, then renamed: whoever reads it reads all of it.
pub(super) fn write_whole(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, folder.join(name))
}

/// An instance's output, in files of bounded size. A full disk costs lines, never the instance.
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    lost: u64,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            lost: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.size >= LOG_BYTES_MAX {
            self.rotate();
        }
        if self.lost > 0 {
            let note = format!(
                "\nshipway: {} bytes of the log were lost, the disk was full\n",
                self.lost
            );
            if self.file.write_all(note.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.size += bytes.len() as u64,
            Err(_) => self.lost += bytes.len() as u64,
        }
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..LOGS_KEPT).rev() {
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        let renamed = std::fs::rename(&self.path, numbered(1));
        // Without a new file the old one goes on growing by at most another length.
        if let (Ok(()), Ok(file)) = (
            renamed,
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path),
        ) {
            self.file = file;
        }
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_rotated_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = Log::open(&path).unwrap();
        for round in 0..4u8 {
            log.size = LOG_BYTES_MAX;
            log.write(&[b'0' + round, b'\n']);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"3\n");
        assert_eq!(std::fs::read(folder.path().join("log.1")).unwrap(), b"2\n");
        assert_eq!(std::fs::read(folder.path().join("log.2")).unwrap(), b"1\n");
        assert!(!folder.path().join("log.3").exists());
    }
}
