//! The health of an environment that no rollout guards: as reported, as recorded, and as people are notified of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    config::NotificationTarget,
    ids::{EnvironmentName, ReleaseNumber},
    rollout::RolloutNotice,
};

/// What a target reports about the instances of one release in an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    pub environment: EnvironmentName,
    pub release: ReleaseNumber,
    /// Instances that are ready.
    pub ready: u32,
    /// Since when fewer instances than the target runs are ready; none when all are.
    pub unready_since: Option<Timestamp>,
    /// What the first instance that is not ready reports.
    pub problem: Option<String>,
}

/// The stable release of an environment lacks ready instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentDegradation {
    pub since: Timestamp,
    pub release: ReleaseNumber,
    /// Ready instances when that was last recorded.
    pub ready: u32,
    /// Instances that the configuration asks for.
    pub needed: u32,
    /// What an instance that is not ready reports.
    pub problem: Option<String>,
}

/// A notice of an environment's health on its way to the destinations of `notify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthNotice {
    /// Numbered from 1 for each service.
    pub number: u64,
    pub environment: EnvironmentName,
    pub release: ReleaseNumber,
    pub notice: RolloutNotice,
    /// `notify` of the environment.
    pub destinations: Vec<NotificationTarget>,
    /// Destinations, by index, that have not received it yet.
    pub pending: BTreeSet<usize>,
}

impl std::fmt::Display for EnvironmentDegradation {
    /// `1 of 2 instances of #3 ready: instance 2: exit code 1`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            ready,
            needed,
            release,
            ..
        } = self;
        let plural = if *needed == 1 { "" } else { "s" };
        write!(f, "{ready} of {needed} instance{plural} of {release} ready")?;
        match &self.problem {
            Some(problem) => write!(f, ": {problem}"),
            None => Ok(()),
        }
    }
}
