//! The deletion of an environment or a service while it is in progress.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::Actor;
use crate::ids::EnvironmentName;

/// A deletion that was requested and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedDeletion {
    pub since: Timestamp,
    pub by: String,
    pub reason: Option<String>,
}

impl RequestedDeletion {
    pub(super) fn new(since: Timestamp, by: &Actor, reason: Option<String>) -> Self {
        Self {
            since,
            by: by.to_string(),
            reason,
        }
    }
}

/// What became of the repository of a deleted service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryRemoval {
    /// It is gone, or there was none.
    Removed,
    /// It has the service's name, and stays for other services that are in it.
    Shared,
    /// It has another name: the service was one of several in it.
    OtherName,
}

/// The extent of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionScope {
    /// The service with all its environments.
    Service,
    Environment(EnvironmentName),
}
