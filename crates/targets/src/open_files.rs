//! The limit of open files (RLIMIT_NOFILE). A server and a proxy hold a file for each connection, instance, job and log: they
//! raise their soft limit, 1,024 on most machines, to the hard limit.
//!
//! Programs of users keep the original soft limit: those that use `select()` break with descriptors above 1,024, and some close
//! every descriptor up to the limit at startup.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The original limit, set once it was raised.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of this process to the hard one. If that fails the limit stays as it is.
pub fn raise_limit() {
    let original = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: original.maximum,
        maximum: original.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            let _ = ORIGINAL.set(original);
        }
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

/// Restores the original soft limit for a child process. A child that has exited needs none.
pub fn restore_limit(child: Option<u32>) {
    let pid = child
        .and_then(|it| i32::try_from(it).ok())
        .and_then(Pid::from_raw);
    if let (Some(pid), Some(original)) = (pid, ORIGINAL.get()) {
        let _ = prlimit(Some(pid), Resource::Nofile, *original);
    }
}
