//! Addresses of environments: claimed for pushes and rollouts, kept in step with what services ask for, and changed in the routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    address::{
        PublicAddress,
        claims::{
            self, AddressClaims, AskedAddresses, ClaimOverlap, ClaimRequest, ClaimStage, PortUse,
            STREAM,
        },
    },
    aggregate::Actor,
    config::ServiceConfig,
    ids::{ReleaseNumber, ServiceName},
    rollout::{RolloutAggregate, RolloutSpec},
    service,
};
use shipway_engine::{Driver, EngineError, StoreError, Work};
use shipway_targets::traffic_control::TrafficError;
use tokio::time::{Instant, sleep};

use crate::{
    app::{App, service_stream},
    served_addresses::served_at,
};

/// How long a rollout waits for another program to free its port. Longer helps few, and the reason should be shown soon.
const PORT_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at whether the proxy listens: no event tells when another program frees a port.
const PORT_PAUSE: Duration = Duration::from_millis(250);

/// Why addresses can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Others have them.
    #[error("{0}; ask for another address with `hosts`, `path` or `port`")]
    Taken(claims::ClaimsRejection),
    /// The port can't be listened on.
    #[error("the proxy can't listen on port {port}: {reason}")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        reason: String,
    },
    /// The data plane refuses the routes.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// The log can't be read or written.
    #[error("the claims of addresses can't be read or written: {0}")]
    Log(String),
    /// The rollout is not wanted any more.
    #[error("it is no longer wanted")]
    Cancelled,
}

/// Claims ask nothing of the world.
pub struct AddressDriver;

#[async_trait]
impl Driver<AddressClaims> for AddressDriver {
    async fn carry_out(&self, work: Work<AddressClaims>) -> claims::ClaimsInput {
        match work.effect {}
    }
}

impl App {
    /// Claims the addresses of a configuration that was pushed; what changes and what lies within addresses of others, in words.
    pub(crate) async fn claim_for_push(
        &self,
        config: &ServiceConfig,
    ) -> Result<Vec<String>, AddressError> {
        let request = ClaimRequest::new(config, self.reserved_ports(), ClaimStage::Push);
        let claims = self.address_claims().await;
        let before = claims.map_err(|error| AddressError::Log(error.to_string()))?;
        let moves = before.moves(&request);
        let by = Actor::Shipway(format!("a push to {}", config.service));
        let overlaps = self.claim(request, by).await?;
        let moves = moves.iter().map(ToString::to_string);
        Ok(moves
            .chain(overlaps.iter().map(ToString::to_string))
            .collect())
    }

    async fn claim(
        &self,
        request: ClaimRequest,
        by: Actor,
    ) -> Result<Vec<ClaimOverlap>, AddressError> {
        let input = claims::ClaimsInput::Claim(request.clone());
        match self.engines.addresses.send(STREAM, input, by).await {
            Ok(outcome) => Ok(outcome.state.overlaps(&request)),
            Err(EngineError::Rejected(rejection)) => Err(AddressError::Taken(rejection)),
            Err(error) => Err(AddressError::Log(error.to_string())),
        }
    }

    /// All claims.
    pub(crate) async fn address_claims(&self) -> Result<claims::ClaimsState, StoreError> {
        let state = self.engines.addresses.state(STREAM).await?;
        Ok(state.map(|state| (*state).clone()).unwrap_or_default())
    }

    /// Ports of this server that no environment can have.
    pub(crate) fn reserved_ports(&self) -> BTreeMap<u16, PortUse> {
        BTreeMap::from([
            (self.server_addresses.api_port, PortUse::Api),
            (self.server_addresses.proxy_address.port(), PortUse::Proxy),
        ])
    }

    /// Makes routes follow the addresses that the stable releases of a service have in the log.
    pub(crate) async fn move_addresses(&self, service: &ServiceName) -> Result<(), AddressError> {
        let state = self.engines.services.state(&service_stream(service)).await;
        let state = state.map_err(|error| AddressError::Log(error.to_string()))?;
        let claims = self.address_claims().await;
        let claims = claims.map_err(|error| AddressError::Log(error.to_string()))?;
        if let Some(state) = state {
            self.workloads
                .traffic
                .move_addresses(served_at(&state, &claims))
                .await?;
        }
        Ok(())
    }
}

