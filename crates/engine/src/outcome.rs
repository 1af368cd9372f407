//! The result of an input.

use std::sync::Arc;

use shipway_core::aggregate::{Aggregate, Event};

use crate::store::StoreError;

/// The result of an input.
#[derive(Debug)]
pub struct Outcome<A: Aggregate> {
    /// The version of the stream afterwards.
    pub version: u64,
    /// The durable events; empty if nothing changed.
    pub events: Vec<Event<A::Body>>,
    /// The state afterwards.
    pub state: Arc<A::State>,
}

/// Why an input had no effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError<R: std::error::Error> {
    /// The aggregate rejected it with a reason.
    #[error(transparent)]
    Rejected(R),
    /// The log can't be read or written; nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine is stopping; retry at the next server.
    #[error("the server is stopping")]
    Stopping,
}
