//! Limits by control groups, version 1 or 2, where this process may write them.
//!
//! The shim steps into the groups, starts the instance there, and steps out again: the limits are the instance's, and it is not
//! the shim that is killed for want of memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use shipway_core::target::Limits;

const ROOT: &str = "/sys/fs/cgroup";
/// Groups of ours are in this one.
const OURS: &str = "shipway";
/// The period that a share of a core is counted in, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The groups of one instance.
#[derive(Default)]
pub(super) struct Groups(Vec<Group>);

struct Group {
    /// The instance's.
    folder: PathBuf,
    /// The one that the shim was in before.
    before: PathBuf,
}

impl Groups {
    /// Puts the calling process, and so what it starts from now on, under the limits. The error says what is not enforced.
    pub(super) fn enter(name: &str, limits: &Limits) -> (Self, Result<(), String>) {
        let mut groups = Self::default();
        let unified = Path::new(ROOT).join("cgroup.controllers").exists();
        let result = if *limits == Limits::default() {
            Ok(())
        } else if unified {
            groups.enter_unified(name, limits)
        } else {
            groups.enter_separate(name, limits)
        };
        (groups, result)
    }

    fn enter_unified(&mut self, name: &str, limits: &Limits) -> Result<(), String> {
        let ours = Path::new(ROOT).join(OURS);
        let folder = ours.join(name);
        fs::create_dir_all(&folder).map_err(not_enforced("resource"))?;
        for parent in [Path::new(ROOT), &ours] {
            // Refused where they are on already or aren't ours to give: writing the limits shows it.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +cpu");
        }
        if let Some(bytes) = limits.memory_bytes {
            write(&folder, "memory.max", bytes).map_err(not_enforced("memory"))?;
        }
        if let Some(quota) = quota(limits) {
            write(&folder, "cpu.max", format!("{quota} {PERIOD_US}"))
                .map_err(not_enforced("cpu"))?;
        }
        self.join("", folder).map_err(not_enforced("resource"))
    }

    fn enter_separate(&mut self, name: &str, limits: &Limits) -> Result<(), String> {
        if let Some(bytes) = limits.memory_bytes {
            let folder = make("memory", name).map_err(not_enforced("memory"))?;
            write(&folder, "memory.limit_in_bytes", bytes).map_err(not_enforced("memory"))?;
            self.join("memory", folder)
                .map_err(not_enforced("memory"))?;
        }
        if let Some(quota) = quota(limits) {
            let folder = make("cpu", name).map_err(not_enforced("cpu"))?;
            write(&folder, "cpu.cfs_period_us", PERIOD_US)
                .and_then(|()| write(&folder, "cpu.cfs_quota_us", quota))
                .map_err(not_enforced("cpu"))?;
            self.join("cpu", folder).map_err(not_enforced("cpu"))?;
        }
        Ok(())
    }

    fn join(&mut self, controller: &str, folder: PathBuf) -> io::Result<()> {
        let before = current(controller)?;
        write(&folder, "cgroup.procs", std::process::id())?;
        self.0.push(Group { folder, before });
        Ok(())
    }

    /// Puts the calling process back where it was; what it has started stays.
    pub(super) fn step_out(&self) {
        for group in &self.0 {
            // Staying inside costs the instance two megabytes of its limit.
            let _ = write(&group.before, "cgroup.procs", std::process::id());
        }
    }

    /// Whether something in the groups was killed for want of memory.
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

/// Removes the groups of an instance that has ended. Those that aren't there, or aren't empty yet, are left.
pub(super) fn remove(name: &str) {
    for controller in ["", "memory", "cpu"] {
        let _ = fs::remove_dir(Path::new(ROOT).join(controller).join(OURS).join(name));
    }
}

fn quota(limits: &Limits) -> Option<u64> {
    // The kernel refuses less than a millisecond.
    let of_period = |millis| (u64::from(millis) * PERIOD_US / 1_000).max(1_000);
    limits.cpu_millis.map(of_period)
}

fn not_enforced(what: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("the {what} limit is not enforced: {error}")
}

fn make(controller: &str, name: &str) -> io::Result<PathBuf> {
    let folder = Path::new(ROOT).join(controller).join(OURS).join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn write(folder: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    fs::write(folder.join(file), value.to_string())
}

/// The group that the calling process is in, for a controller; "" is version 2.
fn current(controller: &str) -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = path_of(&text, controller).unwrap_or("/");
    Ok(Path::new(ROOT)
        .join(controller)
        .join(path.trim_start_matches('/')))
}

/// The path in a `/proc/PID/cgroup`: lines of `number:controllers:path`.
fn path_of<'t>(text: &'t str, controller: &str) -> Option<&'t str> {
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
        assert_eq!(path_of(first, "memory"), Some("/user/a:b"));
        assert_eq!(path_of(first, "cpu"), Some("/"));
        assert_eq!(path_of(first, ""), None);
        assert_eq!(path_of("0::/system.slice\n", ""), Some("/system.slice"));
    }
}
