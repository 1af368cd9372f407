//! The limit of open files. A server and a proxy hold a file for each connection, instance, job and log: they raise their soft limit,
//! 1,024 on most machines, to the hard one.
//!
//! Programs of users keep the soft limit that Shipway was started with: those that use `select()` break with files above 1,024, and
//! some close every file up to the limit when they start.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The limit that this process was started with, once it has been raised.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's soft limit of open files to the hard one. Where that is refused the limit stays as it is.
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

/// Gives a child the soft limit back that this process was started with. A child that has ended already needs none.
pub(crate) fn restore_limit(child: Option<u32>) {
    let pid = child
        .and_then(|it| i32::try_from(it).ok())
        .and_then(Pid::from_raw);
    if let (Some(pid), Some(original)) = (pid, ORIGINAL.get()) {
        let _ = prlimit(Some(pid), Resource::Nofile, *original);
    }
}
