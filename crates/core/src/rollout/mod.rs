//! Rollouts: one release going into one environment; [`RolloutSubject`] is the joint for flags.
//!
//! A strategy compiles a [`plan::RolloutPlan`]; one executor ([`decide`]) walks it, action by action; drivers carry the actions out.
//! On a failure the rollback plan is compiled from the state observed at that moment. Holds and gates need no driver: they end
//! by time and by people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Actor, Aggregate, Decider, Event, PendingWork, ViewRow};

mod brief;
pub mod capacity;
mod decide;
mod evaluation;
mod event;
mod evidence;
mod failure;
mod fold;
mod glass;
mod history;
mod metric_evaluation;
mod outcome;
pub mod peers;
mod pending;
mod readiness;
pub mod series;
mod state;
mod status;
mod subject;
#[cfg(test)]
mod tests;
mod view;

pub use crate::strategy::{self, RolloutVariant, StableTraffic, canary_match, plan};
pub use brief::needed_traffic;
pub use evaluation::LOOKS_MAX;
pub use event::{
    NoticeTone, PlanDirection, RolloutEffect, RolloutEvent, RolloutInput, RolloutNotice,
    RolloutRejection, RolloutSpec, describe_warm_set_end,
};
pub use evidence::{FailureBasis, RolloutEvidence};
pub use history::{OddsPoint, RolloutHistory, RuleCriterion, RuleHistory, TrafficPoint};
pub use metric_evaluation::MetricEvaluation;
pub use outcome::{
    AbortCause, RollbackCause, RolloutEnd, RolloutKind, RolloutOutcome, RolloutPace, UserExposure,
};
pub use readiness::{CapacityShortage, SetReadiness};
pub use state::{RollbackRetry, RollbackStart, Rollout, RolloutPause, RolloutState, TimelineNote};
pub use status::RolloutStatus;
pub use subject::{RolloutSubject, StableRelease};
pub use view::{PlanLine, ROLLOUT_APPROVAL_ROWS, RolloutProgress, RolloutView};

/// Decides the facts of a rollout.
type RolloutDecider = Decider<RolloutAggregate>;

/// The rollout aggregate; its streams are `rollout/{service}/{number}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RolloutAggregate;

impl Aggregate for RolloutAggregate {
    const KIND: &'static str = "rollout";
    type State = RolloutState;
    type Body = RolloutEvent;
    type Input = RolloutInput;
    type Effect = RolloutEffect;
    type Rejection = RolloutRejection;

    fn decide(
        state: &RolloutState,
        input: RolloutInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<RolloutEvent>>, RolloutRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut RolloutState, event: &Event<RolloutEvent>) {
        fold::apply(state, event);
    }

    fn pending(state: &RolloutState, now: Timestamp) -> PendingWork<RolloutEffect> {
        pending::pending(state, now)
    }

    fn rows(state: &RolloutState, events: &[Event<RolloutEvent>]) -> Vec<ViewRow> {
        let rollout = state.0.as_deref();
        rollout
            .map(|rollout| view::rows(rollout, events))
            .unwrap_or_default()
    }

    fn timer_fired() -> RolloutInput {
        RolloutInput::TimerFired
    }
}
