//! Effects carried out: process target, checks, metrics, git, notifications.

mod agent;
pub mod called;
pub mod checks;
pub mod data_plane;
pub mod expand;
pub mod git;
pub mod jobs;
pub mod metrics;
pub mod notify;
pub mod open_files;
pub mod peer;
pub mod process;
mod stop_all;
pub mod tail;
pub mod target;
pub mod whole;

pub use stop_all::{Stopped, stop_all};
