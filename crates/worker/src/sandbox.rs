//! What a job must not see or touch of its machine: the server's files, and other processes (ADR 17).
//!
//! # How
//!
//! The worker moves into a mount namespace of its own, before it has threads. There the data directory is an empty file system
//! with only the job's own folders in it, and files with secrets are empty. Then the worker gives up, for itself and all its
//! steps, the capabilities that would undo this ([`DROPPED`]): no step can mount, unmount, enter another namespace, or look into
//! a process that has more capabilities (`/proc/PID/root`, `environ`, `mem` of the server). Landlock, where the kernel has it,
//! forbids the same once more, and to signal processes outside of the job.
//!
//! All else is as before: the same user, the same paths, the same tools. That is why it is no user of its own: jobs use what the
//! server's user has installed, often in a home that nobody else may enter.
//!
//! # Failure modes
//!
//! - Not root, or without the capability to mount (as in most containers): the job runs unprotected; the server says so when it
//!   starts, by [`can_isolate`].
//! - A kernel without Landlock: steps of root's jobs can signal other processes of root.
//! - Anything later: the job fails, as half of a sandbox hides what the job needs.
//!
//! # Limits
//!
//! Steps of root's jobs are root: they can open block devices, and a container engine's socket is as good as root. Whoever runs
//! code of strangers needs a machine for it.

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
use shipway_workflow::job::{JobSpec, SourceTree};

/// The newest interface of Landlock that is used; older kernels enforce what they know.
const LANDLOCK: ABI = ABI::V6;

/// Why a job is not isolated.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Only root may.
    #[error("only root can hide files from a job, and the server does not run as root")]
    NotRoot,
    /// No namespace can be made, or nothing be mounted in it.
    #[error("no mount namespace can be made here ({0}); in a container it needs CAP_SYS_ADMIN")]
    NoNamespace(io::Error),
    /// The capabilities that undo the sandbox can't be given up.
    #[error("capabilities can't be dropped here ({0})")]
    Capabilities(io::Error),
    /// The sandbox is half made.
    #[error("isolating the job: {what}: {source}")]
    Broken {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl SandboxError {
    /// Whether nothing has changed: the job can run unprotected.
    pub(crate) const fn is_harmless(&self) -> bool {
        match self {
            Self::NotRoot | Self::NoNamespace(_) => true,
            Self::Capabilities(_) | Self::Broken { .. } => false,
        }
    }
}

/// Whether jobs can be isolated on this machine.
pub fn can_isolate() -> Result<(), SandboxError> {
    // A thread has a namespace of its own, which ends with it.
    let probe = std::thread::spawn(|| {
        new_namespace()?;
        restrict()?;
        drop_capabilities()
    });
    let panicked = || SandboxError::Broken {
        what: "the probe".to_owned(),
        source: io::Error::other("panicked"),
    };
    probe.join().unwrap_or_else(|_| Err(panicked()))
}

/// Hides what the spec says from this process and all that it starts. Must be called before there are threads.
pub(crate) fn enter(spec: &JobSpec) -> Result<(), SandboxError> {
    if spec.hidden.is_empty() {
        return Ok(());
    }
    new_namespace()?;
    for hidden in &spec.hidden {
        let is_folder = fs::metadata(hidden).is_ok_and(|it| it.is_dir());
        let done = match is_folder {
            true => hide_folder(hidden, &needed_below(spec, hidden)),
            false => hide_file(hidden),
        };
        done.map_err(broken(hidden))?;
    }
    restrict()?;
    drop_capabilities()?;
    // It was in the folder that is hidden now.
    rustix::process::chdir(&spec.folder).map_err(|errno| broken(&spec.folder)(errno.into()))
}

fn broken(path: &Path) -> impl FnOnce(io::Error) -> SandboxError {
    let what = path.display().to_string();
    move |source| SandboxError::Broken { what, source }
}

fn new_namespace() -> Result<(), SandboxError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SandboxError::NotRoot);
    }
    #[expect(
        deprecated,
        reason = "its successor is unsafe for descriptors that threads share; files stay shared here"
    )]
    let unshared = rustix::thread::unshare(UnshareFlags::NEWNS);
    // What is mounted here stays here, and what is mounted outside comes in.
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    unshared
        .and_then(|()| mount_change("/", propagation))
        .map_err(|errno| SandboxError::NoNamespace(errno.into()))
}

