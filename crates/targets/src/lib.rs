//! Targets run the instances of releases, routers split the traffic between releases.
//!
//! | module | |
//! |---|---|
//! | [`target`] | the interface of a target |
//! | [`action_executor`] | carries out the actions of a plan on a target and a router |
//! | [`target_registry`] | the targets and routers of a server |
//! | [`process`] | the target whose instances are processes of this machine, under shims |
//! | [`router`] | the interface of a router |
//! | [`traffic_control`] | the routes of the environments of one router |
//! | [`traffic_registry`] | the traffic of all environments, each at its router |
//! | [`data_plane`] | Shipway's proxy: routes in, traffic totals out |
//! | [`memory`] | a target and a router for tests |
//! | [`checks`] | health probes and smoke tests of instances |
//!
//! # Invariants
//!
//! Targets and routers decide nothing: they carry out an action, idempotently, and report the result.

pub mod action_executor;
pub mod atomic_file;
pub mod checks;
pub mod data_plane;
pub mod memory;
pub mod open_files;
pub mod process;
pub mod procfs;
pub mod router;
pub mod tail;
pub mod target;
pub mod target_registry;
pub mod traffic_control;
pub mod traffic_reading;
pub mod traffic_registry;

use shipway_core::target::{AvailableTargets, RouterKind, TargetKind, TargetsOwner};
pub use target_registry::TargetRegistry;

/// The targets and routers that this version of Shipway has.
#[must_use]
pub fn implemented_targets() -> AvailableTargets {
    AvailableTargets {
        owner: TargetsOwner::Version,
        targets: [TargetKind::Process].into(),
        routers: [RouterKind::Proxy].into(),
    }
}
