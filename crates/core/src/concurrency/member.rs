//! Members of a concurrency group.

use std::fmt;

use serde::{Deserialize, Serialize};
use shipway_workflow::job::JobKey;

use crate::ids::RunId;

/// A run or one of its jobs, as a member of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupMemberId {
    pub run: RunId,
    /// The job; none when it is the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobKey>,
}

impl fmt::Display for GroupMemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.job {
            None => write!(f, "{}", self.run.number),
            Some(job) => write!(f, "{} ({job})", self.run.number),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberPlace {
    Inside,
    Waiting,
    /// It lost its place, and has not left yet.
    Dropped {
        why: String,
    },
}
