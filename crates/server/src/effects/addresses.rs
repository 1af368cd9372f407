//! Addresses of environments: claimed for rollouts, and kept in step with what services ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::{
    address::{
        PublicAddress,
        claims::{self, AddressClaims, AskedAddresses, ClaimRequest, ClaimStage, STREAM},
    },
    aggregate::Actor,
    ids::{ReleaseNumber, ServiceName},
    rollout::{RolloutAggregate, RolloutSpec},
    service,
};
use shipway_engine::{Driver, StoreError, Work};
use shipway_targets::traffic_control::{PortReservation, TrafficError};
use tokio::time::{Instant, sleep};

use crate::{
    address_book::{AddressError, claim_addresses},
    capabilities::{ServerAddresses, Workloads},
    delivery_engines::DeliveryEngines,
};

/// How long a rollout waits for another program to free its port. Longer helps few, and the reason should be shown soon.
const PORT_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at whether the proxy listens: no event tells when another program frees a port.
const PORT_PAUSE: Duration = Duration::from_millis(250);

/// Claims ask nothing of the world.
pub(crate) struct AddressDriver;

#[async_trait]
impl Driver<AddressClaims> for AddressDriver {
    async fn carry_out(&self, work: Work<AddressClaims>) -> claims::ClaimsInput {
        match work.effect {}
    }
}

/// What rollouts claim addresses and ports with.
#[derive(Clone, Copy)]
pub(super) struct RolloutAddresses<'a> {
    pub(super) engines: &'a DeliveryEngines,
    pub(super) workloads: &'a Workloads,
    pub(super) server: &'a ServerAddresses,
    pub(super) spec: &'a RolloutSpec,
}

impl RolloutAddresses<'_> {
    /// Claims the addresses of a rollout, and listens on its port.
    pub(super) async fn claim(
        self,
        work: &Work<RolloutAggregate>,
        addresses: &BTreeSet<PublicAddress>,
    ) -> Result<(), AddressError> {
        let spec = self.spec;
        self.claim_again(addresses.clone()).await?;
        let Some(port) = spec.environment.port else {
            return Ok(());
        };
        let place = spec.release().service_environment(&spec.environment.name);
        let reservation = PortReservation {
            router: spec.environment.router,
            port,
        };
        let traffic = &self.workloads.traffic;
        traffic.reserve_port(&place, reservation).await?;
        let until = Instant::now() + PORT_WAIT.min(spec.environment.progress_deadline);
        loop {
            let Err(error) = self.check_listening(reservation).await else {
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
    pub(super) async fn verify(self, promoted: ReleaseNumber) -> Result<(), AddressError> {
        let spec = self.spec;
        // Going back must not fail for an address that another environment has meanwhile: compose gives it to one of them.
        if promoted != spec.release().number {
            return Ok(());
        }
        let place = spec.release().service_environment(&spec.environment.name);
        let addresses = spec.environment.addresses(&place);
        self.claim_again(addresses.claims()).await?;
        let stable = spec.stable();
        let before =
            stable.and_then(|stable| stable.release.environment(&spec.environment.name)?.port);
        match spec.environment.port.filter(|port| before != Some(*port)) {
            Some(port) => {
                let router = spec.environment.router;
                let reservation = PortReservation { router, port };
                self.check_listening(reservation).await
            }
            None => Ok(()),
        }
    }

    async fn claim_again(self, addresses: BTreeSet<PublicAddress>) -> Result<(), AddressError> {
        let spec = self.spec;
        let ports = self.server.reserved_ports();
        let request = ClaimRequest {
            addresses: BTreeMap::from([(spec.environment.name.clone(), addresses)]),
            ..spec
                .release()
                .config
                .claim_request(ports, ClaimStage::Rollout)
        };
        let by = Actor::Shipway(format!("rollout {}", spec.id.number));
        claim_addresses(self.engines, request, by).await.map(drop)
    }

    async fn check_listening(self, reservation: PortReservation) -> Result<(), AddressError> {
        let PortReservation { router, port } = reservation;
        let listener = self.workloads.targets.router(router);
        let listener = listener.map_err(TrafficError::from)?;
        let reason = match listener.unreachable_ports().await {
            Some(ports) => ports.get(&port).cloned(),
            None => Some(format!("the {router} does not respond")),
        };
        match reason {
            Some(reason) => Err(AddressError::Port { port, reason }),
            None => Ok(()),
        }
    }
}

/// Makes the claims follow what a service asks for.
pub(super) async fn report(
    engines: &DeliveryEngines,
    service: &ServiceName,
    asked: AskedAddresses,
) -> service::ServiceInput {
    let input = claims::ClaimsInput::Synchronize {
        service: service.clone(),
        asked: asked.clone(),
    };
    let by = Actor::Shipway(format!("the addresses of {service}"));
    match engines.addresses.send(STREAM, input, by).await {
        Ok(_) => service::ServiceInput::AddressesReported(asked),
        Err(error) => {
            tracing::warn!(%error, %service, "the addresses of a service can't be recorded");
            service::ServiceInput::TimerFired
        }
    }
}

/// Releases claims of pushes that a crash kept out of the log.
pub(crate) async fn reconcile(engines: &DeliveryEngines) -> Result<(), StoreError> {
    let claims = engines.address_claims().await?;
    let services: BTreeSet<ServiceName> = claims
        .claims
        .into_values()
        .map(|claim| claim.owner.service)
        .collect();
    for service in services {
        let state = engines.service(&service).await?;
        let asked = state.map(|state| state.requested_addresses());
        report(engines, &service, asked.unwrap_or_default()).await;
    }
    Ok(())
}
