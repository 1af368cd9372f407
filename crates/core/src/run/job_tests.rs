//! The tests of one job, as it reported them.

use serde::{Deserialize, Serialize};

use crate::{
    ids::Digest,
    testing::{FailureExcuse, TestSummary},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTests {
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    pub summary: TestSummary,
    /// What the service's quarantine means for the job.
    #[serde(default, skip_serializing_if = "FailureExcuse::is_nothing")]
    pub excuse: FailureExcuse,
    /// Which attempt at the job reported, from 1; 0 where that was not yet kept. Not on record: it follows from the order.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}
