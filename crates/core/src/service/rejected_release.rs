//! The record of a rejected release.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::Actor;

/// A rejection of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRelease {
    pub by: String,
    pub at: Timestamp,
    pub reason: String,
}

impl RejectedRelease {
    pub(super) fn new(at: Timestamp, by: &Actor, reason: &str) -> Self {
        Self {
            by: by.to_string(),
            at,
            reason: reason.to_owned(),
        }
    }
}
