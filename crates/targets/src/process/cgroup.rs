//! Resource limits by control groups, version 1 or 2, if this process may write them.
//!
//! The shim enters the groups, starts the instance and leaves again: the limits apply to the instance, and the OOM killer
//! doesn't kill the shim.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use shipway_core::target::{InstanceId, ResourceLimits};

const ROOT: &str = "/sys/fs/cgroup";
/// Parent of all groups of Shipway.
const PARENT_GROUP: &str = "shipway";
/// Period of the CPU quota, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The groups that the shim has joined for an instance.
#[derive(Default)]
pub(super) struct CgroupSet(Vec<JoinedCgroup>);

struct JoinedCgroup {
    /// The instance's group.
    folder: PathBuf,
    /// The shim's previous group.
    before: PathBuf,
}

impl CgroupSet {
    /// Moves the calling process, and thereby the processes it starts, into groups with these limits. The error tells which
    /// limit is not enforced.
    pub(super) fn enter(
        name: &str,
        limits: &ResourceLimits,
    ) -> (Self, Result<(), LimitNotEnforced>) {
        let (made, mut result) = create_cgroups(name, limits);
        let mut groups = Self::default();
        for (controller, folder) in made {
            let joined = groups.join_cgroup(controller.name(), folder);
            result = result.and(joined.map_err(not_enforced(controller.limit_name())));
        }
        (groups, result)
    }

    fn join_cgroup(&mut self, controller: &str, folder: PathBuf) -> io::Result<()> {
        let before = current_cgroup(controller)?;
        write_value(&folder, "cgroup.procs", std::process::id())?;
        self.0.push(JoinedCgroup { folder, before });
        Ok(())
    }

    /// Moves the calling process back; its children stay in the groups.
    pub(super) fn leave(&self) {
        for group in &self.0 {
            // In the group the shim would use two megabytes of the instance's limit.
            let _ = write_value(&group.before, "cgroup.procs", std::process::id());
        }
    }

    /// Whether the OOM killer killed a process in the groups.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let files = self.0.iter().flat_map(|group| {
            ["memory.events", "memory.oom_control"].map(|name| group.folder.join(name))
        });
        let kills = |text: String| {
            text.lines()
                .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        };
        files
            .filter_map(|file| fs::read_to_string(file).ok())
            .filter_map(kills)
            .any(|kills| kills > 0)
    }
}

/// A cgroup controller. Version 2 has one hierarchy for all.
#[derive(Clone, Copy)]
enum CgroupController {
    Unified,
    Memory,
    Cpu,
    Processes,
}

impl CgroupController {
    const ALL: [Self; 4] = [Self::Unified, Self::Memory, Self::Cpu, Self::Processes];

    const fn name(self) -> &'static str {
        match self {
            Self::Unified => "",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "pids",
        }
    }

    const fn limit_name(self) -> &'static str {
        match self {
            Self::Unified => "resource",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Processes => "process",
        }
    }

    fn parent_folder(self) -> PathBuf {
        Path::new(ROOT).join(self.name()).join(PARENT_GROUP)
    }
}

type CreatedCgroup = (CgroupController, PathBuf);

/// Creates empty groups that enforce `limits`. The error tells which limit is not enforced.
fn create_cgroups(
    name: &str,
    limits: &ResourceLimits,
) -> (Vec<CreatedCgroup>, Result<(), LimitNotEnforced>) {
    let mut made = Vec::new();
    let unified = Path::new(ROOT).join("cgroup.controllers").exists();
    let result = if *limits == ResourceLimits::default() {
        Ok(())
    } else if unified {
        create_unified(name, limits, &mut made)
    } else {
        create_per_controller(name, limits, &mut made)
    };
    (made, result)
}

fn create_unified(
    name: &str,
    limits: &ResourceLimits,
    made: &mut Vec<CreatedCgroup>,
) -> Result<(), LimitNotEnforced> {
    let ours = CgroupController::Unified.parent_folder();
    let folder = ours.join(name);
    fs::create_dir_all(&folder).map_err(not_enforced(CgroupController::Unified.limit_name()))?;
    made.push((CgroupController::Unified, folder.clone()));
    for parent in [Path::new(ROOT), &ours] {
        // Fails if they are enabled already or not delegated; writing the limits shows which.
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +cpu +pids");
    }
    for (controller, file, value) in [
        (
            CgroupController::Memory,
            "memory.max",
            limits.memory_bytes.map(|it| it.to_string()),
        ),
        (
            CgroupController::Cpu,
            "cpu.max",
            cpu_quota_us(limits).map(|it| format!("{it} {PERIOD_US}")),
        ),
        (
            CgroupController::Processes,
            "pids.max",
            limits.processes.map(|it| it.to_string()),
        ),
    ] {
        if let Some(value) = value {
            write_value(&folder, file, value).map_err(not_enforced(controller.limit_name()))?;
        }
    }
    Ok(())
}

