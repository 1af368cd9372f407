//! One word for where a rollout is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// One word for where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for people.
    Waiting,
    /// Waits for the rollouts of tied services.
    Meeting,
    /// Actions are carried out.
    Moving,
    /// The exposure is held for evidence.
    Holding,
    /// Promoted; the previous set is kept warm.
    KeptWarm,
    /// Stands still until somebody resumes it.
    Paused,
    /// On its way back to stable.
    GoingBack,
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
    /// Ended: a person must look.
    Failed,
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Promoted => Self::Promoted,
            Outcome::RolledBack => Self::RolledBack,
            Outcome::Aborted => Self::Aborted,
            Outcome::Rejected => Self::Rejected,
            Outcome::Superseded => Self::Superseded,
            Outcome::Failed => Self::Failed,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Meeting => "meeting",
            Self::Moving => "moving",
            Self::Holding => "holding",
            Self::KeptWarm => "kept warm",
            Self::Paused => "paused",
            Self::GoingBack => "going back",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
        })
    }
}
