//! Limits by control groups, version 1 or 2, where this process may write them.

use std::{fs, io, path::PathBuf};

use shipway_core::target::Limits;

const ROOT: &str = "/sys/fs/cgroup";
/// The period that a share of a core is counted in, in microseconds.
const PERIOD_US: u64 = 100_000;

/// Puts the calling process, and so what it starts, under the limits. The error says what is not enforced.
pub(super) fn enter(name: &str, limits: &Limits) -> Result<(), String> {
    let pid = std::process::id().to_string();
    let quota = limits
        .cpu_millis
        .map(|millis| u64::from(millis) * PERIOD_US / 1_000);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("the {what} limit is not enforced: {error}")
    };
    if PathBuf::from(ROOT).join("cgroup.controllers").exists() {
        let group = PathBuf::from(ROOT).join("shipway").join(name);
        fs::create_dir_all(&group).map_err(failed("resource"))?;
        if let Some(bytes) = limits.memory_bytes {
            fs::write(group.join("memory.max"), bytes.to_string()).map_err(failed("memory"))?;
        }
        if let Some(quota) = quota {
            fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_US}"))
                .map_err(failed("cpu"))?;
        }
        return fs::write(group.join("cgroup.procs"), &pid).map_err(failed("resource"));
    }
    if let Some(bytes) = limits.memory_bytes {
        let group = PathBuf::from(ROOT).join("memory/shipway").join(name);
        fs::create_dir_all(&group)
            .and_then(|()| fs::write(group.join("memory.limit_in_bytes"), bytes.to_string()))
            .map_err(failed("memory"))?;
        fs::write(group.join("cgroup.procs"), &pid).map_err(failed("memory"))?;
    }
    if let Some(quota) = quota {
        let group = PathBuf::from(ROOT).join("cpu/shipway").join(name);
        fs::create_dir_all(&group)
            .and_then(|()| fs::write(group.join("cpu.cfs_quota_us"), quota.to_string()))
            .map_err(failed("cpu"))?;
        fs::write(group.join("cgroup.procs"), &pid).map_err(failed("cpu"))?;
    }
    Ok(())
}

/// Removes the groups of an instance that has ended; those that aren't there, or aren't empty yet, are left.
pub(super) fn leave(name: &str) {
    for controller in ["", "memory", "cpu"] {
        let _ = fs::remove_dir(
            PathBuf::from(ROOT)
                .join(controller)
                .join("shipway")
                .join(name),
        );
    }
}
