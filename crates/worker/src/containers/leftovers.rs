//! Removes containers of killed workers: found by their labels, and removed only when the worker is certainly gone.

use std::{fs, path::Path};

use super::engine::{ContainerEngine, ContainerEngineError, EngineLocation};
use crate::processes::{own_start_time, process_start_time};

/// Label with the job's folder.
const JOB: &str = "dev.shipway.job";
/// Label with the worker's identity.
const WORKER: &str = "dev.shipway.worker";

/// Labels for everything that this worker creates for the job in `folder`.
pub(super) fn owner_labels(folder: &Path) -> [String; 2] {
    let worker = WorkerIdentity::current();
    [
        format!("--label={JOB}={}", folder.display()),
        format!("--label={WORKER}={worker}"),
    ]
}

/// Removes containers and networks of workers that are gone.
pub(super) async fn remove_orphans(
    engine: &ContainerEngine,
) -> Result<usize, ContainerEngineError> {
    let (filter, format) = (
        format!("label={WORKER}"),
        format!("{{{{.ID}}}} {{{{.Label \"{WORKER}\"}}}}"),
    );
    let mut removed = 0;
    let rounds: [(&[&str], &[&str]); 2] = [
        (&["ps", "--all"], &["rm", "--force", "--volumes"]),
        (&["network", "ls"], &["network", "rm"]),
    ];
    for (list, remove) in rounds {
        let list = [list, &["--filter", &filter, "--format", &format]].concat();
        let listed = engine.query(&list).await?;
        let orphans: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(_, worker)| {
                WorkerIdentity::parse(worker).is_some_and(|it| it.is_gone(engine))
            })
            .map(|(id, _)| id)
            .collect();
        if !orphans.is_empty() {
            engine.run_client(&[remove, &orphans].concat(), &[]).await?;
            removed += orphans.len();
        }
    }
    Ok(removed)
}

/// Identifies a process across machines that share an engine.
#[derive(PartialEq, Eq)]
struct WorkerIdentity {
    boot: String,
    /// The pid namespace: pids are only comparable within one.
    namespace: String,
    pid: u32,
    start_time: u64,
}

impl WorkerIdentity {
    fn current() -> Self {
        Self {
            boot: boot_id(),
            namespace: pid_namespace(),
            pid: std::process::id(),
            start_time: own_start_time(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('.').map(str::to_owned);
        Some(Self {
            boot: parts.next()?,
            namespace: parts.next()?,
            pid: parts.next()?.parse().ok()?,
            start_time: parts.next()?.parse().ok()?,
        })
    }

    /// When in doubt, false.
    fn is_gone(&self, engine: &ContainerEngine) -> bool {
        if self.boot != boot_id() {
            // Another boot: of this machine's past if the engine is local, otherwise maybe of another machine.
            return engine.location() == EngineLocation::Local;
        }
        self.namespace == pid_namespace() && process_start_time(self.pid) != Some(self.start_time)
    }
}

impl std::fmt::Display for WorkerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            boot,
            namespace,
            pid,
            start_time,
        } = self;
        write!(f, "{boot}.{namespace}.{pid}.{start_time}")
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digits = link.to_string_lossy();
    digits.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_known_by_its_label() {
        let this = WorkerIdentity::current();
        assert!(WorkerIdentity::parse(&this.to_string()).is_some_and(|it| it == this));
        assert!(WorkerIdentity::parse("x.y.z").is_none());
        assert!(process_start_time(this.pid) == Some(this.start_time));
    }
}
