//! Targets run the instances of releases, routers split the traffic between releases.
//!
//! | module | |
//! |---|---|
//! | [`target`] | the interface of a target |
//! | [`process`] | the target whose instances are processes of this machine, under shims |
//! | [`data_plane`] | Shipway's proxy: routes in, traffic totals out |
//! | [`checks`] | health probes and smoke tests of instances |
//!
//! # Invariants
//!
//! Targets and routers decide nothing: they carry out an action, idempotently, and report the result.

pub mod atomic_file;
pub mod checks;
pub mod data_plane;
pub mod open_files;
pub mod process;
pub mod tail;
pub mod target;
