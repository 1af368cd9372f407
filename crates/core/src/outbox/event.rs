//! The facts about a channel of the outbox.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{OutboxAddress, OutboxMessage};

/// Messages are numbered from 1 in each channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxEvent {
    MessageQueued {
        number: u64,
        message: Box<OutboxMessage>,
        /// Only where it differs from that of the message before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Box<OutboxAddress>>,
    },
    MessageDelivered {
        number: u64,
        /// What the receiver answered, in short.
        answer: String,
    },
    AttemptFailed {
        number: u64,
        /// Attempts so far.
        attempts: u32,
        why: String,
        retry_at: Timestamp,
    },
    /// No further attempt is made unless a person asks for it.
    DeadLettered { number: u64, why: String },
    /// A dead letter is in the queue again, as the newest message.
    DeadLetterResent { number: u64, new_number: u64 },
    /// A dead letter was removed: by a person, or because there were too many.
    DeadLetterRemoved { number: u64 },
}

/// A request or a report.
#[derive(Clone, Debug, PartialEq)]
pub enum OutboxInput {
    Enqueue {
        address: Box<OutboxAddress>,
        message: Box<OutboxMessage>,
    },
    Delivered {
        number: u64,
        answer: String,
    },
    Failed {
        number: u64,
        failure: AttemptFailure,
    },
    /// Sends one dead letter again, or all of them, in their order.
    Resend {
        number: Option<u64>,
    },
    /// Removes one dead letter, or all of them.
    Remove {
        number: Option<u64>,
    },
    TimerFired,
}

/// Why a message was not delivered. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailure {
    pub why: String,
    /// Whether a later attempt may succeed.
    pub is_retryable: bool,
    /// The pause that the receiver asked for.
    pub retry_after: Option<Duration>,
}

/// What a channel asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum OutboxEffect {
    /// Send the message; answer with [`OutboxInput::Delivered`] or [`OutboxInput::Failed`].
    Deliver { number: u64, attempt: u32 },
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboxRejection {
    #[error("there is no dead letter {number}: see `shipway notify dead`")]
    NoDeadLetter { number: u64 },
}
