//! The deletion of an environment or a service while it is in progress.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::Actor;

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
