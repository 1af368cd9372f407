//! Isolates a job from the server's files and from other processes of the machine (ADR 17).
//!
//! # How
//!
//! The worker enters a mount namespace before it starts threads. There the data directory is an empty tmpfs that
//! contains only the job's own folders, and files with secrets are empty. Then the worker drops, for itself and all
//! its steps, the capabilities that could undo this ([`DROPPED_CAPABILITIES`]): no step can mount, unmount, enter
//! another namespace, or read a process with more capabilities (`/proc/PID/root`, `environ`, `mem` of the server).
//! Landlock, if the kernel supports it, forbids the same again, and to signal processes outside of the job.
//!
//! User, paths and tools stay the same. There is no separate user, because jobs use what the server's user has
//! installed, often in a home folder that other users can't enter.
//!
//! # Failure modes
//!
//! - Not root, or no CAP_SYS_ADMIN (as in most containers): the job runs unprotected; the server reports this at
//!   startup, see [`can_isolate`].
//! - Kernel without Landlock: steps of a job that runs as root can signal other processes of root.
//! - Any later error: the job fails, because a partial sandbox hides folders that the job needs.
//!
//! # Limits
//!
//! Steps of a job that runs as root are root: they can open block devices, and access to the socket of a container
//! engine is equivalent to root. Untrusted code needs a machine of its own.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::{
    fs::{Mode, OFlags},
    mount::{
        MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
        mount_remount,
    },
    thread::{
        CapabilitySet, UnshareFlags, capabilities, remove_capability_from_bounding_set,
        set_capabilities,
    },
};
use shipway_workflow::job::JobSpec;

/// The newest Landlock ABI in use; older kernels enforce what they support.
const LANDLOCK: ABI = ABI::V6;

/// Why a job is not isolated.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The server doesn't run as root.
    #[error("only root can hide files from a job, and the server does not run as root")]
    NotRoot,
    /// Creating the namespace or changing mount propagation failed.
    #[error("no mount namespace can be made here ({0}); in a container it needs CAP_SYS_ADMIN")]
    NoNamespace(io::Error),
    /// A capability could not be dropped.
    #[error("capabilities can't be dropped here ({0})")]
    Capabilities(io::Error),
    /// Setting up the sandbox failed halfway.
    #[error("isolating the job: {what}: {source}")]
    Broken {
        /// The path or feature that failed.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl SandboxError {
    /// Whether the process is unchanged, so that the job can run unprotected.
    pub(crate) const fn is_harmless(&self) -> bool {
        match self {
            Self::NotRoot | Self::NoNamespace(_) => true,
            Self::Capabilities(_) | Self::Broken { .. } => false,
        }
    }
}

/// Checks whether jobs can be isolated on this machine.
pub fn can_isolate() -> Result<(), SandboxError> {
    // In a thread, whose namespace ends with it.
    let probe = std::thread::spawn(|| {
        enter_namespace()?;
        restrict_with_landlock()?;
        drop_capabilities()
    });
    let panicked = || SandboxError::Broken {
        what: "the probe".to_owned(),
        source: io::Error::other("panicked"),
    };
    probe.join().unwrap_or_else(|_| Err(panicked()))
}

/// Hides the files that the spec lists from this process and its children. Must be called before threads are started.
pub(crate) fn enter_sandbox(spec: &JobSpec) -> Result<(), SandboxError> {
    if spec.mounts.hidden.is_empty() {
        return Ok(());
    }
    enter_namespace()?;
    for hidden in &spec.mounts.hidden {
        let is_folder = fs::metadata(hidden).is_ok_and(|it| it.is_dir());
        let done = match is_folder {
            true => hide_folder(hidden, &needed_below(spec, hidden)),
            false => hide_file(hidden),
        };
        done.map_err(broken_at(hidden))?;
    }
    restrict_with_landlock()?;
    drop_capabilities()?;
    // The working directory may be in a folder that is hidden now.
    rustix::process::chdir(&spec.mounts.folder)
        .map_err(|errno| broken_at(&spec.mounts.folder)(errno.into()))
}

fn broken_at(path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    let what = path.display().to_string();
    move |source| SandboxError::Broken { what, source }
}

fn enter_namespace() -> Result<(), SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SandboxError::NotRoot);
    }
    #[expect(
        deprecated,
        reason = "its successor is unsafe for descriptors that threads share; files stay shared here"
    )]
    let unshared = rustix::thread::unshare(UnshareFlags::NEWNS);
    // Mounts made here are not propagated; mounts made outside are received.
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    unshared
        .and_then(|()| mount_change("/", propagation))
        .map_err(|errno| SandboxError::NoNamespace(errno.into()))
}

/// A path in a hidden folder that the job needs.
struct NeededPath {
    path: PathBuf,
    is_read_only: bool,
}

