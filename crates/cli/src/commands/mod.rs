//! One file for each group of commands. A command parses, asks, prints; it decides nothing.

pub mod accounts;
pub mod admin;
pub mod check;
pub mod delete;
pub mod delivery_lists;
pub mod demo;
pub mod deploy;
mod deploy_outcome;
pub mod env;
pub mod eval;
pub mod forges;
mod gate_decisions;
pub mod history;
pub mod id_args;
pub mod init;
mod install_files;
pub mod internal;
pub mod logs;
pub mod notify;
mod plot;
pub mod prune;
pub mod rollout_actions;
mod rollout_line;
pub mod run;
pub mod runs;
pub mod secret;
pub mod server;
mod service_logs;
pub mod shell;
pub mod simulate;
pub mod status;
pub mod test_results;
mod value_scope;
pub mod watch;

/// The default number of parallel jobs: two per core, because jobs often wait for the disk; at least four.
#[must_use]
pub fn jobs_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).max(4)
}
