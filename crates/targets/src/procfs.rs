//! Information about processes from `/proc`.

use std::{collections::BTreeMap, fs, time::Duration};

use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use shipway_core::target::ResourceUsage;
use tokio::io::unix::AsyncFd;

/// Rounds of killing a session: a process that forks while being killed is found in the next one.
const KILL_ROUNDS: u32 = 16;
/// Timeout for one process after SIGKILL; one that waits for a broken disk never exits.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// Identifies a process even if its pid is reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// In clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn find(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_time: read_stat(pid)?.start_time,
        })
    }

    /// Whether it still runs; a zombie doesn't.
    pub fn is_alive(self) -> bool {
        read_stat(self.pid)
            .is_some_and(|stat| stat.start_time == self.start_time && stat.state != 'Z')
    }

    /// The process id in the type of the system calls; `None` if it is out of range.
    #[must_use]
    pub fn as_pid(self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }

    /// Sends a signal to exactly this process; no error if it has exited.
    pub(super) fn send_signal(self, signal: Signal) {
        let handle = self
            .as_pid()
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Check after opening: the pidfd refers to one process for good.
        let Some(handle) = handle.filter(|_| self.is_alive()) else {
            return;
        };
        let _ = pidfd_send_signal(&handle, signal);
    }

    /// Waits until it has exited.
    pub async fn wait_until_ended(self) {
        let watched = self
            .as_pid()
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Check after opening: the pid can't have been reused unnoticed.
        if !self.is_alive() {
            return;
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the descriptor is owned and never closed by anybody else"
        )]
        let watched = watched.and_then(|fd: OwnedFd| AsyncFd::new(fd).ok());
        match watched {
            Some(fd) => drop(fd.readable().await),
            // Kernel without pidfd: poll instead.
            None => {
                while self.is_alive() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Kills the remaining processes of the session of `leader`, and returns when they have exited.
///
/// The kernel doesn't reuse the leader's pid while a process of the session exists. So another process with that pid means that
/// none is left, and every process found belongs to the session.
pub async fn kill_session(leader: ProcessId) {
    for _ in 0..KILL_ROUNDS {
        if read_stat(leader.pid).is_some_and(|stat| stat.start_time != leader.start_time) {
            return;
        }
        let left: Vec<ProcessId> = all_processes()
            .filter(|(pid, stat)| {
                stat.session == leader.pid && *pid != leader.pid && stat.state != 'Z'
            })
            .map(|(pid, stat)| ProcessId {
                pid,
                start_time: stat.start_time,
            })
            .collect();
        if left.is_empty() {
            return;
        }
        for process in &left {
            process.send_signal(Signal::KILL);
        }
        for process in left {
            let _ = tokio::time::timeout(KILLED_WITHIN, process.wait_until_ended()).await;
        }
    }
}

/// The running children of a process.
pub(super) fn child_processes(parent: u32) -> Vec<ProcessId> {
    all_processes()
        .filter(|(_, stat)| stat.parent == parent && stat.state != 'Z')
        .map(|(pid, stat)| ProcessId {
            pid,
            start_time: stat.start_time,
        })
        .collect()
}

/// Whether the process is a shell started as `SHELL -c …` that still interprets that line.
pub(super) fn is_shell_with_command(process: ProcessId, shell: &str) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    words.next() == Some(shell.as_bytes()) && words.next() == Some(b"-c")
}

/// Whether the process has a handler for this signal.
pub(super) fn has_handler(process: ProcessId, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal - 1).ok();
    caught
        .zip(bit)
        .is_some_and(|(mask, bit)| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

struct ProcessStat {
    state: char,
    parent: u32,
    group: u32,
    session: u32,
    cpu_ticks: u64,
    /// Of reaped children.
    children_ticks: u64,
    start_time: u64,
    resident_pages: u64,
}

fn all_processes() -> impl Iterator<Item = (u32, ProcessStat)> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, read_stat(pid)?)))
}

