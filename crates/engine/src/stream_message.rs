//! The messages to the task of a stream.

use std::sync::Arc;

use shipway_core::aggregate::{Actor, Aggregate, EffectKey};
use tokio::sync::oneshot;

use crate::{
    outcome::{EngineError, Outcome},
    store::StoreError,
};

pub(crate) type InputReply<A> =
    oneshot::Sender<Result<Outcome<A>, EngineError<<A as Aggregate>::Rejection>>>;

/// Messages to a stream.
pub(crate) enum StreamMessage<A: Aggregate> {
    Input {
        input: A::Input,
        by: Actor,
        reply: InputReply<A>,
    },
    /// An effect has ended; `None` if its driver panicked.
    EffectEnded {
        key: EffectKey,
        dispatch: u64,
        input: Option<A::Input>,
    },
    Peek {
        reply: oneshot::Sender<Result<Option<Arc<A::State>>, StoreError>>,
    },
}
