//! What a rollout brings to users: today a release, with flags a variant of a flag.
//!
//! # Why
//!
//! Deploying a release and releasing a flag are one mechanism: a share of the users that grows while the evidence is good. Plans,
//! holds, gates, pauses and the history are the same for both. A [`RolloutVariant`] is what a share, a promotion and a measurement are
//! about; where only a release makes sense (instances, smoke tests, routes) the code takes the release out of it by an irrefutable
//! pattern, which stops compiling when there is a second kind (ADR 24).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{release::Release, strategy::RolloutVariant};

/// What a rollout brings to users, and what they had before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RolloutSubject {
    /// A release that replaces the stable one.
    Release {
        release: Arc<Release>,
        /// None at a first deployment.
        stable: Option<StableRelease>,
    },
}

/// The release that serves an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StableRelease {
    pub release: Arc<Release>,
    /// How many instances it needs to carry all traffic.
    pub instances: u32,
}

impl RolloutSubject {
    /// What users get more and more of.
    #[must_use]
    pub fn candidate(&self) -> RolloutVariant {
        match self {
            Self::Release { release, .. } => RolloutVariant::Release(release.number),
        }
    }

    /// What users had before.
    #[must_use]
    pub fn stable(&self) -> Option<RolloutVariant> {
        match self {
            Self::Release { stable, .. } => {
                let stable = stable.as_ref()?;
                Some(RolloutVariant::Release(stable.release.number))
            }
        }
    }
}
