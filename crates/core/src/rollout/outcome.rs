//! The purpose of a rollout, its outcome and the cause of a rollback.
//!
//! Code reads these enums; the texts next to them are for people and may change without changing behaviour.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::Actor;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutKind {
    /// A release goes in by its strategy.
    Deploy,
    /// An earlier release comes back because a person asked for it.
    Rollback,
    /// The release of an ended rollout goes in once more, by its strategy.
    Retry,
}

/// How fast the release of a rollout goes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutPace {
    /// By the strategy of its environment, with its steps and its analysis.
    #[default]
    ByStrategy,
    /// At once, without steps and analysis: it was good here lately.
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutOutcome {
    /// The release is the stable one.
    Promoted,
    /// Rolled back because of evidence or a failed action; the previous stable release serves.
    RolledBack,
    /// Rolled back by a person; the previous stable release serves.
    Aborted,
    /// Rejected by a person at a gate; the previous stable release serves.
    Rejected,
    /// Stopped in favour of another release; the previous stable release serves.
    Superseded,
    /// It could be neither completed nor rolled back: a person must act.
    Failed,
}

/// What made a rollout leave its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackCause {
    Evidence,
    /// An action of the plan failed, such as a smoke test.
    FailedAction,
    /// Instances of the release crashed again and again.
    CrashLoop,
    /// No instance of the release was ready, or too few for its traffic.
    NoReadyInstance,
    /// An action made no progress until its deadline.
    NoProgress,
    /// A hold ended without enough evidence, and the file says `on_inconclusive: rollback`.
    Inconclusive,
    /// A person aborted it or asked for a rollback.
    Person,
    /// A person answered no at its gate.
    Rejected,
    /// Another release was to be rolled out instead.
    Superseded,
    /// The rollout of a tied service was rolled back.
    PeerRolledBack,
    /// The release was rolled back in an earlier environment.
    Withdrawn,
}

/// Who or what stops a rollout from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    Person,
    /// Another release is to be rolled out instead.
    Superseded,
    /// Its release was rolled back in an earlier environment.
    Withdrawn,
}

impl From<AbortCause> for RollbackCause {
    fn from(cause: AbortCause) -> Self {
        match cause {
            AbortCause::Person => Self::Person,
            AbortCause::Superseded => Self::Superseded,
            AbortCause::Withdrawn => Self::Withdrawn,
        }
    }
}

impl RollbackCause {
    /// How a rollout that left its release for this cause ends, once its rollback is complete.
    #[must_use]
    pub const fn outcome(self) -> RolloutOutcome {
        match self {
            Self::Evidence
            | Self::FailedAction
            | Self::CrashLoop
            | Self::NoReadyInstance
            | Self::NoProgress
            | Self::Inconclusive
            | Self::PeerRolledBack
            | Self::Withdrawn => RolloutOutcome::RolledBack,
            Self::Person => RolloutOutcome::Aborted,
            Self::Rejected => RolloutOutcome::Rejected,
            Self::Superseded => RolloutOutcome::Superseded,
        }
    }
}

/// Whether users got answers of the release of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserExposure {
    Yes,
    Never,
}

impl RolloutOutcome {
    /// Whether it counts as a change failure (DORA): aborts, rejections and supersessions do not.
    #[must_use]
    pub const fn is_change_failure(self, exposed: UserExposure) -> bool {
        match self {
            Self::RolledBack => true,
            Self::Failed => matches!(exposed, UserExposure::Yes),
            Self::Promoted | Self::Aborted | Self::Rejected | Self::Superseded => false,
        }
    }
}

impl fmt::Display for RolloutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
        })
    }
}

impl fmt::Display for RolloutOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
        })
    }
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutEnd {
    pub at: Timestamp,
    pub outcome: RolloutOutcome,
    /// What made it leave its release; none when it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<RollbackCause>,
    pub by: Actor,
    /// Text of the person, or the observation.
    pub reason: String,
    /// Why, in words, and what serves now.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rollbacks_and_failures_after_traffic_are_change_failures() {
        use RolloutOutcome::{Aborted, Failed, Promoted, Rejected, RolledBack, Superseded};
        for (outcome, before_traffic, after_traffic) in [
            (Promoted, false, false),
            (RolledBack, true, true),
            (Aborted, false, false),
            (Rejected, false, false),
            (Superseded, false, false),
            (Failed, false, true),
        ] {
            let counted =
                [UserExposure::Never, UserExposure::Yes].map(|it| outcome.is_change_failure(it));
            assert_eq!(counted, [before_traffic, after_traffic], "{outcome:?}");
        }
    }

    #[test]
    fn a_cause_is_written_as_one_word_of_the_log() {
        let written = serde_json::to_value(RollbackCause::PeerRolledBack).unwrap();
        assert_eq!(written, "peer_rolled_back");
        assert_eq!(
            RollbackCause::from(AbortCause::Person).outcome(),
            RolloutOutcome::Aborted
        );
    }
}
