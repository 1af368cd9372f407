//! The process target: instances are processes on this machine, each under a small shim that outlives the server.
//!
//! A set is a folder `instances/{service}.{environment}.{release}`:
//!
//! ```text
//! set.json            launch and count of the set (no secrets)
//! app/                the unpacked artifact; the working directory of all instances
//! app.unpacked        written after unpacking: newer files were written by instances
//! 1/home, 1/tmp       HOME and TMPDIR of the instance in slot 1
//! 1/runs.json         shim and instance in slot 1, by pid and start time; address
//! 1/ready             present while the instance is ready
//! 1/ended.json        how the last run ended
//! 1/availability.json since when the instance has been ready or not, and earlier totals
//! 1/log, log.1, log.2 output of the instance
//! 1/slot.lock         held by the shim
//! ```
//!
//! # Why shims
//!
//! Instances must survive a restart of the server. The shim is the parent that collects the output and the exit status
//! meanwhile.
//!
//! # Invariants
//!
//! - A slot has at most one instance: its shim holds `slot.lock`.
//! - Every running instance is supervised: opening the target finds what runs and resumes its supervision.
//! - Secrets are never written to disk.
//!
//! # Failure modes
//!
//! - The server is killed: shims and instances run on; the next server resumes.
//! - A shim is killed: its instance is found by its session and killed before the slot is started again.

mod artifact;
mod availability;
pub mod cgroup;
mod command;
mod crash_loop;
mod environment;
mod exit_watcher;
mod instance;
mod instance_log;
mod ports;
mod probe_history;
mod process_target;
mod shell_command;
pub mod shim;
mod target_state;

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::{ids::Digest, target::ReplicaSetKey};
use shipway_engine::{BlobError, Reader};

pub use process_target::{ProcessTarget, ProcessTargetOptions};

/// Source of artifacts.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// Opens an artifact, a tar archive.
    async fn open(&self, digest: &Digest) -> Result<Reader, BlobError>;
}

/// Returns the value of a secret for the instances of a release, if it is set.
pub type SecretResolver = Arc<dyn Fn(&ReplicaSetKey, &str) -> Option<String> + Send + Sync>;
