//! The interface of drivers, which carry out effects.

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::aggregate::{Actor, Aggregate, EffectKey};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Outcome};

/// Carries out the effects of one aggregate. It decides nothing: it gets an effect and returns an input.
///
/// After a crash the same effect is dispatched again under the same key: a driver must be idempotent.
#[async_trait]
pub trait Driver<A: Aggregate>: Send + Sync + 'static {
    /// Carries out the effect and returns its result. When `work.cancelled` fires the result is no longer needed.
    async fn carry_out(&self, work: Work<A>) -> A::Input;
}

/// An effect to carry out.
pub struct Work<A: Aggregate> {
    /// The effect's stream.
    pub stream: String,
    /// The state when the effect was dispatched.
    pub state: Arc<A::State>,
    /// The idempotency key.
    pub key: EffectKey,
    /// The effect.
    pub effect: A::Effect,
    /// Sends inputs before the effect has ended.
    pub report: Reporter<A>,
    /// Fires when the effect is no longer needed.
    pub cancelled: CancellationToken,
}

/// Sends inputs to a stream while its effect is being carried out.
pub struct Reporter<A: Aggregate> {
    pub(crate) engine: Engine<A>,
    pub(crate) stream: String,
    pub(crate) by: Actor,
}

impl<A: Aggregate> Reporter<A> {
    /// Sends `input`; returns when its events are durable.
    pub async fn send(&self, input: A::Input) -> Result<Outcome<A>, EngineError<A::Rejection>> {
        self.engine.send(&self.stream, input, self.by.clone()).await
    }
}
