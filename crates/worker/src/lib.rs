//! Runs one job of a workflow in its own process: reads the job's spec, runs its steps and writes a journal, so that
//! the server may restart meanwhile.
//!
//! # The job's folder
//!
//! - `job.json`: the spec; removed after reading, because it contains secrets
//! - `journal.jsonl`: events, for the server
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

mod action_runner;
mod action_stage;
mod actions;
mod annotation;
mod artifact_files;
mod artifact_links;
mod artifact_tar;
mod background_steps;
mod base_environment;
mod cache;
mod cancellation;
mod cgroup_limits;
mod command_file_parser;
mod command_files;
mod containers;
mod debug_shell;
mod environment;
mod expression_error;
mod file_hash;
pub mod forge;
#[doc(hidden)]
pub mod fuzz;
mod install_folders;
mod job_containers;
mod job_execution;
mod job_inputs;
mod job_log;
mod job_process;
mod job_resume;
mod job_scope;
mod job_secrets;
mod job_steps;
mod job_verdict;
mod journal;
mod mask;
mod matcher_error;
mod matcher_regex;
mod output_processor;
mod path_error;
mod path_patterns;
mod previous_attempt;
mod problem_matcher;
mod processes;
mod program_runner;
mod record_upload;
mod reports;
mod resume_state;
mod runtime;
mod sandbox;
mod script_step;
mod server_request;
mod shell;
mod step_resources;
mod step_runner;
mod step_scope;
mod step_task;
mod untrusted_archive;
mod workflow_command;
mod workspace_paths;

pub use artifact_links::EntryError;
pub use containers::remove_leftover_containers;
pub use debug_shell::{DebugShellContext, build_debug_shell_context};
pub use job_log::LOG_FILE;
pub use job_process::{JOB_FILE, run_job};
pub use journal::{Durability, JOURNAL_FILE, read_journal};
pub use mask::{MaskStream, Masker};
pub use path_error::PathError;
pub use previous_attempt::{AttemptProgress, ResumeError, read_attempt_progress};
pub use resume_state::{RESUME_STATE_FILE, SecretAccess};
pub use sandbox::{SandboxError, can_isolate};
pub use untrusted_archive::{ArchiveError, unpack_untrusted_tar};