fn create_per_controller(
    name: &str,
    limits: &ResourceLimits,
    made: &mut Vec<CreatedCgroup>,
) -> Result<(), LimitNotEnforced> {
    let mut group = |controller: CgroupController, values: &[(&str, u64)]| {
        let folder = controller.parent_folder().join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| {
                made.push((controller, folder.clone()));
                values
                    .iter()
                    .try_for_each(|(file, value)| write_value(&folder, file, value))
            })
            .map_err(not_enforced(controller.limit_name()))
    };
    if let Some(bytes) = limits.memory_bytes {
        group(
            CgroupController::Memory,
            &[("memory.limit_in_bytes", bytes)],
        )?;
    }
    if let Some(quota) = cpu_quota_us(limits) {
        group(
            CgroupController::Cpu,
            &[
                ("cpu.cfs_period_us", PERIOD_US),
                ("cpu.cfs_quota_us", quota),
            ],
        )?;
    }
    if let Some(count) = limits.processes {
        group(CgroupController::Processes, &[("pids.max", count.into())])?;
    }
    Ok(())
}

/// The group of an instance. The hash of its folder keeps servers of one machine apart that run services of the same name.
pub(super) fn instance_group(id: &InstanceId, folder: &Path) -> String {
    format!("{id}-{}", short_hash(folder))
}

/// A short hash that distinguishes folders.
pub fn short_hash(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    hash.iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Creates groups that another process joins by writing to their `cgroup.procs`. The error tells which limit is not enforced.
pub fn create_for_process(
    name: &str,
    limits: &ResourceLimits,
) -> (Vec<PathBuf>, Result<(), LimitNotEnforced>) {
    let (made, result) = create_cgroups(name, limits);
    (made.into_iter().map(|(_, folder)| folder).collect(), result)
}

/// Removes the groups of a process that has exited. Missing or non-empty groups are skipped.
pub fn remove_cgroups(name: &str) {
    for controller in CgroupController::ALL {
        let _ = fs::remove_dir(controller.parent_folder().join(name));
    }
}

/// Removes all empty groups whose names start with `prefix`.
pub fn remove_empty_cgroups(prefix: &str) {
    for controller in CgroupController::ALL {
        let left = fs::read_dir(controller.parent_folder())
            .into_iter()
            .flatten()
            .flatten();
        for group in left.filter(|it| it.file_name().to_string_lossy().starts_with(prefix)) {
            let _ = fs::remove_dir(group.path());
        }
    }
}

fn cpu_quota_us(limits: &ResourceLimits) -> Option<u64> {
    // The kernel rejects less than a millisecond.
    let of_period = |millis| (u64::from(millis) * PERIOD_US / 1_000).max(1_000);
    limits.cpu_millis.map(of_period)
}

/// A resource limit that the machine does not enforce.
#[derive(Debug, thiserror::Error)]
#[error("the {limit} limit is not enforced: {error}")]
pub struct LimitNotEnforced {
    limit: &'static str,
    error: io::Error,
}

fn not_enforced(limit: &'static str) -> impl FnOnce(io::Error) -> LimitNotEnforced {
    move |error| LimitNotEnforced { limit, error }
}

fn write_value(folder: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    fs::write(folder.join(file), value.to_string())
}

/// The group of the calling process, for a controller; "" is version 2.
fn current_cgroup(controller: &str) -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = cgroup_path(&text, controller).unwrap_or("/");
    Ok(Path::new(ROOT)
        .join(controller)
        .join(path.trim_start_matches('/')))
}

/// The path in a `/proc/PID/cgroup`: lines of `number:controllers:path`.
fn cgroup_path<'t>(text: &'t str, controller: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let named = parts.next()?.split(',').any(|it| it == controller);
        parts.next().filter(|_| named)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_controller_is_found_in_both_versions() {
        let first = "4:memory:/user/a:b\n3:cpu,cpuacct:/\n";
        assert_eq!(cgroup_path(first, "memory"), Some("/user/a:b"));
        assert_eq!(cgroup_path(first, "cpu"), Some("/"));
        assert_eq!(cgroup_path(first, ""), None);
        assert_eq!(cgroup_path("0::/system.slice\n", ""), Some("/system.slice"));
    }
}
