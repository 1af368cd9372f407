//! When a message is sent again, and when it becomes a dead letter.

use jiff::Timestamp;

use super::{
    AttemptFailure, DEAD_LETTERS_MAX, OutboxAddress, OutboxAggregate, OutboxEvent, OutboxInput,
    OutboxMessage, OutboxRejection, OutboxState, QUEUED_MAX, RetryPolicy,
};
use crate::aggregate::{Actor, Decider, Event};

/// Characters of an answer or a reason that are recorded.
const ANSWER_CHARS_MAX: usize = 300;
/// Characters of a title that are recorded.
const TITLE_CHARS_MAX: usize = 300;

pub(super) fn decide(
    state: &OutboxState,
    input: OutboxInput,
    by: Actor,
    now: Timestamp,
) -> Result<Vec<Event<OutboxEvent>>, OutboxRejection> {
    let mut decider = Decider::<OutboxAggregate>::new(state, by, now);
    match input {
        OutboxInput::Enqueue { address, message } => decider.enqueue(address, message),
        OutboxInput::Delivered { number, answer } => {
            if decider.state.first(number).is_some() {
                let answer = shorten(&answer, ANSWER_CHARS_MAX);
                decider.emit(OutboxEvent::MessageDelivered { number, answer });
            }
        }
        OutboxInput::Failed { number, failure } => decider.fail_attempt(number, &failure),
        OutboxInput::Resend { number } => {
            for number in selected_dead_letters(state, number)? {
                let new_number = decider.state.last_number + 1;
                decider.emit(OutboxEvent::DeadLetterResent { number, new_number });
                decider.drop_oldest_queued();
            }
        }
        OutboxInput::Remove { number } => {
            for number in selected_dead_letters(state, number)? {
                decider.emit(OutboxEvent::DeadLetterRemoved { number });
            }
        }
        OutboxInput::TimerFired => {}
    }
    Ok(decider.decided())
}

fn selected_dead_letters(
    state: &OutboxState,
    number: Option<u64>,
) -> Result<Vec<u64>, OutboxRejection> {
    match number {
        Some(number) if state.dead_letters.contains_key(&number) => Ok(vec![number]),
        Some(number) => Err(OutboxRejection::NoDeadLetter { number }),
        None => Ok(state.dead_letters.keys().copied().collect()),
    }
}

impl Decider<OutboxAggregate> {
    fn enqueue(&mut self, address: Box<OutboxAddress>, mut message: Box<OutboxMessage>) {
        if self.state.remembered_ids.contains(&message.id) {
            return;
        }
        message.title = shorten(&message.title, TITLE_CHARS_MAX);
        let is_new = self.state.address.as_ref() != Some(&*address);
        self.emit(OutboxEvent::MessageQueued {
            number: self.state.last_number + 1,
            message,
            address: is_new.then_some(address),
        });
        self.drop_oldest_queued();
    }

    fn fail_attempt(&mut self, number: u64, failure: &AttemptFailure) {
        let Some(first) = self.state.first(number) else {
            return;
        };
        let attempts = first.attempts + 1;
        let why = shorten(&failure.why, ANSWER_CHARS_MAX);
        let wait = RetryPolicy::default().wait(attempts, failure.retry_after);
        match wait.filter(|_| failure.is_retryable) {
            Some(wait) => self.emit(OutboxEvent::AttemptFailed {
                number,
                attempts,
                why,
                retry_at: self.now.checked_add(wait).unwrap_or(Timestamp::MAX),
            }),
            None => self.give_up(number, why),
        }
    }

    fn give_up(&mut self, number: u64, why: String) {
        self.emit(OutboxEvent::DeadLettered { number, why });
        if self.state.dead_letters.len() > DEAD_LETTERS_MAX {
            let oldest = *self.state.dead_letters.keys().next().expect("not empty");
            self.emit(OutboxEvent::DeadLetterRemoved { number: oldest });
        }
    }

    fn drop_oldest_queued(&mut self) {
        if self.state.queue.len() > QUEUED_MAX {
            let oldest = self.state.queue.front().expect("not empty").number;
            let why = format!("{QUEUED_MAX} newer messages wait for this receiver");
            self.give_up(oldest, why);
        }
    }
}

/// One line without control characters, of at most so many characters.
fn shorten(text: &str, chars_max: usize) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let mut rest = text.chars().map(line);
    let mut short: String = rest.by_ref().take(chars_max).collect();
    if rest.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}
