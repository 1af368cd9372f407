//! The engines of the aggregates that requests and effects are about.

use std::sync::Arc;

use shipway_core::{
    address::claims::{AddressClaims, ClaimsState, STREAM},
    aggregate::{Actor, Aggregate as _},
    concurrency::ConcurrencyGroups,
    forge::ForgeAggregate,
    ids::{RolloutId, ServiceName},
    outbox::{
        ChannelId, OutboxAddress, OutboxAggregate, OutboxInput, OutboxMessage, OutboxRejection,
    },
    rollout::{RolloutAggregate, RolloutState},
    run::RunAggregate,
    secret::SecretAggregate,
    service::{ServiceAggregate, ServiceInput, ServiceRejection, ServiceState},
};
use shipway_engine::{Engine, EngineError, Outcome, StoreError};

/// The branch that is released when no configuration names one.
pub(crate) const DEFAULT_BRANCH: &str = "main";

/// One engine for each aggregate. Drivers hold a weak reference to them, because the engines hold the drivers.
pub(crate) struct DeliveryEngines {
    pub(crate) services: Engine<ServiceAggregate>,
    pub(crate) runs: Engine<RunAggregate>,
    /// Concurrency groups.
    pub(crate) groups: Engine<ConcurrencyGroups>,
    pub(crate) rollouts: Engine<RolloutAggregate>,
    /// Claims of addresses.
    pub(crate) addresses: Engine<AddressClaims>,
    /// Secrets and variables.
    pub(crate) secrets: Engine<SecretAggregate>,
    /// Messages on their way to receivers outside Shipway.
    pub(crate) outbox: Engine<OutboxAggregate>,
    /// Connections to forges.
    pub(crate) forges: Engine<ForgeAggregate>,
}

impl DeliveryEngines {
    /// The state of a service; none before its first push.
    pub(crate) async fn service(
        &self,
        service: &ServiceName,
    ) -> Result<Option<Arc<ServiceState>>, StoreError> {
        self.services.state(&service_stream(service)).await
    }

    /// The branch of a service that is released.
    pub(crate) async fn released_branch(&self, service: &ServiceName) -> String {
        let state = self.service(service).await.ok().flatten();
        let config = state.as_ref().and_then(|state| state.config.as_ref());
        config.map_or_else(|| DEFAULT_BRANCH.to_owned(), |config| config.branch.clone())
    }

    /// Sends an input to a service.
    pub(crate) async fn send_to_service(
        &self,
        service: &ServiceName,
        input: ServiceInput,
        by: Actor,
    ) -> Result<Outcome<ServiceAggregate>, EngineError<ServiceRejection>> {
        self.services
            .send(&service_stream(service), input, by)
            .await
    }

    /// Puts a message into the queue of its address. It is durable when this returns; the same id is accepted once.
    pub(crate) async fn enqueue(
        &self,
        address: OutboxAddress,
        message: OutboxMessage,
    ) -> Result<(), EngineError<OutboxRejection>> {
        let stream = ChannelId::for_address(&address).stream();
        let (address, message) = (Box::new(address), Box::new(message));
        let input = OutboxInput::Enqueue { address, message };
        let by = Actor::Shipway("a notification".to_owned());
        self.outbox.send(&stream, input, by).await.map(|_| ())
    }

    /// The state of a rollout.
    pub(crate) async fn rollout(&self, id: &RolloutId) -> Option<Arc<RolloutState>> {
        self.rollouts.state(&id.stream()).await.ok().flatten()
    }

    /// All claims of addresses.
    pub(crate) async fn address_claims(&self) -> Result<ClaimsState, StoreError> {
        let state = self.addresses.state(STREAM).await?;
        Ok(state.map(|state| (*state).clone()).unwrap_or_default())
    }

    /// Resumes the work that was in progress when the last server ended.
    pub(crate) async fn resume(&self) -> Result<(), StoreError> {
        self.addresses.resume().await?;
        self.services.resume().await?;
        self.rollouts.resume().await?;
        self.groups.resume().await?;
        self.outbox.resume().await?;
        self.runs.resume().await
    }

    /// Resumes webhooks and reports. After the pushes that were missed, which are older.
    pub(crate) async fn resume_forges(&self) -> Result<(), StoreError> {
        self.forges.resume().await
    }

    /// Stops all engines; their streams resume at the next start.
    pub(crate) async fn stop(&self) {
        self.forges.stop().await;
        self.services.stop().await;
        self.rollouts.stop().await;
        self.runs.stop().await;
        self.groups.stop().await;
        self.addresses.stop().await;
        self.secrets.stop().await;
        self.outbox.stop().await;
    }
}

fn service_stream(service: &ServiceName) -> String {
    format!("{}/{service}", ServiceAggregate::KIND)
}
