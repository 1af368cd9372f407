//! Runs one job of a workflow, as a process of its own: reads its spec, runs its steps, and writes down what happened so that
//! whoever started it may come and go.
//!
//! In the job's folder: `job.json` is what is to be done (read once, then removed: it holds secrets), `journal.jsonl` what
//! happened, `log` what was printed, `summaries/` what steps wrote for people, `workspace/`, `home/` and `temp/` what steps
//! work in, `artifacts/` what they keep, `kept.jsonl` what steps leave to later ones and nobody else is to see. A job that goes on
//! from an earlier attempt works in that one's folders.
//!
//! What it must never do: let a secret into a log, a journal or a summary; leave a process behind; lose a step's result; or
//! ask the server for leave to go on.

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
