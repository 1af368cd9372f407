//! The process target: instances are processes on this machine, each under a small shim that outlives the server.
//!
//! A set is a folder `instances/{service}.{environment}.{release}`:
//!
//! ```text
//! set.json            what it was told: launch and count (no secrets)
//! app/                the artifact, unpacked once, whole; the working directory of all its instances
//! app.unpacked        written when that was done: files that are newer are the instances'
//! 1/home, 1/tmp       HOME and TMPDIR of the instance in slot 1
//! 1/runs.json         what runs in slot 1: shim and instance by pid and start time, address
//! 1/ready             there while it is ready
//! 1/ended.json        how the last run ended
//! 1/availability.json since when it has been ready, or not, and the totals before
//! 1/log, log.1, log.2 what it prints
//! 1/slot.lock         held by the shim
//! ```
//!
//! Opening the target finds what runs and goes on supervising it. It must never start a second instance in a slot, never let an
//! instance go on that nobody knows of, and never write a secret down.

mod artifact;
mod availability;
pub(crate) mod cgroup;
mod crash_loop;
mod environment;
mod exit_watcher;
mod instance;
mod instance_log;
mod ports;
mod probe_history;
mod process_target;
pub(crate) mod procfs;
mod shell_command;
pub mod shim;
mod target_state;

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::{ids::Digest, target::Place};
use shipway_engine::Reader;

pub use process_target::{ProcessTarget, ProcessTargetOptions};

/// Where artifacts come from.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// The bytes of an artifact, a tar; the error is a sentence.
    async fn open(&self, digest: &Digest) -> Result<Reader, String>;
}

/// The value of a secret for a place, if it is set.
pub type SecretResolver = Arc<dyn Fn(&Place, &str) -> Option<String> + Send + Sync>;
