//! Resource limits of a job: the worker moves itself into the control groups that the server made for the job, so all
//! its children are in them, too.
//!
//! A job never fails because of this: if the groups can't be entered, it runs without limits, with a warning.

use std::{cell::Cell, fs, path::PathBuf};

use shipway_workflow::job::JobResources;

/// `oom_score_adj` of steps: the OOM killer should take a step's process, not the worker, which reports what
/// happened.
const STEPS_FIRST: &str = "500";

#[derive(Clone, Debug, Default)]
pub(crate) struct CgroupLimits {
    limits: JobResources,
    /// Number of OOM kills reported so far.
    killed: Cell<u64>,
}

impl CgroupLimits {
    /// Moves this process into the job's control groups; also returns why a limit can't be enforced.
    pub(crate) fn enter(limits: &JobResources) -> (Self, Option<String>) {
        let me = std::process::id().to_string();
        let refused = limits.groups.iter().find_map(|group| {
            let error = fs::write(group.join("cgroup.procs"), &me).err()?;
            Some(format!(
                "the job's limits are not enforced: {}: {error}",
                group.display()
            ))
        });
        let cgroup_limits = Self {
            limits: limits.clone(),
            killed: Cell::default(),
        };
        // Discard the count of an earlier worker in this folder.
        cgroup_limits.take_oom_message();
        (cgroup_limits, refused)
    }

    /// A message if a process of the job was killed for lack of memory since the last call.
    pub(crate) fn take_oom_message(&self) -> Option<String> {
        let bytes = self.limits.memory_bytes?;
        let files = self.limits.groups.iter().flat_map(|group| {
            // cgroup v2 and v1.
            ["memory.events", "memory.oom_control"].map(|name| group.join(name))
        });
        let killed = files.filter_map(read_oom_kills).max().unwrap_or(0);
        (killed > self.killed.replace(killed)).then(|| {
            let mebibytes = bytes >> 20;
            format!("the job ran out of memory: it may use {mebibytes} MiB (--job-memory)")
        })
    }

    /// The arguments that limit a container: it runs in the engine's control groups, not in ours.
    pub(crate) fn container_arguments(limits: &JobResources) -> Vec<String> {
        let memory = limits.memory_bytes.map(|it| format!("--memory={it}"));
        let cpu = limits
            .cpu_millis
            .map(|it| format!("--cpus={}", f64::from(it) / 1_000.0));
        let processes = limits.processes.map(|it| format!("--pids-limit={it}"));
        [memory, cpu, processes].into_iter().flatten().collect()
    }
}

/// Makes the OOM killer prefer this process. Best effort.
pub(crate) fn prefer_for_oom_kill(pid: Option<u32>) {
    if let Some(pid) = pid {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), STEPS_FIRST);
    }
}

fn read_oom_kills(file: PathBuf) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
