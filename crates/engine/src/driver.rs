//! Who carries effects out.

use std::sync::Arc;

use async_trait::async_trait;
use shipway_core::aggregate::{Actor, Aggregate, EffectKey};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, Outcome};

/// Carries out the effects of one aggregate. It decides nothing: an effect comes in, an input goes back.
///
/// After a crash the same effect comes again under the same key; a driver does it again harmlessly, or finds it done.
#[async_trait]
pub trait Driver<A: Aggregate>: Send + Sync + 'static {
    /// Does the work and says how it went. When `work.cancelled` fires, nobody waits for the answer any more.
    async fn carry_out(&self, work: Work<A>) -> A::Input;
}

/// One effect to be carried out.
pub struct Work<A: Aggregate> {
    /// The stream it belongs to.
    pub stream: String,
    /// The state when it was dispatched.
    pub state: Arc<A::State>,
    /// Its idempotency key.
    pub key: EffectKey,
    /// What to do.
    pub effect: A::Effect,
    /// For what there is to say before the end.
    pub report: Reporter<A>,
    /// Fires when the work is no longer wanted.
    pub cancelled: CancellationToken,
}

/// Says things to a stream while its effect is being carried out.
pub struct Reporter<A: Aggregate> {
    pub(crate) engine: Engine<A>,
    pub(crate) stream: String,
    pub(crate) by: Actor,
}

impl<A: Aggregate> Reporter<A> {
    /// Says `input`, and returns when what follows is durable.
    pub async fn send(&self, input: A::Input) -> Result<Outcome<A>, EngineError<A::Rejection>> {
        self.engine.send(&self.stream, input, self.by.clone()).await
    }
}
