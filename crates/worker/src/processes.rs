//! Processes of a job: stopping process groups as GitHub does, and killing those that steps have left running.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group, pidfd_open, waitpid,
    },
};

/// The signals that stop a process group, each with its grace period.
pub(crate) const ENDING: [(Signal, Duration); 2] = [
    (Signal::INT, Duration::from_millis(7_500)),
    (Signal::TERM, Duration::from_millis(2_500)),
];

/// How long a killed process may take to exit: it may have a lot of memory to free.
const GONE: Duration = Duration::from_secs(5);
/// Limit for the rounds of killing: killed processes may leave children, which are reparented to the worker.
const ROUNDS: usize = 32;

/// Signals a process group; no error if the group has exited.
pub(crate) fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

/// A process that a step has left running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StrayProcess {
    pub(crate) pid: Pid,
    /// E.g. `python3`.
    pub(crate) name: String,
}

/// Kills and returns all processes that steps have left running, whatever their process group. They are children of
/// the worker, because it is a subreaper.
pub(crate) fn kill_stray_processes() -> Vec<StrayProcess> {
    let mut ended = Vec::new();
    for _ in 0..ROUNDS {
        let children = list_children();
        if children.is_empty() {
            break;
        }
        let deadline = Instant::now() + GONE;
        for child in &children {
            // A zombie is only reaped.
            let watched = pidfd_open(child.pid, PidfdFlags::empty());
            let _ = kill_process(child.pid, Signal::KILL);
            if let Ok(watched) = watched {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).ok();
                let _ = poll(
                    &mut [PollFd::new(&watched, PollFlags::IN)],
                    timeout.as_ref(),
                );
            }
            let _ = waitpid(Some(child.pid), WaitOptions::NOHANG);
        }
        ended.extend(children.into_iter().filter_map(ChildProcess::into_stray));
    }
    ended
}

struct ChildProcess {
    pid: Pid,
    name: String,
    is_zombie: bool,
}

impl ChildProcess {
    fn into_stray(self) -> Option<StrayProcess> {
        (!self.is_zombie).then_some(StrayProcess {
            pid: self.pid,
            name: self.name,
        })
    }
}

/// Whether a process of an earlier or concurrent step is running.
pub(crate) fn has_children() -> bool {
    !list_children().is_empty()
}

/// The children of all threads of this process.
fn list_children() -> Vec<ChildProcess> {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    match lists.collect::<Result<Vec<_>, _>>() {
        Ok(lists) => lists
            .iter()
            .flat_map(|list| list.split_whitespace())
            .filter_map(|pid| Some(read_process_stat(pid.parse().ok()?)?.0))
            .collect(),
        // Kernel without `CONFIG_PROC_CHILDREN`: search all processes.
        Err(_) => search_children(),
    }
}

fn search_children() -> Vec<ChildProcess> {
    let me = std::process::id();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| read_process_stat(entry.file_name().to_str()?.parse().ok()?))
        .filter(|(_, parent)| *parent == me)
        .map(|(child, _)| child)
        .collect()
}

/// Reads a process and the pid of its parent.
fn read_process_stat(pid: i32) -> Option<(ChildProcess, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain some itself: the last one ends it.
    let (head, rest) = stat.split_at(stat.rfind(')')?);
    let mut fields = rest[1..].split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    let child = ChildProcess {
        pid: Pid::from_raw(pid)?,
        name: head.split_once('(')?.1.to_owned(),
        is_zombie: state == "Z",
    };
    Some((child, parent))
}

/// Start time of this process, in clock ticks since boot.
pub(crate) fn own_start_time() -> u64 {
    process_start_time(std::process::id()).unwrap_or(0)
}

/// Start time of a process; `None` if it doesn't exist or has exited.
pub(crate) fn process_start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let start = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(start)
}
