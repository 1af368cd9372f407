//! The HTTP API: requests and responses with their OpenAPI description, shared by the server that answers them and the clients that
//! send them.
//!
//! *Invariants.* A request that changes something refuses unknown fields. A read model of the core (`RolloutView`, `RunView`, …) is
//! its own wire type; what exists only on the wire is defined here. Nothing here does I/O.
#![allow(
    missing_docs,
    reason = "fields of wire types are documented where their name doesn't say it all"
)]

mod environments;
mod runs;
mod test_results;

pub use environments::{EnvironmentStatus, ReleaseTraffic};
pub use runs::RunDetails;
pub use test_results::{FailingTest, RunTests};
