//! The outbox: messages on their way to receivers outside Shipway, such as chats, mailboxes, pagers and forges.
//!
//! # Why
//!
//! A receiver may be down for a day, and the server may be killed at any moment. A message is an event before anything is sent, so it
//! survives both; and each receiver has a stream of its own, so that none delays another or a rollout.
//!
//! # Invariants
//!
//! - At least once: a message leaves the queue only with the receiver's acceptance, as a dead letter, or at a person's request. Its id
//!   is the same at each attempt, so that receivers can ignore repetitions.
//! - In order: only the oldest message of a channel is sent. A message that is sent again is the newest.
//! - Everything has a limit: waiting messages, dead letters, attempts, characters of a reason.
//! - The log contains no secret: an address names secrets as `$NAME`, or is sealed in the settings.

mod decide;
mod event;
mod message;
mod retry;
mod state;
#[cfg(test)]
mod tests;
mod view;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use event::{AttemptFailure, OutboxEffect, OutboxEvent, OutboxInput, OutboxRejection};
pub use message::{ChannelId, OutboxAddress, OutboxMessage, ParseChannelIdError};
pub use retry::RetryPolicy;
pub use state::{DeadLetter, LastDelivery, OutboxState, QueuedMessage};
pub use view::{ChannelView, DeadLetterView};

use crate::aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow};

/// Messages that wait in a channel; a further one makes the oldest a dead letter.
pub const QUEUED_MAX: usize = 1_000;
/// Dead letters of a channel; a further one removes the oldest.
pub const DEAD_LETTERS_MAX: usize = 200;
/// Ids of queued messages that are remembered, so that a message queued again after a crash is recognised.
pub const REMEMBERED_IDS_MAX: usize = 256;

/// The aggregate of channels.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct OutboxAggregate;

impl Aggregate for OutboxAggregate {
    const KIND: &'static str = "outbox";
    type State = OutboxState;
    type Body = OutboxEvent;
    type Input = OutboxInput;
    type Effect = OutboxEffect;
    type Rejection = OutboxRejection;

    fn decide(
        state: &OutboxState,
        input: OutboxInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<OutboxEvent>>, OutboxRejection> {
        decide::decide(state, input, by, now)
    }

    fn apply(state: &mut OutboxState, event: &Event<OutboxEvent>) {
        state.apply(event);
    }

    fn pending(state: &OutboxState, now: Timestamp) -> PendingWork<OutboxEffect> {
        state.pending(now)
    }

    fn rows(state: &OutboxState, events: &[Event<OutboxEvent>]) -> Vec<ViewRow> {
        view::rows(state, events)
    }

    fn timer_fired() -> OutboxInput {
        OutboxInput::TimerFired
    }
}
