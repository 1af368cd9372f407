//! What a rollout is for, how it ended, and what made it leave its release.
//!
//! Code reads these; the sentences beside them are for people and may change without changing what happens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
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
pub enum Pace {
    /// By the strategy of its environment, with its steps and its analysis.
    #[default]
    ByStrategy,
    /// At once, without steps and analysis: it was good here lately.
    Direct,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The release is the stable one.
    Promoted,
    /// Evidence or a failed action took the release out; what was stable serves.
    RolledBack,
    /// A person took the release out; what was stable serves.
    Aborted,
    /// A person answered no at a gate; what was stable serves.
    Rejected,
    /// It was stopped in favour of another release; what was stable serves.
    Superseded,
    /// It could be neither completed nor rolled back: a person must act.
    Failed,
}

/// What made a rollout leave its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The analysis failed.
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
}

/// Who or what stops a rollout from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortCause {
    /// A person.
    Person,
    /// Another release is to be rolled out instead.
    Superseded,
}

impl From<AbortCause> for Cause {
    fn from(cause: AbortCause) -> Self {
        match cause {
            AbortCause::Person => Self::Person,
            AbortCause::Superseded => Self::Superseded,
        }
    }
}

impl Cause {
    /// How a rollout that left its release for this cause ends, once its rollback is complete.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Evidence
            | Self::FailedAction
            | Self::CrashLoop
            | Self::NoReadyInstance
            | Self::NoProgress
            | Self::Inconclusive
            | Self::PeerRolledBack => Outcome::RolledBack,
            Self::Person => Outcome::Aborted,
            Self::Rejected => Outcome::Rejected,
            Self::Superseded => Outcome::Superseded,
        }
    }
}

/// Whether users got answers of the release of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// They did.
    Yes,
    /// They never did.
    Never,
}

impl Outcome {
    /// Whether it counts as a change failure (DORA): what a person decided or what was superseded does not.
    #[must_use]
    pub const fn is_change_failure(self, exposed: Exposed) -> bool {
        match self {
            Self::RolledBack => true,
            Self::Failed => matches!(exposed, Exposed::Yes),
            Self::Promoted | Self::Aborted | Self::Rejected | Self::Superseded => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
        })
    }
}

impl fmt::Display for Outcome {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rollbacks_and_failures_after_traffic_are_change_failures() {
        use Outcome::{Aborted, Failed, Promoted, Rejected, RolledBack, Superseded};
        for (outcome, before_traffic, after_traffic) in [
            (Promoted, false, false),
            (RolledBack, true, true),
            (Aborted, false, false),
            (Rejected, false, false),
            (Superseded, false, false),
            (Failed, false, true),
        ] {
            let counted = [Exposed::Never, Exposed::Yes].map(|it| outcome.is_change_failure(it));
            assert_eq!(counted, [before_traffic, after_traffic], "{outcome:?}");
        }
    }

    #[test]
    fn a_cause_is_written_as_one_word_of_the_log() {
        let written = serde_json::to_value(Cause::PeerRolledBack).unwrap();
        assert_eq!(written, "peer_rolled_back");
        assert_eq!(Cause::from(AbortCause::Person).outcome(), Outcome::Aborted);
    }
}
