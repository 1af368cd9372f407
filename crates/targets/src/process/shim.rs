//! The shim: a small parent process of each instance. It survives the server, writes the instance's log, forwards a stop
//! request, kills everything the instance leaves behind, and records how it ended.
//!
//! # Invariants
//!
//! - Its instructions come on standard input, so secrets are in no file. If the server is killed while writing them, nothing is
//!   started.
//! - It holds its slot by a file lock: two shims never run in one slot.
//! - It reports on standard output why it can't start; closing it without output means that `runs.json` exists.
//! - One thread, no runtime, bounded memory: there is one shim per instance, for as long as that runs.
//!
//! # Failure modes
//!
//! - The shim is killed: its instance keeps running without a log; the server finds it by its session and kills it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use rustix::{
    fs::{FlockOperation, flock},
    process::{WaitStatus, getpid, set_child_subreaper, setsid},
};
use serde::{Deserialize, Serialize};
use shipway_core::target::{ResourceLimits, StopSignal};

use super::{
    cgroup::{self, CgroupSet},
    exit_watcher::{ExitWatcher, InstanceEnd, InstanceStopRequest, SignalWakeups},
    instance_log::{self, InstanceLog, LOG},
    shell_command,
};
use crate::{atomic_file::write_atomic, procfs::ProcessId};

/// The shim's instructions; contain secrets.
#[derive(Serialize, Deserialize)]
pub(super) struct ShimInstructions {
    pub(super) name: String,
    /// The name of its control groups.
    pub(super) cgroup: String,
    pub(super) command: String,
    pub(super) workdir: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) limits: ResourceLimits,
    pub(super) grace: Duration,
    #[serde(default)]
    pub(super) stop_signal: StopSignal,
    pub(super) address: String,
    pub(super) restarts: u32,
}

/// The running instance; written to `runs.json` after the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RunningInstance {
    pub(super) shim: ProcessId,
    pub(super) instance: ProcessId,
    pub(super) address: String,
    pub(super) since: Timestamp,
    /// Unplanned restarts before this run.
    #[serde(default)]
    pub(super) restarts: u32,
    /// A warning for the operator: which limits are not enforced.
    #[serde(default)]
    pub(super) note: Option<String>,
}

/// How the instance ended; written to `ended.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EndedInstance {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    #[serde(default)]
    pub(super) out_of_memory: bool,
    /// It was killed at the end of the grace period.
    #[serde(default)]
    pub(super) grace_exceeded: bool,
    /// It exited by itself and left background processes, which were killed.
    #[serde(default)]
    pub(super) left_processes: bool,
    pub(super) at: Timestamp,
}

impl EndedInstance {
    /// `exit code 1`, `killed by SIGSEGV`, `killed by SIGKILL, out of memory`.
    pub(super) fn describe(&self) -> String {
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by {}", signal_name(signal)),
            (None, None) => "ended".to_owned(),
        };
        if self.out_of_memory {
            format!("{how}, out of memory")
        } else if self.code == Some(0) && self.left_processes {
            format!("{how}, but it left processes running in the background: {STAY_IN_FOREGROUND}")
        } else if self.code == Some(0) {
            // It may be a daemon whose processes have ended already.
            format!("{how}, although it was not stopped: {STAY_IN_FOREGROUND}")
        } else {
            how
        }
    }
}

/// Advice for servers that daemonize by default.
const STAY_IN_FOREGROUND: &str = "the command must stay in the foreground (nginx -g 'daemon off;', gunicorn without --daemon, caddy run, pm2-runtime)";

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

pub(super) const RUNS: &str = "runs.json";
pub(super) const ENDED: &str = "ended.json";
/// Present while the instance is ready, so that the next server needn't probe it first.
pub(super) const READY: &str = "ready";
const SLOT: &str = "slot.lock";

