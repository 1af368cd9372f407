//! Requests with an `Idempotency-Key`: a client that doesn't know whether its request arrived sends it again with the same key,
//! and gets the first answer instead of a second deploy. A stream is one key of one caller for one address.
//!
//! # Invariants
//!
//! - A request is accepted before it is carried out, so that one key is never carried out twice; its answer is recorded
//!   afterwards.
//!
//! # Failure modes
//!
//! - The server crashes between the two: it is unknown whether the request was carried out. The key is rejected until it
//!   expires, and the caller must check.
//! - The request fails because of the server itself: the key is released, and the request may be sent again with it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::{Actor, Aggregate, Decider, Event, PendingWork, ViewRow},
    ids::Digest,
};

/// How long a key is remembered.
pub const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The aggregate of keyed requests.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct KeyedRequests;

/// The request of a key; `None` before the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequestState(pub Option<KeyedRequest>);

/// The request that a key was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequest {
    pub body: Digest,
    pub accepted_at: Timestamp,
    /// How it was answered; none while it is carried out, and for ever where the server ended meanwhile.
    pub answer: Option<RecordedResponse>,
}

/// An answer, as it was first given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedResponse {
    pub status: u16,
    /// The header `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The body: a document of the API.
    pub body: String,
}

/// The facts of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyedRequestEvent {
    /// A request is about to be carried out.
    Accepted { body: Digest },
    /// It was carried out or refused.
    Answered { answer: RecordedResponse },
    /// It failed for a reason of the server's own: the key is free again.
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyedRequestInput {
    /// A request with this body; no facts where it has its answer.
    Accept {
        body: Digest,
    },
    Answer(RecordedResponse),
    /// It failed for a reason of the server's own.
    Release,
    TimerFired,
}

/// A key asks nothing of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyedRequestEffect {}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyedRequestRejection {
    /// The key belongs to another request.
    #[error(
        "this Idempotency-Key was used for a request with another body: use a new key for a new request"
    )]
    OtherBody,
    /// The first request has no answer, and nothing carries it out any more.
    #[error(
        "the first request with this Idempotency-Key, of {accepted_at}, was interrupted by the end of the server, and may have been carried out: see `shipway history`, then use a new key"
    )]
    Interrupted { accepted_at: Timestamp },
}

impl KeyedRequestState {
    /// Whether nothing needs to be remembered any more.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        let expires = |request: &KeyedRequest| request.accepted_at.checked_add(KEY_LIFETIME).ok();
        self.0
            .as_ref()
            .is_none_or(|it| expires(it).is_some_and(|at| at <= now))
    }

    /// The answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&RecordedResponse> {
        self.0.as_ref()?.answer.as_ref()
    }
}

impl Aggregate for KeyedRequests {
    const KIND: &'static str = "request";
    type State = KeyedRequestState;
    type Body = KeyedRequestEvent;
    type Input = KeyedRequestInput;
    type Effect = KeyedRequestEffect;
    type Rejection = KeyedRequestRejection;

