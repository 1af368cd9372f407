//! Actions: built-in equivalents of GitHub's, which need no network, and all others, of repositories and images.
//!
//! An action gets a [`StepContext`] and returns a [`StepResult`]; [`crate::action_runner`] decides which one runs.

mod action_error;
pub(crate) mod action_library;
mod action_log;
pub(crate) mod action_reference;
mod action_store;
mod artifact;
mod blocking_task;
pub(crate) mod built_in;
mod built_in_names;
mod cache;
mod checkout;
mod cross_run_artifacts;
mod deploy;
pub(crate) mod docker_action;
pub(crate) mod fetch_actions;
mod fetch_error;
pub(crate) mod javascript_action;
mod large_files;
mod python_venv;
pub(crate) mod resolved_action;
mod setup_tools;
pub(crate) mod source_files;
mod source_network;
mod step_context;
mod submodules;
pub(crate) mod tool_table;
mod version_ranges;

pub(crate) use action_error::ActionError;
pub(crate) use step_context::{StepContext, StepResult};
