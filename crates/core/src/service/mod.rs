//! A service: its pushes, runs, releases, and who has the turn in each of its environments.
//!
//! One stream per service puts everything that must have an order in order: numbers, the queue of each environment, and
//! which push is newer. Runs and rollouts have streams of their own and report here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Actor, Aggregate, Event, Pending, Row};

mod addresses;
mod by_step;
mod decide;
mod event;
mod health;
mod hold;
mod pending;
mod queue;
mod rejection;
mod releasable;
mod rollback;
mod rules;
mod standing;
mod state;
#[cfg(test)]
mod tests;
mod ties;
mod view;

pub use event::{
    Artifact, Body, Deploying, Effect, Force, Groups, Input, Onward, Purpose, Push, Request,
    RetryRequest, RunOrder, Trigger, WaitsFor, Way,
};
pub use health::{Degradation, HealthNotice, HealthReport};
pub use hold::EnvironmentHold;
pub use rejection::Rejection;
pub use standing::{Standing, Timetable};
pub use state::{Active, EndedRollout, Environment, OpenPush, OpenRun, State};
pub use view::{EnvironmentView, ReleaseView, ServiceView};

/// The service aggregate; its streams are `service/{name}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Services;

impl Aggregate for Services {
    const KIND: &'static str = "service";
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
        state::apply(state, event);
    }

    fn pending(state: &State, _now: Timestamp) -> Pending<Effect> {
        pending::pending(state)
    }

    fn rows(state: &State, events: &[Event<Body>]) -> Vec<Row> {
        view::rows(state, events)
    }

    fn woken() -> Input {
        Input::Woken
    }
}
