//! Runs: one workflow, once, for one commit.
//!
//! Which job may start, and why one doesn't, is decided by [`shipway_workflow::graph`]; this aggregate puts those decisions on
//! record, so that a server that comes back knows them. Drivers start the workers and report; steps themselves are the worker's.
//! It never holds secrets: they enter a job only with [`job_spec`], which is for the driver's eyes.
//!
//! Without a server the same three functions drive a run in a loop: decide, apply, carry out what is pending.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Actor, Aggregate, Event, Pending, Row};

mod again;
mod decide;
mod event;
mod gate;
mod job;
mod records;
mod reported;
mod resume;
mod spec;
mod state;
mod story;
mod telling;
#[cfg(test)]
mod tests;
mod view;

pub use event::{Annotation, Artifact, Body, Effect, Input, Rejection, StepLine};
pub use gate::{AwaitedApproval, GateEffect, GateFact, GateInput, Rules};
pub use job::{Surroundings, job_spec};
pub use records::Records;
pub use reported::{JobTests, JobTestsView, TestsView, in_short, percent};
pub use resume::{FromStep, GoesOn, Left};
pub use shipway_workflow::graph::RerunSelection;
pub use spec::RunSpec;
pub use state::{EarlierAttempt, End, JobRecord, Plan, Run, State};
pub use story::story_lines;
pub use telling::{Place, blamed, telling_line, three_lines};
pub use view::{JobView, RunView, Status, StepView};

/// The run aggregate; its streams are `run/{service}/{number}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Runs;

impl Aggregate for Runs {
    const KIND: &'static str = "run";
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
        decide::pending(state)
    }

    fn rows(state: &State, _events: &[Event<Body>]) -> Vec<Row> {
        state.0.as_deref().map(view::row).into_iter().collect()
    }

    fn woken() -> Input {
        Input::Woken
    }
}
