//! One word for where a rollout is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::outcome::RolloutOutcome;

/// One word for where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutStatus {
    Waiting,
    /// Waits for the rollouts of tied services.
    WaitingForPeers,
    /// Actions are carried out.
    Moving,
    /// The exposure is held for evidence.
    Holding,
    /// Promoted; the previous set is kept warm.
    KeptWarm,
    /// Waits for a person to resume it.
    Paused,
    /// On its way back to stable.
    RollingBack,
    /// The release is stable; it is watched for a while before the rollout ends.
    Promoted,
    /// Ended: evidence or a failed action took the release out.
    RolledBack,
    /// Ended: a person took the release out.
    Aborted,
    /// Ended: a person answered no at a gate.
    Rejected,
    /// Ended: stopped in favour of another release.
    Superseded,
    /// Ended: manual intervention required.
    Failed,
}

impl From<RolloutOutcome> for RolloutStatus {
    fn from(outcome: RolloutOutcome) -> Self {
        match outcome {
            RolloutOutcome::Promoted => Self::Promoted,
            RolloutOutcome::RolledBack => Self::RolledBack,
            RolloutOutcome::Aborted => Self::Aborted,
            RolloutOutcome::Rejected => Self::Rejected,
            RolloutOutcome::Superseded => Self::Superseded,
            RolloutOutcome::Failed => Self::Failed,
        }
    }
}

impl fmt::Display for RolloutStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::WaitingForPeers => "waiting for peers",
            Self::Moving => "moving",
            Self::Holding => "holding",
            Self::KeptWarm => "kept warm",
            Self::Paused => "paused",
            Self::RollingBack => "rolling back",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
        })
    }
}
