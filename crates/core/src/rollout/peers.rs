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
    /// Not yet at the barrier.
    Coming,
    /// At the barrier, or past it.
    There,
    Back {
        at: Timestamp,
        why: String,
    },
    /// Superseded by a newer release of its service, or without a barrier.
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
pub fn decide_barrier(peers: &[RolloutPeer]) -> BarrierDecision {
    if let Some(why) = gone_back(peers) {
        return BarrierDecision::Back(why);
    }
    let coming: Vec<&str> = (peers.iter())
        .filter(|peer| peer.stage == PeerStage::Coming)
        .map(|peer| peer.name.as_str())
        .collect();
    if coming.is_empty() {
        BarrierDecision::Go
    } else {
        BarrierDecision::Wait(coming.join(", "))
    }
}

/// Why the whole group goes back, if one of it did.
#[must_use]
pub fn gone_back(peers: &[RolloutPeer]) -> Option<String> {
    peers.iter().find_map(|peer| match &peer.stage {
        PeerStage::Back { why, .. } => Some(format!("{} was rolled back: {why}", peer.name)),
        PeerStage::Coming | PeerStage::There | PeerStage::Aside => None,
    })
}

impl Rollout {
    /// Where it is, for the rollouts of tied services.
    #[must_use]
    pub fn stage(&self) -> PeerStage {
        match (&self.rollback_start, &self.ended) {
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

    /// The index of the barrier in its plan.
    fn meets_at(&self) -> Option<usize> {
        let mut actions = self.plan.actions.iter();
        actions.position(|action| matches!(action, PlanAction::Barrier { .. }))
    }
}
