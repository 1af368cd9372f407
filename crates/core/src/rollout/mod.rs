//! Rollouts: one release going into one environment.
//!
//! A strategy compiles a [`plan::Plan`]; one executor ([`decide`]) walks it, action by action; drivers carry the actions out.
//! On trouble the way back is compiled from what is observed then. Holds and gates need no driver: they are time and people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Actor, Aggregate, Event, Pending, Row};

pub mod capacity;
mod decide;
mod event;
mod evidence;
mod failure;
mod fold;
mod look;
pub mod meet;
mod outcome;
mod pending;
pub mod plan;
pub mod reach;
pub mod series;
mod stable_traffic;
mod state;
mod status;
pub mod strategy;
#[cfg(test)]
mod tests;
mod view;

pub use event::{Body, Direction, Effect, Input, Notice, Rejection, Spec, Stable, Tone};
pub use evidence::{Evidence, FailureBasis};
pub use look::{LOOKS_MAX, Look};
pub use outcome::{AbortCause, Cause, Exposed, Kind, Outcome, Pace};
pub use stable_traffic::StableTraffic;
pub use state::{End, Note, Pause, RollbackRetry, Rollout, State, Turn};
pub use status::Status;
pub use view::{PlanLine, Progress, RolloutView};

/// The rollout aggregate; its streams are `rollout/{service}/{number}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rollouts;

impl Aggregate for Rollouts {
    const KIND: &'static str = "rollout";
    type State = State;
    type Body = Body;
    type Input = Input;
    type Effect = Effect;
    type Rejection = Rejection;

    fn decide(
        state: &State,
        input: Input,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<Body>>, Rejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut State, event: &Event<Body>) {
        fold::apply(state, event);
    }

    fn pending(state: &State, now: Timestamp) -> Pending<Effect> {
        pending::pending(state, now)
    }

    fn rows(state: &State, _events: &[Event<Body>]) -> Vec<Row> {
        state.0.as_deref().map(view::row).into_iter().collect()
    }

    fn woken() -> Input {
        Input::Woken
    }
}