    fn decide(
        state: &KeyedRequestState,
        input: KeyedRequestInput,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<KeyedRequestEvent>>, KeyedRequestRejection> {
        let mut decider = Decider::<Self>::new(state, by, now);
        let known = state.0.as_ref().filter(|_| !state.is_expired(now));
        match (input, known) {
            (KeyedRequestInput::Accept { body }, None) => {
                decider.emit(KeyedRequestEvent::Accepted { body })
            }
            (KeyedRequestInput::Accept { body }, Some(known)) => match &known.answer {
                _ if known.body != body => return Err(KeyedRequestRejection::OtherBody),
                Some(_) => {}
                None => {
                    let accepted_at = known.accepted_at;
                    return Err(KeyedRequestRejection::Interrupted { accepted_at });
                }
            },
            (KeyedRequestInput::Answer(answer), Some(known)) if known.answer.is_none() => {
                decider.emit(KeyedRequestEvent::Answered { answer });
            }
            (KeyedRequestInput::Release, Some(known)) if known.answer.is_none() => {
                decider.emit(KeyedRequestEvent::Released)
            }
            (
                KeyedRequestInput::Answer(_)
                | KeyedRequestInput::Release
                | KeyedRequestInput::TimerFired,
                _,
            ) => {}
        }
        Ok(decider.decided())
    }

    fn apply(state: &mut KeyedRequestState, event: &Event<KeyedRequestEvent>) {
        match &event.body {
            KeyedRequestEvent::Accepted { body } => {
                state.0 = Some(KeyedRequest {
                    body: body.clone(),
                    accepted_at: event.at,
                    answer: None,
                });
            }
            KeyedRequestEvent::Answered { answer } => {
                if let Some(request) = &mut state.0 {
                    request.answer = Some(answer.clone());
                }
            }
            KeyedRequestEvent::Released => state.0 = None,
        }
    }

    fn pending(_state: &KeyedRequestState, _now: Timestamp) -> PendingWork<KeyedRequestEffect> {
        PendingWork::nothing()
    }

    fn rows(_state: &KeyedRequestState, _events: &[Event<KeyedRequestEvent>]) -> Vec<ViewRow> {
        Vec::new()
    }

    fn timer_fired() -> KeyedRequestInput {
        KeyedRequestInput::TimerFired
    }
}

/// The stream of a caller's key at an address: `request/…`.
#[must_use]
pub fn stream(caller: &str, address: &str, key: &str) -> String {
    // Lengths, so that no two different triples make the same text.
    let all = format!("{} {} {caller}{address}{key}", caller.len(), address.len());
    let digest = Digest::compute(all.as_bytes());
    format!("{}/{}", KeyedRequests::KIND, &digest.hex()[..40])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fold;

    struct Key {
        state: KeyedRequestState,
        now: Timestamp,
    }

    impl Key {
        fn new() -> Self {
            Self {
                state: KeyedRequestState::default(),
                now: "2026-11-21T09:00:00Z".parse().unwrap(),
            }
        }

        fn say(&mut self, input: KeyedRequestInput) -> Result<usize, KeyedRequestRejection> {
            let by = crate::access::Principal::person("ada").actor();
            let events = KeyedRequests::decide(&self.state, input, by, self.now)?;
            fold::<KeyedRequests>(&mut self.state, &events);
            Ok(events.len())
        }

        fn accept(&mut self, body: &str) -> Result<usize, KeyedRequestRejection> {
            self.say(KeyedRequestInput::Accept {
                body: Digest::compute(body.as_bytes()),
            })
        }
    }

    fn answer(body: &str) -> RecordedResponse {
        RecordedResponse {
            status: 202,
            content_type: Some("application/json".into()),
            body: body.into(),
        }
    }

    #[test]
    fn a_request_is_accepted_once_and_answered_again() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        assert_eq!(key.say(KeyedRequestInput::Answer(answer("one"))), Ok(1));
        assert_eq!(key.accept("a"), Ok(0), "it has its answer");
        assert_eq!(key.say(KeyedRequestInput::Answer(answer("two"))), Ok(0));
        assert_eq!(key.state.answer(), Some(&answer("one")));
        assert_eq!(key.accept("b"), Err(KeyedRequestRejection::OtherBody));
    }

    #[test]
    fn where_the_server_ended_in_between_nothing_is_done_twice() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        let refused = key.accept("a").unwrap_err();
        assert!(
            matches!(refused, KeyedRequestRejection::Interrupted { .. }),
            "{refused}"
        );
        assert_eq!(key.accept("b"), Err(KeyedRequestRejection::OtherBody));
    }

    #[test]
    fn what_failed_by_the_servers_own_fault_may_be_sent_again() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        assert_eq!(key.say(KeyedRequestInput::Release), Ok(1));
        assert_eq!(key.accept("b"), Ok(1));
        assert_eq!(key.say(KeyedRequestInput::Answer(answer("b"))), Ok(1));
        assert_eq!(key.say(KeyedRequestInput::Release), Ok(0));
    }

    #[test]
    fn a_key_expires_after_a_day() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        assert_eq!(key.say(KeyedRequestInput::Answer(answer("a"))), Ok(1));
        key.now += SignedDuration::from_mins(24 * 60 - 1);
        assert!(!key.state.is_expired(key.now));
        assert_eq!(key.accept("b"), Err(KeyedRequestRejection::OtherBody));
        key.now += SignedDuration::from_mins(1);
        assert!(key.state.is_expired(key.now));
        assert_eq!(key.accept("b"), Ok(1));
        assert_eq!(key.state.answer(), None);
    }

    #[test]
    fn streams_tell_callers_addresses_and_keys_apart() {
        let all = [
            stream("a", "bc", "d"),
            stream("ab", "c", "d"),
            stream("a", "b", "cd"),
            stream("", "abc", "d"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
