//! Where jobs of a finished run resume.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shipway_workflow::job::JobKey;

/// Where jobs that run again begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromStep {
    /// The id of the step; none: the one that failed.
    pub step: Option<String>,
    /// Leftovers of the earlier attempts.
    pub left: BTreeMap<JobKey, LeftoverState>,
}

/// Leftovers of the last attempt of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftoverState {
    /// Its workspace, and what its steps had left for later ones.
    Workspace {
        /// The id of the step that failed; none: no step did.
        failed: Option<String>,
        /// The ids of the steps at which it may be resumed, in order.
        steps: Vec<String>,
    },
    Nothing(String),
}

/// The attempt and the step at which a job resumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// Which attempt at the job was before, from 1.
    pub attempt: u32,
    /// The id of the step that it begins at.
    pub step: String,
}
