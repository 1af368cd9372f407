//! What a job may use: the worker steps into the control groups that were made for it, and all that it starts is in them too.
//!
//! Must never fail a job: where the groups can't be entered, the job runs without, and its log says so.

use std::{cell::Cell, fs, path::PathBuf};

use shipway_workflow::job::JobLimits;

/// What makes the kernel, short of memory, take a step's process rather than the worker, which can tell what happened.
const STEPS_FIRST: &str = "500";

/// The limits of this job, in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confinement {
    limits: JobLimits,
    /// Processes that were killed for want of memory, as far as they have been told of.
    killed: Cell<u64>,
}

impl Confinement {
    /// Steps in. Also says what could not be done.
    pub(crate) fn enter(limits: &JobLimits) -> (Self, Option<String>) {
        let me = std::process::id().to_string();
        let refused = limits.groups.iter().find_map(|group| {
            let error = fs::write(group.join("cgroup.procs"), &me).err()?;
            Some(format!(
                "the job's limits are not enforced: {}: {error}",
                group.display()
            ))
        });
        let confinement = Self {
            limits: limits.clone(),
            killed: Cell::default(),
        };
        // What an earlier worker in this folder left is not this one's.
        confinement.ran_out_of_memory();
        (confinement, refused)
    }

    /// Whether something was killed for want of memory since this was last asked, in words.
    pub(crate) fn ran_out_of_memory(&self) -> Option<String> {
        let bytes = self.limits.memory_bytes?;
        let files = self.limits.groups.iter().flat_map(|group| {
            // Version 2 and version 1 of the kernel's interface.
            ["memory.events", "memory.oom_control"].map(|name| group.join(name))
        });
        let killed = files.filter_map(kills).max().unwrap_or(0);
        (killed > self.killed.replace(killed)).then(|| {
            let mebibytes = bytes >> 20;
            format!("the job ran out of memory: it may use {mebibytes} MiB (--job-memory)")
        })
    }

    /// What a container of this job is told: it is in its engine's groups, not in ours.
    pub(crate) fn of_container(limits: &JobLimits) -> Vec<String> {
        let memory = limits.memory_bytes.map(|it| format!("--memory={it}"));
        let cpu = limits
            .cpu_millis
            .map(|it| format!("--cpus={}", f64::from(it) / 1_000.0));
        let processes = limits.processes.map(|it| format!("--pids-limit={it}"));
        [memory, cpu, processes].into_iter().flatten().collect()
    }
}

/// Has the kernel, short of memory, look at this process first. Refused is fine: it is only a preference.
pub(crate) fn prefer_to_kill(pid: Option<u32>) {
    if let Some(pid) = pid {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), STEPS_FIRST);
    }
}

fn kills(file: PathBuf) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
