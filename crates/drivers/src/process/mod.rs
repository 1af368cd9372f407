//! The process target: instances are processes on this machine, each under a small shim that outlives the server.
//!
//! A set is a folder `instances/{service}.{environment}.{release}` with what it was told (`set.json`), the unpacked artifact
//! (`app/`) and a folder for each slot. Opening the target finds what runs by pid and start time and goes on supervising it.

mod artifact;
mod cgroup;
mod instance;
pub(crate) mod proc;
pub mod shim;
mod target;

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::{ids::Digest, target::Place};
use shipway_engine::Reader;

pub use target::{Options, ProcessTarget};

/// Where artifacts come from.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// The bytes of an artifact, a tar; the error is a sentence.
    async fn open(&self, digest: &Digest) -> Result<Reader, String>;
}

/// The value of a secret for a place, if it is set.
pub type SecretResolver = Arc<dyn Fn(&Place, &str) -> Option<String> + Send + Sync>;
