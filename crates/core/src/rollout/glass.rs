//! Break-glass of a rollout, and its review by another person.

use super::{
    RolloutDecider,
    decide::{forward, require_seen},
    event::{RolloutEvent, RolloutRejection},
    state::Rollout,
};
use crate::gate::{ApprovingPerson, SeenSubject, UnacceptedDecider};

impl RolloutDecider {
    /// Opens all gates of the rollout in an emergency. Idempotent: the first person's reason stays.
    pub(super) fn break_glass(
        &mut self,
        rollout: &Rollout,
        groups: &[String],
        seen: &SeenSubject,
        reason: String,
    ) -> Result<(), RolloutRejection> {
        forward(rollout, "break-glass")?;
        let named = &rollout.spec.environment.rules.break_glass;
        let who = ApprovingPerson::new(&self.by, groups);
        if !named.iter().any(|entry| who.is_named_by(entry)) {
            return Err(RolloutRejection::NoBreakGlass {
                rollout: rollout.spec.id.clone(),
                environment: rollout.spec.environment.name.clone(),
                decider: Box::new(UnacceptedDecider {
                    who: who.name,
                    accepted: named.join(", "),
                    excluded_as: None,
                }),
            });
        }
        if reason.trim().is_empty() {
            return Err(RolloutRejection::NoReason(rollout.spec.id.clone()));
        }
        require_seen(rollout, seen)?;
        if rollout.broken_glass.is_none() {
            let plan = rollout.plan.digest();
            self.emit(RolloutEvent::GlassBroken { plan, reason });
        }
        Ok(())
    }

    /// Confirms that a second person has looked at a break-glass.
    pub(super) fn review_glass(
        &mut self,
        rollout: &Rollout,
        comment: Option<String>,
    ) -> Result<(), RolloutRejection> {
        let id = || rollout.spec.id.clone();
        let Some(glass) = &rollout.broken_glass else {
            return Err(RolloutRejection::NoGlassBroken(id()));
        };
        let who = ApprovingPerson::new(&self.by, &[]);
        if glass.by.is_same_person(&who) {
            return Err(RolloutRejection::OwnReview {
                rollout: id(),
                who: who.name,
            });
        }
        if glass.review.is_none() {
            self.emit(RolloutEvent::GlassReviewed { comment });
        }
        Ok(())
    }
}
