//! What `/proc` says of processes.

use std::{collections::BTreeMap, fs};

use rustix::{fd::OwnedFd, process::Pid};
use shipway_core::target::Usage;
use tokio::io::unix::AsyncFd;

/// A process that can't be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            start_time: stat(pid)?.start_time,
        })
    }

    /// Whether it still runs; one that has ended and waits to be reaped doesn't.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.state != 'Z')
    }

    pub(crate) fn as_pid(self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }

    /// Returns when it has ended.
    pub(crate) async fn ended(self) {
        let watched = self.as_pid().and_then(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
        });
        // Opened, then looked at: the number can't have changed hands in between unseen.
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
            // No pidfds here: look.
            None => {
                while self.is_alive() {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

struct Stat {
    state: char,
    group: u32,
    cpu_ticks: u64,
    start_time: u64,
    resident_pages: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name is in parentheses and may hold anything; the last one ends it.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: u32::try_from(number(2)?).ok()?,
        cpu_ticks: number(11)? + number(12)?,
        start_time: number(19)?,
        resident_pages: number(21)?,
    })
}

/// What each process group uses.
pub(super) fn usage_by_group() -> BTreeMap<u32, Usage> {
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    let page = rustix::param::page_size() as u64;
    let mut groups: BTreeMap<u32, Usage> = BTreeMap::new();
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for stat in pids.filter_map(stat) {
        let usage = groups.entry(stat.group).or_insert(Usage {
            cpu_seconds: 0.0,
            memory_bytes: 0,
        });
        usage.cpu_seconds += stat.cpu_ticks as f64 / ticks;
        usage.memory_bytes += stat.resident_pages * page;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_parentheses_are_read() {
        let line = "7 (a (b) c) S 1 42 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 1 0 12345 0 9 0";
        let stat = parse(line).unwrap();
        assert_eq!(
            (
                stat.state,
                stat.group,
                stat.cpu_ticks,
                stat.start_time,
                stat.resident_pages
            ),
            ('S', 42, 150, 12345, 9)
        );
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessId {
                start_time: me.start_time + 1,
                ..me
            }
            .is_alive()
        );
    }
}
