//! Repositories with one service or several: which services a commit has, and which of them a push concerns (ADR 26).
//!
//! Pure functions of files and paths that the caller has read from git.
//!
//! # Invariants
//!
//! - A service is in one repository and in one folder of it; two files that name one service release nothing.
//! - A service that a push does not concern stays exactly as it is.
//! - A change that was not released yet concerns the service at the next push again.

mod changes;
mod delivered;
mod location;
mod services;

pub use changes::{ComparisonBase, ServicePaths};
pub use delivered::DeliveredPush;
pub use location::ServiceLocation;
pub use services::{
    FoundConfig, LocatedService, RepositoryProblem, RepositoryServices, SERVICES_FOLDER,
    SERVICES_MAX,
};
