//! Tied services: their rollouts are promoted together or go back together (docs/adr/0011).
//!
//! Each rollout of the group looks at the others; nobody leads. It waits before its last shift until all that are under way have
//! come as far, and as long as it isn't over it goes back when one of them did.
//!
//! ```
//! use shipway_core::rollout::meet::{Fellow, Meeting, Stage, meeting};
//! let coming = Fellow { name: "cart/ro3".to_owned(), stage: Stage::Coming };
//! assert_eq!(meeting(&[coming]), Meeting::Wait("cart/ro3".to_owned()));
//! assert_eq!(meeting(&[]), Meeting::Go);
//! ```

use jiff::Timestamp;

use super::{
    event::Direction,
    outcome::{Cause, Outcome},
    plan::Action,
    state::Rollout,
};

/// What another rollout of the group is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fellow {
    /// How people call it: `cart/ro3`, or the service whose release is on its way.
    pub name: String,
    /// Where it is.
    pub stage: Stage,
}

/// Where a rollout of the group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On its way to the meeting.
    Coming,
    /// At the meeting, or beyond it.
    There,
    /// It went back.
    Back {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// It made way for a newer release of its service, or needs no meeting.
    Aside,
}

/// What follows for the rollout that looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Wait for these.
    Wait(String),
    /// Go on.
    Go,
    /// Go back, because of this.
    Back(String),
}

/// What follows from where the others are.
#[must_use]
pub fn meeting(fellows: &[Fellow]) -> Meeting {
    if let Some(why) = gone_back(fellows) {
        return Meeting::Back(why);
    }
    let coming: Vec<&str> = (fellows.iter())
        .filter(|fellow| fellow.stage == Stage::Coming)
        .map(|fellow| fellow.name.as_str())
        .collect();
    if coming.is_empty() {
        Meeting::Go
    } else {
        Meeting::Wait(coming.join(", "))
    }
}

/// Why the whole group goes back, if one of it did.
#[must_use]
pub fn gone_back(fellows: &[Fellow]) -> Option<String> {
    fellows.iter().find_map(|fellow| match &fellow.stage {
        Stage::Back { why, .. } => Some(format!("{} went back: {why}", fellow.name)),
        Stage::Coming | Stage::There | Stage::Aside => None,
    })
}

impl Rollout {
    /// Where it is, for the rollouts of tied services.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match (&self.turned_back, &self.ended) {
            (Some(turn), _) if turn.cause == Cause::Superseded => Stage::Aside,
            (Some(turn), _) => Stage::Back {
                at: turn.at,
                why: turn.why.clone(),
            },
            (None, Some(end)) => match end.outcome {
                Outcome::Promoted => Stage::There,
                Outcome::Superseded => Stage::Aside,
                Outcome::RolledBack | Outcome::Aborted | Outcome::Rejected | Outcome::Failed => {
                    Stage::Back {
                        at: end.at,
                        why: end.why.clone(),
                    }
                }
            },
            (None, None) => match self.meets_at() {
                Some(at) if self.cursor < at && self.direction == Direction::Forward => {
                    Stage::Coming
                }
                Some(_) => Stage::There,
                None => Stage::Aside,
            },
        }
    }

    /// The place of the meeting in its plan.
    fn meets_at(&self) -> Option<usize> {
        let mut actions = self.plan.actions.iter();
        actions.position(|action| matches!(action, Action::Meet { .. }))
    }
}
