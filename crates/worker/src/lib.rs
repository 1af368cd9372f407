//! Runs one job of a workflow, as a process of its own: reads its spec, runs its steps, and writes down what happened so that
//! whoever started it may come and go.
//!
//! What it must never do: let a secret into a log, a journal or a summary; leave a process behind; or lose a step's result.

mod actions;
mod command;
mod environment;
mod exec;
mod files;
mod hash;
mod job;
mod journal;
mod log;
mod mask;
mod process;

pub use job::{JOB_FILE, JOURNAL_FILE, LOG_FILE, run};
pub use journal::read_journal;
pub use mask::Masker;
