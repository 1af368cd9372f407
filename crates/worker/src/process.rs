//! Processes of a step: a group of its own, ended as GitHub ends it, and nothing left behind.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;

/// From SIGINT to SIGTERM.
const INTERRUPT_GRACE: Duration = Duration::from_millis(7_500);
/// From SIGTERM to SIGKILL.
const TERMINATE_GRACE: Duration = Duration::from_millis(2_500);

/// Ends a step's group: SIGINT, then SIGTERM, then SIGKILL.
pub(crate) async fn end(child: &mut Child, group: Option<Pid>) {
    for (signal, grace) in [
        (Signal::INT, INTERRUPT_GRACE),
        (Signal::TERM, TERMINATE_GRACE),
    ] {
        if let Some(group) = group {
            // Gone already is fine.
            let _ = kill_process_group(group, signal);
        }
        if tokio::time::timeout(grace, child.wait()).await.is_ok() {
            return kill(group);
        }
    }
    kill(group);
    let _ = child.wait().await;
}

/// Ends what is left of a group at once.
pub(crate) fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Ends what the job has left running outside of its groups, and names it. The worker is the subreaper: strays are its children.
pub(crate) fn kill_strays() -> Vec<String> {
    let me = std::process::id();
    let mut names = Vec::new();
    // Ending a stray may leave its own children to us.
    for _ in 0..16 {
        let strays: Vec<(Pid, String)> = children_of(me);
        if strays.is_empty() {
            break;
        }
        for (pid, name) in strays {
            let _ = kill_process(pid, Signal::KILL);
            names.push(name);
        }
        while matches!(
            rustix::process::wait(rustix::process::WaitOptions::NOHANG),
            Ok(Some(_))
        ) {}
    }
    names
}

fn children_of(parent: u32) -> Vec<(Pid, String)> {
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.split_at(stat.rfind(')')?);
        let mut fields = rest[1..].split_whitespace();
        let (state, of) = (fields.next()?, fields.next()?.parse::<u32>().ok()?);
        (of == parent && state != "Z")
            .then_some((Pid::from_raw(pid)?, head.split_once('(')?.1.to_owned()))
    };
    pids.filter_map(child).collect()
}
