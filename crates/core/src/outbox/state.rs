//! The queue and the dead letters of a channel.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{OutboxAddress, OutboxEffect, OutboxEvent, OutboxMessage, REMEMBERED_IDS_MAX};
use crate::aggregate::{Event, PendingWork};

/// One channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutboxState {
    /// None before the first message.
    pub address: Option<OutboxAddress>,
    /// The number of the newest message.
    pub last_number: u64,
    /// In their order; the first is being sent.
    pub queue: VecDeque<QueuedMessage>,
    /// By number.
    pub dead_letters: BTreeMap<u64, DeadLetter>,
    pub last_delivery: Option<LastDelivery>,
    /// Ids of the newest messages.
    pub remembered_ids: VecDeque<String>,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueuedMessage {
    pub number: u64,
    pub queued_at: Timestamp,
    pub message: OutboxMessage,
    /// Attempts that failed.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub why: Option<String>,
    /// When the next attempt is due; none: now.
    pub retry_at: Option<Timestamp>,
}

/// A message that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub queued_at: Timestamp,
    pub died_at: Timestamp,
    pub message: OutboxMessage,
    pub attempts: u32,
    pub why: String,
}

/// The newest message that the receiver accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDelivery {
    pub at: Timestamp,
    pub title: String,
    pub answer: String,
}

impl OutboxState {
    pub(super) fn apply(&mut self, event: &Event<OutboxEvent>) {
        match &event.body {
            OutboxEvent::MessageQueued {
                number,
                message,
                address,
            } => {
                if let Some(address) = address {
                    self.address = Some((**address).clone());
                }
                self.remember_id(&message.id);
                self.queue_message(*number, event.at, (**message).clone());
            }
            OutboxEvent::MessageDelivered { number, answer } => {
                if let Some(delivered) = self.take_queued(*number) {
                    self.last_delivery = Some(LastDelivery {
                        at: event.at,
                        title: delivered.message.title,
                        answer: answer.clone(),
                    });
                }
            }
            OutboxEvent::AttemptFailed {
                number,
                attempts,
                why,
                retry_at,
            } => {
                let mut queue = self.queue.iter_mut();
                if let Some(failed) = queue.find(|it| it.number == *number) {
                    failed.attempts = *attempts;
                    failed.why = Some(why.clone());
                    failed.retry_at = Some(*retry_at);
                }
            }
            OutboxEvent::DeadLettered { number, why } => {
                if let Some(dead) = self.take_queued(*number) {
                    let letter = DeadLetter {
                        queued_at: dead.queued_at,
                        died_at: event.at,
                        message: dead.message,
                        attempts: dead.attempts,
                        why: why.clone(),
                    };
                    self.dead_letters.insert(*number, letter);
                }
            }
            OutboxEvent::DeadLetterResent { number, new_number } => {
                if let Some(letter) = self.dead_letters.remove(number) {
                    self.queue_message(*new_number, event.at, letter.message);
                }
            }
            OutboxEvent::DeadLetterRemoved { number } => {
                self.dead_letters.remove(number);
            }
        }
    }

    fn queue_message(&mut self, number: u64, queued_at: Timestamp, message: OutboxMessage) {
        self.last_number = self.last_number.max(number);
        self.queue.push_back(QueuedMessage {
            number,
            queued_at,
            message,
            attempts: 0,
            why: None,
            retry_at: None,
        });
    }

    fn take_queued(&mut self, number: u64) -> Option<QueuedMessage> {
        let index = self.queue.iter().position(|it| it.number == number)?;
        self.queue.remove(index)
    }

    fn remember_id(&mut self, id: &str) {
        if self.remembered_ids.len() >= REMEMBERED_IDS_MAX {
            self.remembered_ids.pop_front();
        }
        self.remembered_ids.push_back(id.to_owned());
    }

    /// The message that is sent now or next.
    #[must_use]
    pub fn first(&self, number: u64) -> Option<&QueuedMessage> {
        self.queue.front().filter(|it| it.number == number)
    }

    pub(super) fn pending(&self, now: Timestamp) -> PendingWork<OutboxEffect> {
        let Some(first) = self.queue.front() else {
            return PendingWork::nothing();
        };
        if let Some(retry_at) = first.retry_at.filter(|at| *at > now) {
            return PendingWork {
                effects: Vec::new(),
                wake_at: Some(retry_at),
                live: true,
            };
        }
        let (number, attempt) = (first.number, first.attempts + 1);
        let effect = OutboxEffect::Deliver { number, attempt };
        PendingWork {
            effects: vec![(format!("deliver-{number}-{attempt}").into(), effect)],
            wake_at: None,
            live: true,
        }
    }
}