/// A path below a hidden folder that the job needs.
struct Needed {
    path: PathBuf,
    is_read_only: bool,
}

fn needed_below(spec: &JobSpec, hidden: &Path) -> Vec<Needed> {
    let own = [spec.folder.clone()]
        .into_iter()
        .chain(earlier_attempts(spec));
    let shared = spec.caches.iter().chain(spec.actions.cache.as_ref());
    let artifacts = spec.artifacts.iter().map(|artifact| &artifact.path);
    let source = match &spec.source {
        SourceTree::Git { git_dir, .. } => git_dir,
        SourceTree::Directory { path } => path,
    };
    let as_needed = |is_read_only| move |path| Needed { path, is_read_only };
    let writable = own.chain(shared.cloned()).map(as_needed(false));
    let read_only = artifacts.chain([source]).cloned().map(as_needed(true));
    let all = writable.chain(read_only);
    all.filter(|needed| needed.path.starts_with(hidden))
        .collect()
}

/// Folders of earlier attempts at the job: it may go on in the workspace of any of them.
fn earlier_attempts(spec: &JobSpec) -> Vec<PathBuf> {
    let attempt_at = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split('@').next().unwrap_or_default().to_owned()
    };
    let Some(folder) = spec.folder.parent().filter(|_| spec.resume.is_some()) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| *path != spec.folder && attempt_at(path) == attempt_at(&spec.folder))
        .collect()
}

/// Puts an empty file system over a folder, with what the job needs at its old paths.
fn hide_folder(folder: &Path, needed: &[Needed]) -> io::Result<()> {
    // Opened before it is hidden: the mounts are made from here.
    let mut open: Vec<(OwnedFd, &Needed)> = Vec::new();
    for needed in needed {
        if !needed.is_read_only {
            fs::create_dir_all(&needed.path)?;
        }
        let opened = rustix::fs::open(&needed.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        match opened {
            Ok(fd) => open.push((fd, needed)),
            // The step that asks for it says that it is missing.
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
    // Nothing that is written beside the job's own folders is kept: it is refused.
    Ok(mount_remount(folder, flags | MountFlags::RDONLY, "")?)
}

/// Puts the empty device over a file.
fn hide_file(file: &Path) -> io::Result<()> {
    match mount_bind("/dev/null", file) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

/// What undoes the sandbox: mounts and namespaces (`SYS_ADMIN`), other processes (`SYS_PTRACE`, `PERFMON`, `BPF`,
/// `CHECKPOINT_RESTORE`), files by their handle instead of their path (`DAC_READ_SEARCH`), the kernel's and the machine's memory
/// (`SYS_MODULE`, `SYS_RAWIO`).
const DROPPED: [CapabilitySet; 8] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::PERFMON,
    CapabilitySet::BPF,
    CapabilitySet::CHECKPOINT_RESTORE,
    CapabilitySet::DAC_READ_SEARCH,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
];

/// Gives up [`DROPPED`] for this thread and all that it starts, programs of root included.
fn drop_capabilities() -> Result<(), SandboxError> {
    let failed = |errno: rustix::io::Errno| SandboxError::Capabilities(errno.into());
    let mut sets = capabilities(None).map_err(failed)?;
    for dropped in DROPPED {
        // An old kernel doesn't know all of them: what it doesn't know, nothing can use.
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

/// Forbids with Landlock what would undo the sandbox, and to reach other processes; nothing where the kernel has no Landlock.
fn restrict() -> Result<(), SandboxError> {
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
            // `sudo` and `su` go on working; root needs no promise.
            .no_new_privs(false)
            .add_rule(PathBeneath::new(root, all))?
            .restrict_self()
    };
    restricted()
        .map(drop)
        .map_err(|error: landlock::RulesetError| failed(error.into()))
}