/// The main function of `shipway instance --dir FOLDER`. Must be called while the process has only one thread.
#[must_use]
pub fn run_shim(folder: &Path) -> ExitCode {
    match supervise_instance(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the server, if it still reads, and to the log.
            let _ = writeln!(io::stdout(), "{error}");
            if let Ok(mut log) = InstanceLog::open(&folder.join(LOG)) {
                log.write_note(&error.to_string());
            }
            ExitCode::FAILURE
        }
    }
}

fn supervise_instance(folder: &Path) -> io::Result<()> {
    let told: ShimInstructions = serde_json::from_reader(io::stdin().lock())?;
    let _slot = lock_slot(folder)?;
    // If the shim is killed, its descendants are found by the session. Fails only for a group leader, started by hand.
    let _ = setsid();
    // Child subreaper: orphans are reparented to the shim and killed with the instance.
    set_child_subreaper(Some(getpid()))?;
    for of_last_run in [ENDED, READY] {
        let _ = fs::remove_file(folder.join(of_last_run));
    }
    let wakeups = SignalWakeups::register()?;
    let mut log = InstanceLog::open(&folder.join(LOG))?;
    let (groups, limited) = CgroupSet::enter(&told.cgroup, &told.limits);
    let started = start_command(&told);
    groups.leave();
    let (child, output) = started?;
    let main = ProcessId::find(child.id()).unwrap_or(ProcessId {
        pid: child.id(),
        start_time: 0,
    });
    log.write_note(&instance_log::started_line(&format!(
        "{}, process {}, {}",
        told.name, main.pid, told.address
    )));
    if let Err(why) = &limited {
        log.write_note(&why.to_string());
    }
    let runs = RunningInstance {
        shim: ProcessId::find(std::process::id())
            .ok_or_else(|| io::Error::other("/proc can't be read"))?,
        instance: main,
        address: told.address,
        since: Timestamp::now(),
        restarts: told.restarts,
        note: limited.err().map(|error| error.to_string()),
    };
    let request = InstanceStopRequest {
        signal: told.stop_signal,
        grace: told.grace,
    };
    let mut watcher = ExitWatcher::new(main, request, output, log, wakeups)?;
    if let Err(error) = write_json(folder, RUNS, &runs).and_then(|()| detach_stdio()) {
        watcher.kill_now();
        return Err(error);
    }
    let end = watcher.watch_until_end();
    let ended = EndedInstance {
        out_of_memory: groups.ran_out_of_memory(),
        ..to_ended(&end)
    };
    cgroup::remove_cgroups(&told.cgroup);
    write_json(folder, ENDED, &ended)
}

/// Locks the slot until this process exits.
fn lock_slot(folder: &Path) -> io::Result<File> {
    let slot = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(SLOT))?;
    flock(&slot, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another instance holds this slot"))?;
    Ok(slot)
}

/// Starts the command in its own process group, with one pipe for all its output.
fn start_command(told: &ShimInstructions) -> io::Result<(Child, OwnedFd)> {
    let (output, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Room for output while the disk is slow; the default size works too.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, 1 << 20);
    rustix::io::ioctl_fionbio(&output, true)?;
    let command = shell_command::with_exec(&told.command);
    let child = Command::new(shell_command::SHELL)
        .args(["-c", command.as_ref().unwrap_or(&told.command)])
        .env_clear()
        .envs(&told.env)
        .current_dir(&told.workdir)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let place = told.workdir.display();
            io::Error::new(error.kind(), format!("/bin/sh in {place}: {error}"))
        })?;
    Ok((child, output))
}

/// Detaches from the server's pipes, so that it may exit.
fn detach_stdio() -> io::Result<()> {
    let nothing = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}

fn to_ended(end: &InstanceEnd) -> EndedInstance {
    EndedInstance {
        code: end.status.and_then(WaitStatus::exit_status),
        signal: end.status.and_then(WaitStatus::terminating_signal),
        out_of_memory: false,
        grace_exceeded: end.grace_exceeded,
        left_processes: end.left_processes,
        at: Timestamp::now(),
    }
}

/// Writes a JSON file of an instance or a set atomically.
pub(super) fn write_json(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    write_atomic(&folder.join(name), &serde_json::to_vec(value)?, 0o600)
}
