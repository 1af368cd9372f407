//! The interface of drivers, which carry out effects.

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::aggregate::{Actor, Aggregate, EffectKey};
use tokio_util::sync::CancellationToken;

use crate::outcome::{EngineError, Outcome};

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

/// Sends inputs to streams: of the engine, the part that a driver may use.
#[async_trait]
pub(crate) trait InputSender<A: Aggregate>: Send + Sync {
    /// Returns when the events of the input are durable.
    async fn send_input(
        &self,
        stream: &str,
        input: A::Input,
        by: Actor,
    ) -> Result<Outcome<A>, EngineError<A::Rejection>>;
}

/// Sends inputs to a stream while its effect is being carried out.
pub struct Reporter<A: Aggregate> {
    pub(crate) inputs: Arc<dyn InputSender<A>>,
    pub(crate) stream: String,
    pub(crate) by: Actor,
}

impl<A: Aggregate> Reporter<A> {
    /// Sends `input`; returns when its events are durable.
    pub async fn send(&self, input: A::Input) -> Result<Outcome<A>, EngineError<A::Rejection>> {
        let by = self.by.clone();
        self.inputs.send_input(&self.stream, input, by).await
    }
}
