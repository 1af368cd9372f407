//! Reverse canary: the previous release gets half of the users again, to learn whether a fault is the new release's.
//!
//! # Why
//! After the switch a release is compared with what stable was before. A database or a bot that fails since then looks like
//! a fault of the release. Both releases side by side tell: if the previous one is better now, the rollback is completed;
//! if not, the release stays.

use std::time::Duration;

use super::{
    ObservedState,
    plan::{HoldReason, PlanAction, RolloutPlan, TrafficSplit},
    take_down,
};
use crate::{ids::ReleaseNumber, weight::Weight};

/// How long both releases are compared at most; evidence ends it earlier.
pub const COMPARED_FOR: Duration = Duration::from_secs(5 * 60);

/// What a reverse canary is about.
#[derive(Clone, Debug)]
pub struct ReverseCanary {
    /// The release that serves all users.
    pub candidate: ReleaseNumber,
    /// The release that served them before.
    pub previous: ReleaseNumber,
    /// Instances that `previous` needs to take over all traffic.
    pub instances: u32,
    /// How long open requests of `previous` may take afterwards.
    pub drain: Duration,
}

impl ReverseCanary {
    /// Starts the previous release, shares the users, compares; then all users get the new release again and `remaining`,
    /// the rest of the plan that was interrupted, is carried out.
    #[must_use]
    pub fn compile(&self, observed: &ObservedState, remaining: Vec<PlanAction>) -> RolloutPlan {
        let (candidate, previous) = (self.candidate, self.previous);
        let mut actions = vec![
            PlanAction::Start {
                release: previous,
                count: self.instances,
            },
            PlanAction::Await {
                release: previous,
                count: self.instances,
            },
            PlanAction::Shift {
                split: TrafficSplit::between(candidate, Weight::HALF, previous),
            },
            PlanAction::Hold {
                duration: COMPARED_FOR,
                why: HoldReason::ReverseCanary,
            },
            PlanAction::Shift {
                split: TrafficSplit::all_to(candidate),
            },
        ];
        let was_stopped = observed.count(previous) == 0;
        if was_stopped {
            actions.extend(take_down(previous, 0, self.drain));
        }
        actions.extend(remaining);
        RolloutPlan {
            actions,
            notes: Vec::new(),
        }
    }
}
