//! Barrier of a rollout group: its rollouts are promoted together or rolled back together (docs/adr/0011).
//!
//! Each rollout observes its peers; there is no leader. It waits before its last shift until all running peers have come as
//! far, and until it has ended it rolls back when a peer was rolled back.
//!
//! ```
//! use shipway_core::rollout::peers::{RolloutPeer, BarrierDecision, PeerStage, decide_barrier};
//! let coming = RolloutPeer { name: "cart/ro3".to_owned(), stage: PeerStage::Coming };
//! assert_eq!(decide_barrier(&[coming]), BarrierDecision::Wait("cart/ro3".to_owned()));
//! assert_eq!(decide_barrier(&[]), BarrierDecision::Go);
//! ```

use jiff::Timestamp;

use super::{
    event::PlanDirection,
    outcome::{RollbackCause, RolloutOutcome},
    plan::PlanAction,
    state::Rollout,
};

/// What another rollout of the group is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutPeer {
    /// How people call it: `cart/ro3`, or the service whose release is on its way.
    pub name: String,
    pub stage: PeerStage,
}

/// Where a rollout of the group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerStage {
    /// On its way to the meeting.
    Coming,
    /// At the meeting, or beyond it.
    There,
    Back {
        at: Timestamp,
        why: String,
    },
    /// It made way for a newer release of its service, or needs no meeting.
    Aside,
}

/// The decision at the barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BarrierDecision {
    Wait(String),
    Go,
    /// Go back, because of this.
    Back(String),
}

/// Decides from the stages of the peers.
#[must_use]
pub fn decide_barrier(fellows: &[RolloutPeer]) -> BarrierDecision {
    if let Some(why) = gone_back(fellows) {
        return BarrierDecision::Back(why);
    }
    let coming: Vec<&str> = (fellows.iter())
        .filter(|fellow| fellow.stage == PeerStage::Coming)
        .map(|fellow| fellow.name.as_str())
        .collect();
    if coming.is_empty() {
        BarrierDecision::Go
    } else {
        BarrierDecision::Wait(coming.join(", "))
    }
}

/// Why the whole group goes back, if one of it did.
#[must_use]
pub fn gone_back(fellows: &[RolloutPeer]) -> Option<String> {
    fellows.iter().find_map(|fellow| match &fellow.stage {
        PeerStage::Back { why, .. } => Some(format!("{} went back: {why}", fellow.name)),
        PeerStage::Coming | PeerStage::There | PeerStage::Aside => None,
    })
}

impl Rollout {
    /// Where it is, for the rollouts of tied services.
    #[must_use]
    pub fn stage(&self) -> PeerStage {
        match (&self.turned_back, &self.ended) {
            (Some(turn), _) if turn.cause == RollbackCause::Superseded => PeerStage::Aside,
            (Some(turn), _) => PeerStage::Back {
                at: turn.at,
                why: turn.why.clone(),
            },
            (None, Some(end)) => match end.outcome {
                RolloutOutcome::Promoted => PeerStage::There,
                RolloutOutcome::Superseded => PeerStage::Aside,
                RolloutOutcome::RolledBack
                | RolloutOutcome::Aborted
                | RolloutOutcome::Rejected
                | RolloutOutcome::Failed => PeerStage::Back {
                    at: end.at,
                    why: end.why.clone(),
                },
            },
            (None, None) => match self.meets_at() {
                Some(at) if self.cursor < at && self.direction == PlanDirection::Forward => {
                    PeerStage::Coming
                }
                Some(_) => PeerStage::There,
                None => PeerStage::Aside,
            },
        }
    }

    /// The place of the meeting in its plan.
    fn meets_at(&self) -> Option<usize> {
        let mut actions = self.plan.actions.iter();
        actions.position(|action| matches!(action, PlanAction::Meet { .. }))
    }
}
