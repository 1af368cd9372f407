//! Concurrency groups: of the runs and jobs that name one group, one goes on at a time.
//!
//! A group is a stream of its own: runs ask and leave, and the group tells those that wait when it is their turn, when a newer
//! one has taken their place, and when they should stop for a newer one. It knows nothing of workflows and never looks at a run:
//! who was let in keeps the group until it leaves, so a run that is over must always leave. A run speaks again after a crash,
//! so asking and leaving twice changes nothing.
//!
//! GitHub's rules: one goes on and one waits; who comes takes the place of who waits; `cancel-in-progress` also stops who goes
//! on; with `queue: max` all wait, in order, and none is dropped.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::{Actor, Aggregate, Event, Pending, Row},
    ids::{Digest, ServiceName},
};

mod decide;
mod event;
mod state;
#[cfg(test)]
mod tests;

pub use event::{Ask, Body, Effect, Input, News, Notice, Rejection, Standing};
pub use state::{Holder, Member, Place, State};

/// The aggregate of groups; its streams are those of [`stream`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Groups;

impl Aggregate for Groups {
    const KIND: &'static str = "group";
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
        Ok(decide::decide(state, input, by, now))
    }

    fn apply(state: &mut State, event: &Event<Body>) {
        state::apply(state, event);
    }

    fn pending(state: &State, _now: Timestamp) -> Pending<Effect> {
        let effects: Vec<_> = state
            .notices
            .iter()
            .map(|(number, notice)| {
                (
                    format!("notice-{number}").into(),
                    Effect {
                        number: *number,
                        notice: notice.clone(),
                    },
                )
            })
            .collect();
        Pending {
            live: !effects.is_empty(),
            effects,
            wake_at: None,
        }
    }

    fn rows(_state: &State, _events: &[Event<Body>]) -> Vec<Row> {
        Vec::new()
    }

    fn woken() -> Input {
        Input::Woken
    }
}

/// The stream of a group. Names ignore case, and may hold anything: hence a digest.
#[must_use]
pub fn stream(service: &ServiceName, group: &str) -> String {
    let digest = Digest::of(group.to_lowercase().as_bytes());
    format!("{}/{service}/{}", Groups::KIND, &digest.hex()[..32])
}
