//! Runs one job of a workflow, as a process of its own: reads its spec, runs its steps, and writes down what happened so that
//! whoever started it may come and go.
//!
//! In the job's folder: `job.json` is what is to be done (read once, then removed: it holds secrets), `journal.jsonl` what
//! happened, `log` what was printed, `summaries/` what steps wrote for people, `workspace/`, `home/` and `temp/` what steps
//! work in, `artifacts/` what they keep.
//!
//! What it must never do: let a secret into a log, a journal or a summary; leave a process behind; lose a step's result; or
//! ask the server for leave to go on.

mod actions;
mod annotation;
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
mod log;
mod mask;
mod matcher;
mod output;
mod process;
mod reports;
#[allow(
    dead_code,
    reason = "asked for by actions in JavaScript, which come next"
)]
mod runtime;
mod scope;
mod shell;
mod step;

pub use containers::remove_leftovers;
pub use job::{JOB_FILE, JOURNAL_FILE, LOG_FILE, run};
pub use journal::{Keeping, read_journal};
pub use mask::{MaskStream, Masker};
