//! Requests that carry an `Idempotency-Key`: a client that doesn't know whether its request arrived sends it again with the same key,
//! and gets the first answer instead of a second deploy.
//!
//! A stream is one key of one caller at one address. *Invariants.* A request is accepted before it is carried out, so that one key never
//! carries out two; its answer is recorded after. *Failure modes.* Where the server ends in between, nobody knows whether the request was
//! carried out: the key is refused from then on, until it expires, and the caller is told to look. A request that failed for a reason of
//! the server's own is released: it may be sent again with the same key.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::{Actor, Aggregate, Decider, Event, Pending, Row},
    ids::Digest,
};

/// How long a key is remembered.
pub const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The aggregate of keyed requests.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct KeyedRequests;

/// What is known of a key; nothing before its first request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State(pub Option<KeyedRequest>);

/// The request that a key was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequest {
    /// Its body.
    pub body: Digest,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How it was answered; none while it is carried out, and for ever where the server ended meanwhile.
    pub answer: Option<Answer>,
}

/// An answer, as it was first given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The HTTP status.
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
pub enum Body {
    /// A request is about to be carried out.
    Accepted {
        /// Its body.
        body: Digest,
    },
    /// It was carried out or refused.
    Answered {
        /// The answer.
        answer: Answer,
    },
    /// It failed for a reason of the server's own: the key is free again.
    Released,
}

/// What the API says to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A request with this body; no facts where it has its answer.
    Accept {
        /// The body.
        body: Digest,
    },
    /// How it was answered.
    Answer(Answer),
    /// It failed for a reason of the server's own.
    Release,
    /// Nothing.
    Woken,
}

/// A key asks nothing of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The key belongs to another request.
    #[error(
        "this Idempotency-Key was used for a request with another body: use a new key for a new request"
    )]
    OtherBody,
    /// The first request has no answer, and nothing carries it out any more.
    #[error(
        "the first request with this Idempotency-Key, of {accepted_at}, was interrupted by the end of the server, and may have been carried out: see `shipway history`, then use a new key"
    )]
    Interrupted {
        /// When it was accepted.
        accepted_at: Timestamp,
    },
}

impl State {
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
    pub fn answer(&self) -> Option<&Answer> {
        self.0.as_ref()?.answer.as_ref()
    }
}

impl Aggregate for KeyedRequests {
    const KIND: &'static str = "request";
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
        let mut decider = Decider::<Self>::new(state, by, now);
        let known = state.0.as_ref().filter(|_| !state.is_expired(now));
        match (input, known) {
            (Input::Accept { body }, None) => decider.emit(Body::Accepted { body }),
            (Input::Accept { body }, Some(known)) => match &known.answer {
                _ if known.body != body => return Err(Rejection::OtherBody),
                Some(_) => {}
                None => {
                    let accepted_at = known.accepted_at;
                    return Err(Rejection::Interrupted { accepted_at });
                }
            },
            (Input::Answer(answer), Some(known)) if known.answer.is_none() => {
                decider.emit(Body::Answered { answer });
            }
            (Input::Release, Some(known)) if known.answer.is_none() => decider.emit(Body::Released),
            (Input::Answer(_) | Input::Release | Input::Woken, _) => {}
        }
        Ok(decider.decided())
    }

    fn apply(state: &mut State, event: &Event<Body>) {
        match &event.body {
            Body::Accepted { body } => {
                state.0 = Some(KeyedRequest {
                    body: body.clone(),
                    accepted_at: event.at,
                    answer: None,
                });
            }
            Body::Answered { answer } => {
                if let Some(request) = &mut state.0 {
                    request.answer = Some(answer.clone());
                }
            }
            Body::Released => state.0 = None,
        }
    }

    fn pending(_state: &State, _now: Timestamp) -> Pending<Effect> {
        Pending::nothing()
    }

    fn rows(_state: &State, _events: &[Event<Body>]) -> Vec<Row> {
        Vec::new()
    }

    fn woken() -> Input {
        Input::Woken
    }
}

/// The stream of a caller's key at an address: `request/…`.
#[must_use]
pub fn stream(caller: &str, address: &str, key: &str) -> String {
    // Lengths, so that no two different triples make the same text.
    let all = format!("{} {} {caller}{address}{key}", caller.len(), address.len());
    let digest = Digest::of(all.as_bytes());
    format!("{}/{}", KeyedRequests::KIND, &digest.hex()[..40])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::fold;

    struct Key {
        state: State,
        now: Timestamp,
    }

    impl Key {
        fn new() -> Self {
            Self {
                state: State::default(),
                now: "2026-11-21T09:00:00Z".parse().unwrap(),
            }
        }

        fn say(&mut self, input: Input) -> Result<usize, Rejection> {
            let by = Actor::Person("ada".into());
            let events = KeyedRequests::decide(&self.state, input, by, self.now)?;
            fold::<KeyedRequests>(&mut self.state, &events);
            Ok(events.len())
        }

        fn accept(&mut self, body: &str) -> Result<usize, Rejection> {
            self.say(Input::Accept {
                body: Digest::of(body.as_bytes()),
            })
        }
    }

    fn answer(body: &str) -> Answer {
        Answer {
            status: 202,
            content_type: Some("application/json".into()),
            body: body.into(),
        }
    }

    #[test]
    fn a_request_is_accepted_once_and_answered_again() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        assert_eq!(key.say(Input::Answer(answer("one"))), Ok(1));
        assert_eq!(key.accept("a"), Ok(0), "it has its answer");
        assert_eq!(key.say(Input::Answer(answer("two"))), Ok(0));
        assert_eq!(key.state.answer(), Some(&answer("one")));
        assert_eq!(key.accept("b"), Err(Rejection::OtherBody));
    }

    #[test]
    fn where_the_server_ended_in_between_nothing_is_done_twice() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        let refused = key.accept("a").unwrap_err();
        assert!(
            matches!(refused, Rejection::Interrupted { .. }),
            "{refused}"
        );
        assert_eq!(key.accept("b"), Err(Rejection::OtherBody));
    }

    #[test]
    fn what_failed_by_the_servers_own_fault_may_be_sent_again() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        assert_eq!(key.say(Input::Release), Ok(1));
        assert_eq!(key.accept("b"), Ok(1));
        assert_eq!(key.say(Input::Answer(answer("b"))), Ok(1));
        assert_eq!(key.say(Input::Release), Ok(0));
    }

    #[test]
    fn a_key_expires_after_a_day() {
        let mut key = Key::new();
        assert_eq!(key.accept("a"), Ok(1));
        assert_eq!(key.say(Input::Answer(answer("a"))), Ok(1));
        key.now += SignedDuration::from_mins(24 * 60 - 1);
        assert!(!key.state.is_expired(key.now));
        assert_eq!(key.accept("b"), Err(Rejection::OtherBody));
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
