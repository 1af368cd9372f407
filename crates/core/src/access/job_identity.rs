//! The identity of an attempt at a job.

use std::fmt;

use shipway_workflow::job::JobKey;

use crate::ids::RunId;

/// One attempt at one job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobIdentity {
    pub run: RunId,
    pub key: JobKey,
    /// From 1.
    pub attempt: u32,
}

impl fmt::Display for JobIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.key, self.run)
    }
}