fn read_stat(pid: u32) -> Option<ProcessStat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<ProcessStat> {
    // The name is in parentheses and may contain any character: search for the last parenthesis.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let id = |index: usize| u32::try_from(number(index)?).ok();
    Some(ProcessStat {
        state: fields.first()?.chars().next()?,
        parent: id(1)?,
        group: id(2)?,
        session: id(3)?,
        cpu_ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
        start_time: number(19)?,
        resident_pages: number(21)?,
    })
}

/// Resource usage of instances including their descendants, by the pid of the main process.
///
/// The time of exited processes is kept by their parents, finally by the shim: the reported values never fall while an instance
/// runs. The shim's own usage is excluded.
pub(super) fn measure_usage(instances: &[u32]) -> BTreeMap<u32, ResourceUsage> {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1) as f64;
    let page_bytes = rustix::param::page_size() as u64;
    let everything: BTreeMap<u32, ProcessStat> = all_processes().collect();
    // An instance is in its shim's session; if it created its own, its process group identifies it.
    let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
    let mut used: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for main in instances {
        let Some(stat) = everything.get(main) else {
            continue;
        };
        owners.extend([(stat.parent, *main), (*main, *main)]);
        let by_shim = everything
            .get(&stat.parent)
            .map_or(0, |shim| shim.children_ticks);
        used.insert(*main, (by_shim, 0));
    }
    for (pid, stat) in &everything {
        let owner = owners
            .get(&stat.session)
            .or_else(|| owners.get(&stat.group));
        let is_shim = owners.get(pid).is_some_and(|main| main != pid);
        if let Some((ticks, pages)) = owner
            .filter(|_| !is_shim)
            .and_then(|main| used.get_mut(main))
        {
            *ticks += stat.cpu_ticks + stat.children_ticks;
            *pages += stat.resident_pages;
        }
    }
    let to_usage = |(ticks, pages): (u64, u64)| ResourceUsage {
        cpu_seconds: ticks as f64 / ticks_per_second,
        memory_bytes: pages * page_bytes,
    };
    used.into_iter()
        .map(|(main, used)| (main, to_usage(used)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_are_read() {
        let line = "7 (a (b) c) S 1 42 40 0 -1 0 0 0 0 0 100 50 7 3 20 0 1 0 12345 0 9 0";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            (stat.state, stat.parent, stat.group, stat.session),
            ('S', 1, 42, 40)
        );
        assert_eq!((stat.cpu_ticks, stat.children_ticks), (150, 10));
        assert_eq!((stat.start_time, stat.resident_pages), (12345, 9));
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let me = ProcessId::find(std::process::id()).unwrap();
        assert!(me.is_alive());
        let other = ProcessId {
            start_time: me.start_time + 1,
            ..me
        };
        assert!(!other.is_alive());
        // Would end this test if it hit the wrong one.
        other.send_signal(Signal::KILL);
    }

    #[test]
    fn handlers_and_shells_are_recognised() {
        let spawned = |line: &str| {
            let mut command = std::process::Command::new("/bin/sh");
            command
                .args(["-c", line])
                .process_group(0)
                .stdout(std::process::Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
            std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();
            let id = ProcessId::find(child.id()).unwrap();
            (child, id)
        };
        for (line, is_shell, handles) in [
            ("trap : TERM; echo ready; sleep 60; true", true, true),
            ("echo ready; exec sleep 60", false, false),
        ] {
            let (mut child, id) = spawned(line);
            while !is_shell && is_shell_with_command(id, "/bin/sh") {
                std::thread::yield_now();
            }
            assert_eq!(is_shell_with_command(id, "/bin/sh"), is_shell, "{line}");
            assert_eq!(has_handler(id, 15), handles, "{line}");
            assert!(!has_handler(id, 10));
            // The whole group: the shell may be about to start its `sleep`.
            let group = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process_group(group, Signal::KILL).unwrap();
            child.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn a_session_whose_leaders_number_is_a_strangers_is_left_alone() {
        let me = ProcessId::find(std::process::id()).unwrap();
        kill_session(ProcessId {
            start_time: me.start_time + 1,
            ..me
        })
        .await;
    }
}
