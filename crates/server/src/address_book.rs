//! The addresses of environments: claimed for pushes and rollouts, and given to the routes.

use shipway_core::{
    address::{
        EnvironmentAddresses,
        claims::{ClaimOverlap, ClaimRequest, ClaimStage, ClaimsInput, ClaimsRejection, STREAM},
    },
    aggregate::Actor,
    config::ServiceConfig,
    ids::ServiceName,
    target::ServiceEnvironment,
};
use shipway_engine::EngineError;
use shipway_targets::{traffic_control::TrafficError, traffic_registry::TrafficRegistry};

use crate::{
    capabilities::ServerAddresses, delivery_engines::DeliveryEngines, served_addresses::served_at,
};

/// Why addresses can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Others have them.
    #[error("{0}; choose another address with `hosts`, `path` or `port`")]
    Taken(ClaimsRejection),
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

impl AddressError {
    fn from_log(error: impl std::fmt::Display) -> Self {
        Self::Log(error.to_string())
    }
}

/// Claims addresses; returns those that lie within addresses of others.
pub(crate) async fn claim_addresses(
    engines: &DeliveryEngines,
    request: ClaimRequest,
    by: Actor,
) -> Result<Vec<ClaimOverlap>, AddressError> {
    let input = ClaimsInput::Claim(request.clone());
    match engines.addresses.send(STREAM, input, by).await {
        Ok(outcome) => Ok(outcome.state.overlaps(&request)),
        Err(EngineError::Rejected(rejection)) => Err(AddressError::Taken(rejection)),
        Err(error) => Err(AddressError::from_log(error)),
    }
}

/// Claims the addresses of a configuration that was pushed; returns notes on what changes and what lies within addresses of others.
pub(crate) async fn claim_for_push(
    engines: &DeliveryEngines,
    server: &ServerAddresses,
    config: &ServiceConfig,
) -> Result<Vec<String>, AddressError> {
    let request = config.claim_request(server.reserved_ports(), ClaimStage::Push);
    let before = engines.address_claims().await;
    let before = before.map_err(AddressError::from_log)?;
    let moves = before.moves(&request);
    let by = Actor::Shipway(format!("a push to {}", config.service));
    let overlaps = claim_addresses(engines, request, by).await?;
    let moves = moves.iter().map(ToString::to_string);
    Ok(moves
        .chain(overlaps.iter().map(ToString::to_string))
        .collect())
}

/// Makes routes follow the addresses that the stable releases of a service have in the log.
pub(crate) async fn move_addresses(
    engines: &DeliveryEngines,
    traffic: &TrafficRegistry,
    service: &ServiceName,
) -> Result<(), AddressError> {
    let state = engines.service(service).await;
    let state = state.map_err(AddressError::from_log)?;
    let claims = engines.address_claims().await;
    let claims = claims.map_err(AddressError::from_log)?;
    if let Some(state) = state {
        traffic.move_addresses(served_at(&state, &claims)).await?;
    }
    Ok(())
}

/// Where an environment is reached through the proxy: by its route, or else by the newest configuration.
pub(crate) async fn find_addresses(
    engines: &DeliveryEngines,
    traffic: &TrafficRegistry,
    environment: &ServiceEnvironment,
) -> EnvironmentAddresses {
    if let Some(route) = traffic.route(environment) {
        let mut addresses = route.addresses;
        if route.is_transferable {
            let claims = engines.address_claims().await.unwrap_or_default();
            addresses.retain(|address| claims.is_owned_by(address, environment));
        }
        return addresses;
    }
    let state = engines.service(&environment.service).await;
    let Some(state) = state.ok().flatten() else {
        return EnvironmentAddresses::default();
    };
    let configured = || {
        let environments = &state.config.as_ref()?.environments;
        let configured = environments
            .iter()
            .find(|it| it.name == environment.environment)?;
        Some(configured.addresses(environment))
    };
    let served = state.served_addresses(&environment.environment);
    served.or_else(configured).unwrap_or_default()
}
