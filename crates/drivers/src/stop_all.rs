//! Stops everything that a server leaves running on purpose, before a data directory is deleted or when a demo ends.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};
use serde::Deserialize;
use shipway_proxy::{control_client::ControlClient, protocol::StopRequest};
use shipway_workflow::job::{JournalBody, JournalEntry};

use shipway_targets::procfs::{ProcessId, kill_session};

/// Grace for all processes together before they are killed.
const GRACE: Duration = Duration::from_secs(15);

/// Counts of stopped processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoppedProcesses {
    /// Number of instances.
    pub instances: usize,
    /// Number of jobs.
    pub jobs: usize,
    /// Whether a proxy was running.
    pub proxy: bool,
}

/// The part of `runs.json` that is needed here.
#[derive(Deserialize)]
struct RunningShim {
    shim: ProcessId,
}

/// Stops the processes of this data directory. No server may be using it.
pub async fn stop_all(data: &Path) -> StoppedProcesses {
    let control = ControlClient::new(data.join("proxy").join("control.sock"));
    let proxy = control.health().await.ok();
    if proxy.is_some() {
        // Either it answers before it stops, or it has exited.
        let _ = control.stop(StopRequest { grace_ms: 2_000 }).await;
    }
    let instances: Vec<RunningShim> = subfolders(&data.join("instances"))
        .iter()
        .flat_map(|set| subfolders(set))
        .filter_map(|slot| read_running_shim(&slot))
        .collect();
    let workers: Vec<ProcessId> = subfolders(&data.join("runs"))
        .iter()
        .flat_map(|service| subfolders(service))
        .flat_map(|run| subfolders(&run))
        .filter_map(|job| find_worker(&job))
        .collect();
    let mut waiting: Vec<ProcessId> = instances
        .iter()
        .map(|runs| runs.shim)
        .chain(workers.iter().copied())
        .filter(|process| process.is_alive())
        .collect();
    waiting.extend(
        proxy
            .as_ref()
            .and_then(|health| ProcessId::find(health.pid)),
    );
    let stopped = StoppedProcesses {
        instances: instances.iter().filter(|runs| runs.shim.is_alive()).count(),
        jobs: workers.iter().filter(|worker| worker.is_alive()).count(),
        proxy: proxy.is_some(),
    };
    for pid in waiting.iter().filter_map(|process| process.as_pid()) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + GRACE;
    for process in waiting {
        let left = deadline.saturating_duration_since(Instant::now());
        if tokio::time::timeout(left, process.wait_until_ended())
            .await
            .is_err()
            && let Some(pid) = process.as_pid()
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // A killed shim leaves its instance behind.
    for instance in &instances {
        kill_session(instance.shim).await;
    }
    // A killed worker leaves its steps behind.
    for worker in workers {
        kill_session(worker).await;
    }
    stopped
}

fn subfolders(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn read_running_shim(slot: &Path) -> Option<RunningShim> {
    serde_json::from_slice(&fs::read(slot.join("runs.json")).ok()?).ok()
}

fn find_worker(job: &Path) -> Option<ProcessId> {
    let text = fs::read_to_string(job.join("journal.jsonl")).ok()?;
    let started = |line: &str| match serde_json::from_str::<JournalEntry>(line).ok()?.body {
        JournalBody::Started { pid, start_time } => Some(ProcessId { pid, start_time }),
        _ => None,
    };
    text.lines().filter_map(started).next_back()
}
