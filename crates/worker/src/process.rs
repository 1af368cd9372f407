//! Processes of a job: groups ended as GitHub ends them, and nothing left behind.

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

/// What a group is told when it must end, and how long it is given each time.
pub(crate) const ENDING: [(Signal, Duration); 2] = [
    (Signal::INT, Duration::from_millis(7_500)),
    (Signal::TERM, Duration::from_millis(2_500)),
];

/// How long a killed process may take to be gone: it may have much memory to give back.
const GONE: Duration = Duration::from_secs(5);
/// How often strays are looked for: each that is killed may leave children of its own.
const ROUNDS: usize = 32;

/// Signals a whole group. Gone already is fine.
pub(crate) fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

/// A process that a job has left running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    pub(crate) pid: Pid,
    /// `python3`
    pub(crate) name: String,
}

/// Ends what the job has left running, whatever group it is in, and names it. The worker is a subreaper: whoever has lost its
/// parent is its child.
pub(crate) fn end_strays() -> Vec<Stray> {
    let mut ended = Vec::new();
    for _ in 0..ROUNDS {
        let children = children();
        if children.is_empty() {
            break;
        }
        let deadline = Instant::now() + GONE;
        for child in &children {
            // A process that has ended is only reaped.
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
        ended.extend(children.into_iter().filter_map(Child::stray));
    }
    ended
}

struct Child {
    pid: Pid,
    name: String,
    is_zombie: bool,
}

impl Child {
    fn stray(self) -> Option<Stray> {
        (!self.is_zombie).then_some(Stray {
            pid: self.pid,
            name: self.name,
        })
    }
}

/// Whether anything runs that a step has left, or that runs beside it.
pub(crate) fn has_children() -> bool {
    !children().is_empty()
}

/// The children of this process: of each of its threads.
fn children() -> Vec<Child> {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")));
    match lists.collect::<Result<Vec<_>, _>>() {
        Ok(lists) => lists
            .iter()
            .flat_map(|list| list.split_whitespace())
            .filter_map(|pid| Some(look(pid.parse().ok()?)?.0))
            .collect(),
        // A kernel without these lists: look at everybody.
        Err(_) => all_children(),
    }
}

fn all_children() -> Vec<Child> {
    let me = std::process::id();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| look(entry.file_name().to_str()?.parse().ok()?))
        .filter(|(_, parent)| *parent == me)
        .map(|(child, _)| child)
        .collect()
}

/// A process, and its parent's number.
fn look(pid: i32) -> Option<(Child, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; the last one ends it.
    let (head, rest) = stat.split_at(stat.rfind(')')?);
    let mut fields = rest[1..].split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    let child = Child {
        pid: Pid::from_raw(pid)?,
        name: head.split_once('(')?.1.to_owned(),
        is_zombie: state == "Z",
    };
    Some((child, parent))
}

/// When this process started, in clock ticks since boot.
pub(crate) fn start_time() -> u64 {
    start_time_of(std::process::id()).unwrap_or(0)
}

/// When a process started; none when there is none of that number, or it has ended.
pub(crate) fn start_time_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let start = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(start)
}
