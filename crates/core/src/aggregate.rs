//! The shape of every event-sourced state machine: facts, a state folded from them, and the effects that are outstanding.
//!
//! An aggregate decides (`decide` rejects an input or returns facts), folds (`apply` never fails and never rejects), and
//! derives outstanding work (`pending`). It never acts: drivers carry out effects and answer with an input.

use std::fmt::Debug;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{ids::AccessTokenId, principal_id::PrincipalId};

/// One fact: when, who or what caused it, and the fact itself. This is what the log stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event<B> {
    pub at: Timestamp,
    pub by: Actor,
    pub body: B,
}

/// Who or what causes an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A person, by the name they authenticated with or gave.
    Person {
        principal: PrincipalId,
        name: String,
        /// The access token that the person's program presented.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<AccessTokenId>,
    },
    /// Shipway itself, and why: "the analysis failed".
    Shipway(String),
    /// A job or an instance.
    Workload { principal: PrincipalId },
    /// A git push, by the name the pusher gave.
    Push {
        principal: PrincipalId,
        name: String,
    },
}

impl Actor {
    /// The principal whose request it was; the system when there was no request.
    #[must_use]
    pub fn principal(&self) -> PrincipalId {
        match self {
            Self::Person { principal, .. }
            | Self::Workload { principal }
            | Self::Push { principal, .. } => principal.clone(),
            Self::Shipway(_) => PrincipalId::system(),
        }
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Person { name, .. } | Self::Push { name, .. } => f.write_str(name),
            Self::Shipway(_) | Self::Workload { .. } => f.write_str("shipway"),
        }
    }
}

/// A stream of events and the pure functions over it.
pub trait Aggregate: Send + Sync + 'static {
    /// The first segment of its stream names: `run`, `rollout`, `service`.
    const KIND: &'static str;
    /// What the events fold into. `Default` is the state before the first event.
    type State: Clone + Default + Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The closed set of facts.
    type Body: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Commands of people and reports of drivers.
    type Input: Clone + Debug + Send + Sync + 'static;
    /// Work for a driver. Equal effects under one key are the same work.
    type Effect: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// Why an input is refused, with what the caller can do about it.
    type Rejection: std::error::Error + Clone + Send + Sync + 'static;

    /// Facts that follow from `input`, or why it is refused. An input that changes nothing gives no facts.
    fn decide(
        state: &Self::State,
        input: Self::Input,
        by: Actor,
        now: Timestamp,
    ) -> Result<Vec<Event<Self::Body>>, Self::Rejection>;

    /// Folds one fact. Total: reads every version ever written.
    fn apply(state: &mut Self::State, event: &Event<Self::Body>);

    /// Outstanding effects, derived from the state alone.
    fn pending(state: &Self::State, now: Timestamp) -> PendingWork<Self::Effect>;

    /// What lists and pages show of this stream: one row per thing that changed. Rows are caches and can be rebuilt.
    fn rows(state: &Self::State, events: &[Event<Self::Body>]) -> Vec<ViewRow>;

    /// The input that the engine feeds back when `wake_at` has come.
    fn timer_fired() -> Self::Input;
}

/// Facts in the making: each is folded in at once, so that later rules see what earlier ones decided.
pub(crate) struct Decider<A: Aggregate> {
    pub(crate) state: A::State,
    pub(crate) by: Actor,
    pub(crate) now: Timestamp,
    events: Vec<Event<A::Body>>,
}

impl<A: Aggregate> Decider<A> {
    pub(crate) fn new(state: &A::State, by: Actor, now: Timestamp) -> Self {
        Self {
            state: state.clone(),
            by,
            now,
            events: Vec::new(),
        }
    }

    pub(crate) fn emit(&mut self, body: A::Body) {
        let event = Event {
            at: self.now,
            by: self.by.clone(),
            body,
        };
        A::apply(&mut self.state, &event);
        self.events.push(event);
    }

    /// All facts, in order.
    pub(crate) fn decided(self) -> Vec<Event<A::Body>> {
        self.events
    }
}

/// What the world still owes a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingWork<E> {
    /// Work that should be under way now, each under an idempotency key unique within the stream: after a crash the same keys
    /// come out again. Work whose key no longer comes out is cancelled.
    pub effects: Vec<(EffectKey, E)>,
    /// When to feed [`Aggregate::timer_fired`] if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// Whether the stream must be loaded at start: something is outstanding or may still happen by itself.
    pub live: bool,
}

impl<E> PendingWork<E> {
    /// No effects and no timer: the stream is idle until its next input.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            effects: Vec::new(),
            wake_at: None,
            live: false,
        }
    }
}

/// The idempotency key of an effect, unique within its stream: `action-3`, `notify-2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectKey(pub String);

impl<T: Into<String>> From<T> for EffectKey {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// Kinds of rows that keep their place in lists when they change: a list of what exists now would lose entries that change while its
/// pages are read.
const KINDS_BY_CREATION: [&str; 3] = ["service", "environment", "address"];

/// One row of a read model: a JSON document under (kind, key), found by service and in order of its last change, or of its creation
/// ([`ViewRow::is_listed_by_creation`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewRow {
    /// `run`, `rollout`, `release`, `service`.
    pub kind: String,
    /// Unique within the kind: `shop/12`.
    pub key: String,
    /// The service it belongs to; empty when none.
    pub service: String,
    /// Whether it is still moving; lists can ask for these alone.
    pub live: bool,
    /// `null` deletes the row.
    pub doc: serde_json::Value,
}

impl ViewRow {
    /// Whether lists have it in the order of its creation, not of its last change.
    #[must_use]
    pub fn is_listed_by_creation(&self) -> bool {
        KINDS_BY_CREATION.contains(&self.kind.as_str())
    }

    /// Deletes the row of this kind and key.
    #[must_use]
    pub fn deleted(kind: &str, key: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            key: key.to_owned(),
            service: String::new(),
            live: false,
            doc: serde_json::Value::Null,
        }
    }
}

/// Folds `events` into `state`.
pub fn fold<'e, A: Aggregate>(
    state: &mut A::State,
    events: impl IntoIterator<Item = &'e Event<A::Body>>,
) {
    for event in events {
        A::apply(state, event);
    }
}
