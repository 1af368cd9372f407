//! Effects carried out: process target, checks, metrics, git, notifications.

pub mod atomic_file;
pub mod checks;
pub mod data_plane;
pub mod git;
mod http_client;
pub mod jobs;
pub mod metrics;
pub mod notify;
pub mod open_files;
pub mod peer;
pub mod process;
pub mod reusable_workflows;
pub mod secret_expansion;
mod stop_all;
pub mod tail;
pub mod target;

pub use stop_all::{StoppedProcesses, stop_all};
