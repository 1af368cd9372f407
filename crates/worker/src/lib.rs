//! Runs one job of a workflow in its own process: reads the job's spec, runs its steps and writes a journal, so that
//! the server may restart meanwhile.
//!
//! # The job's folder
//!
//! - `job.json`: the spec; removed after reading, because it contains secrets
//! - `journal.jsonl`: what happened, for the server
//! - `log`: what the steps printed
//! - `summaries/`: step summaries
//! - `workspace/`, `home/`, `temp/`: the folders that steps work in; a resumed job uses those of the previous attempt
//! - `artifacts/`: stored artifacts
//! - `kept.jsonl`: state for resuming the job; private to the worker
//!
//! # Invariants
//!
//! - No secret gets into a log, a journal or a summary.
//! - No process outlives its job.
//! - A step's result is on disk before the next step starts.
//! - The job never waits for the server.

mod actions;
mod annotation;
mod artifact_links;
mod background;
mod cache;
mod cancel;
mod channel;
mod command;
mod confine;
mod containers;
mod environment;
mod exec;
mod files;
pub mod forge;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod glob;
mod hand;
mod hash;
mod job;
mod journal;
mod kept;
mod log;
mod mask;
mod matcher;
mod output;
mod past;
mod process;
mod reports;
mod resume;
mod runtime;
mod sandbox;
mod scope;
mod shell;
mod stand;
mod step;
mod tools;

pub use artifact_links::{EntryError, check_entry};
pub use containers::remove_leftovers;
pub use job::{JOB_FILE, JOURNAL_FILE, LOG_FILE, run};
pub use journal::{Keeping, read_journal};
pub use kept::KEPT_FILE;
pub use mask::{MaskStream, Masker};
pub use past::{Lost, Standing, look_back};
pub use sandbox::{SandboxError, can_isolate};
pub use stand::{Secrets, Stand, stand};