fn needed_below(spec: &JobSpec, hidden: &Path) -> Vec<NeededPath> {
    let own = [spec.mounts.folder.clone()]
        .into_iter()
        .chain(earlier_attempts(spec));
    let shared = spec.mounts.caches.iter().chain(spec.actions.cache.as_ref());
    let artifacts = spec.mounts.artifacts.values();
    let as_needed = |is_read_only| move |path| NeededPath { path, is_read_only };
    let writable = own.chain(shared.cloned()).map(as_needed(false));
    let read_only = artifacts
        .chain([&spec.mounts.source])
        .cloned()
        .map(as_needed(true));
    let all = writable.chain(read_only);
    all.filter(|needed| needed.path.starts_with(hidden))
        .collect()
}

/// The folders of earlier attempts at the job, in one of which it may be resumed.
fn earlier_attempts(spec: &JobSpec) -> Vec<PathBuf> {
    let attempt_at = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split('@').next().unwrap_or_default().to_owned()
    };
    let Some(folder) = spec
        .mounts
        .folder
        .parent()
        .filter(|_| spec.resume.is_some())
    else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            *path != spec.mounts.folder && attempt_at(path) == attempt_at(&spec.mounts.folder)
        })
        .collect()
}

/// Mounts an empty tmpfs over a folder, with the needed paths mounted into it.
fn hide_folder(folder: &Path, needed: &[NeededPath]) -> io::Result<()> {
    // Open the paths before the tmpfs hides them: the bind mounts are made from the descriptors.
    let mut open: Vec<(OwnedFd, &NeededPath)> = Vec::new();
    for needed in needed {
        if !needed.is_read_only {
            fs::create_dir_all(&needed.path)?;
        }
        let opened = rustix::fs::open(&needed.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        match opened {
            Ok(fd) => open.push((fd, needed)),
            // A missing path is reported by the step that needs it.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", folder, "tmpfs", flags, c"mode=0755,size=1m")?;
    for (fd, needed) in &open {
        let is_folder = rustix::fs::fstat(fd)
            .map(|it| rustix::fs::FileType::from_raw_mode(it.st_mode).is_dir())?;
        match is_folder {
            true => fs::create_dir_all(&needed.path)?,
            false => {
                fs::create_dir_all(needed.path.parent().unwrap_or(folder))?;
                fs::File::create(&needed.path).map(drop)?;
            }
        }
        let from = format!("/proc/self/fd/{}", fd.as_raw_fd());
        mount_bind_recursive(from.as_str(), &needed.path)?;
        if needed.is_read_only {
            mount_remount(&needed.path, MountFlags::BIND | MountFlags::RDONLY, "")?;
        }
    }
    // Read-only: writes next to the job's folders fail instead of being lost.
    Ok(mount_remount(folder, flags | MountFlags::RDONLY, "")?)
}

/// Mounts `/dev/null` over a file.
fn hide_file(file: &Path) -> io::Result<()> {
    match mount_bind("/dev/null", file) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

/// Capabilities that could undo the sandbox: mounts and namespaces (`SYS_ADMIN`), other processes (`SYS_PTRACE`,
/// `PERFMON`, `BPF`, `CHECKPOINT_RESTORE`), opening files by handle (`DAC_READ_SEARCH`), memory of the kernel and the
/// machine (`SYS_MODULE`, `SYS_RAWIO`).
const DROPPED_CAPABILITIES: [CapabilitySet; 8] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::PERFMON,
    CapabilitySet::BPF,
    CapabilitySet::CHECKPOINT_RESTORE,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
];

/// Drops [`DROPPED_CAPABILITIES`] for this thread and its children, including setuid programs.
fn drop_capabilities() -> Result<(), SandboxError> {
    let failed = |errno: rustix::io::Errno| SandboxError::Capabilities(errno.into());
    let mut sets = capabilities(None).map_err(failed)?;
    for dropped in DROPPED_CAPABILITIES {
        // EINVAL: an old kernel doesn't know the capability, so it can't be used.
        match remove_capability_from_bounding_set(dropped) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(failed(errno)),
        }
        sets.effective.remove(dropped);
        sets.permitted.remove(dropped);
        sets.inheritable.remove(dropped);
    }
    set_capabilities(None, sets).map_err(failed)
}

/// Forbids with Landlock to undo the sandbox and to access other processes. No effect on kernels without Landlock.
fn restrict_with_landlock() -> Result<(), SandboxError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| SandboxError::Broken {
        what: "Landlock".to_owned(),
        source: io::Error::other(error),
    };
    let root = PathFd::new("/").map_err(|error| failed(error.into()))?;
    let restricted = || {
        let all = AccessFs::from_all(LANDLOCK);
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .scope(Scope::Signal)?
            .create()?
            // `no_new_privs` would break `sudo` and `su`; root doesn't need it for Landlock.
            .no_new_privs(false)
            .add_rule(PathBeneath::new(root, all))?
            .restrict_self()
    };
    restricted()
        .map(drop)
        .map_err(|error: landlock::RulesetError| failed(error.into()))
}
