//! Effects: what the engine decides is carried out here.
//!
//! | module | effect |
//! |---|---|
//! | [`process`] | instances as local processes under shims |
//! | [`checks`] | health probes and smoke tests of instances |
//! | [`data_plane`] | the proxy process: routes in, traffic totals out |
//! | [`jobs`] | jobs of workflows as worker processes |
//! | [`git`] | repositories, pushes, following a local repository |
//! | [`metrics`] | values from metric providers |
//! | [`notify`] | notifications by webhook |
//!
//! # Invariants
//!
//! A driver decides nothing: it carries out an effect, idempotently, and reports what happened.

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