/// Claims the addresses of a rollout, and listens on its port.
pub(super) async fn claim(
    app: &Arc<App>,
    work: &Work<RolloutAggregate>,
    spec: &RolloutSpec,
    addresses: &BTreeSet<PublicAddress>,
) -> Result<(), AddressError> {
    claim_again(app, spec, addresses.clone()).await?;
    let Some(port) = spec.environment.port else {
        return Ok(());
    };
    let place = spec.release.service_environment(&spec.environment.name);
    app.workloads.traffic.reserve_port(&place, port).await?;
    let until = Instant::now() + PORT_WAIT.min(spec.environment.progress_deadline);
    loop {
        let Err(error) = listens_on(app, port).await else {
            return Ok(());
        };
        if Instant::now() >= until {
            return Err(error);
        }
        tokio::select! {
            () = work.cancelled.cancelled() => return Err(AddressError::Cancelled),
            () = sleep(PORT_PAUSE) => {}
        }
    }
}

/// Before a release is promoted: its addresses are its own, and a port that is new to the environment is listened on. One that it
/// had before may be lost for a while without being this release's fault.
pub(super) async fn verify(
    app: &Arc<App>,
    spec: &RolloutSpec,
    promoted: ReleaseNumber,
) -> Result<(), AddressError> {
    // Going back must not fail for an address that another environment has meanwhile: compose gives it to one of them.
    if promoted != spec.release.number {
        return Ok(());
    }
    let place = spec.release.service_environment(&spec.environment.name);
    let addresses = shipway_core::address::EnvironmentAddresses::new(&place, &spec.environment);
    claim_again(app, spec, addresses.claims()).await?;
    let stable = spec.stable.as_ref();
    let before = stable.and_then(|stable| stable.release.environment(&spec.environment.name)?.port);
    match spec.environment.port.filter(|port| before != Some(*port)) {
        Some(port) => listens_on(app, port).await,
        None => Ok(()),
    }
}

async fn claim_again(
    app: &App,
    spec: &RolloutSpec,
    addresses: BTreeSet<PublicAddress>,
) -> Result<(), AddressError> {
    let request = ClaimRequest {
        addresses: BTreeMap::from([(spec.environment.name.clone(), addresses)]),
        ..ClaimRequest::new(
            &spec.release.config,
            app.reserved_ports(),
            ClaimStage::Rollout,
        )
    };
    let by = Actor::Shipway(format!("rollout {}", spec.id.number));
    app.claim(request, by).await.map(drop)
}

async fn listens_on(app: &App, port: u16) -> Result<(), AddressError> {
    let unreachable = app.workloads.router.unreachable_ports().await;
    let reason = match unreachable {
        Some(ports) => ports.get(&port).cloned(),
        None => Some("the proxy does not answer".to_owned()),
    };
    match reason {
        Some(reason) => Err(AddressError::Port { port, reason }),
        None => Ok(()),
    }
}

/// Makes the claims follow what a service asks for.
pub(super) async fn report(
    app: &App,
    service: &ServiceName,
    asked: AskedAddresses,
) -> service::ServiceInput {
    let input = claims::ClaimsInput::Synchronize {
        service: service.clone(),
        asked: asked.clone(),
    };
    let by = Actor::Shipway(format!("what {service} asks for"));
    match app.engines.addresses.send(STREAM, input, by).await {
        Ok(_) => service::ServiceInput::AddressesReported(asked),
        Err(error) => {
            tracing::warn!(%error, %service, "the addresses that a service asks for can't be recorded");
            service::ServiceInput::TimerFired
        }
    }
}

/// Releases claims of pushes that a crash kept out of the log.
pub(crate) async fn reconcile(app: &Arc<App>) -> Result<(), StoreError> {
    let claims = app.address_claims().await?;
    let services: BTreeSet<ServiceName> = claims
        .claims
        .into_values()
        .map(|claim| claim.owner.service)
        .collect();
    for service in services {
        let state = app
            .engines
            .services
            .state(&service_stream(&service))
            .await?;
        let asked = state.map(|state| state.requested_addresses());
        report(app, &service, asked.unwrap_or_default()).await;
    }
    Ok(())
}
