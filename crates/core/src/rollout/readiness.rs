//! The readiness of a release's instances: as a target reports it, and as a shortage.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::ReleaseNumber;

/// What a target reports about the instances of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReadiness {
    pub release: ReleaseNumber,
    /// Instances that may get traffic.
    pub ready: u32,
    /// What the first instance that is not ready reports.
    pub problem: Option<String>,
}

/// Fewer instances of the candidate are ready than its weight needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityShortage {
    pub since: Timestamp,
    /// Ready instances when that was last recorded.
    pub ready: u32,
    pub needed: u32,
    /// Whether people know that no release can take over.
    pub is_reported: bool,
}
