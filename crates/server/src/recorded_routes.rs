//! The routes that the log describes, for a server that starts.

use std::collections::BTreeMap;

use shipway_core::{
    address::{EnvironmentAddresses, claims},
    aggregate::Aggregate as _,
    ids::EnvironmentName,
    rollout::{RolloutAggregate, plan::TrafficSplit},
    service::{self, ServiceAggregate},
    target::ServiceEnvironment,
};
use shipway_engine::{Engine, Store, StoreError};
use shipway_targets::{
    router::TrafficRoute, traffic_control::PortReservation, traffic_registry::RestoredRoute,
};

use crate::served_addresses::served_at;

/// The routes of all environments by the log, and the ports that rollouts have claimed: the split of the last or current rollout, at
/// the addresses of the stable release. Streams are read without waking them: a resumed rollout would shift traffic of routes that
/// don't exist yet.
pub(crate) async fn recorded_routes(
    store: &dyn Store,
    services: &Engine<ServiceAggregate>,
    rollouts: &Engine<RolloutAggregate>,
    claims: &claims::ClaimsState,
) -> Result<
    (
        BTreeMap<ServiceEnvironment, RestoredRoute>,
        BTreeMap<ServiceEnvironment, PortReservation>,
    ),
    StoreError,
> {
    let (mut routes, mut reserved_ports) = (BTreeMap::new(), BTreeMap::new());
    for row in store.all_rows("service").await? {
        let stream = format!("{}/{}", ServiceAggregate::KIND, row.key);
        let Some(state) = services.read(&stream).await? else {
            continue;
        };
        for at in served_at(&state, claims) {
            if let Some(port) = at.reserved_port {
                reserved_ports.insert(at.place.clone(), port);
            }
            let environment = &at.place.environment;
            let (Some(addresses), Some(current)) =
                (at.addresses, state.environments.get(environment))
            else {
                continue;
            };
            let Some(mut restored) = route_of(rollouts, current, environment, addresses).await?
            else {
                continue;
            };
            restored.route.is_transferable = at.is_transferable;
            routes.insert(at.place, restored);
        }
    }
    Ok((routes, reserved_ports))
}

/// The route of one environment: its router and how users are known is what the rollout under way says, or else the stable release.
async fn route_of(
    rollouts: &Engine<RolloutAggregate>,
    current: &service::EnvironmentState,
    environment: &EnvironmentName,
    addresses: EnvironmentAddresses,
) -> Result<Option<RestoredRoute>, StoreError> {
    let Some(active) = &current.active else {
        let stable = current.stable.as_ref();
        let configured = stable.and_then(|stable| stable.environment(environment));
        return Ok(configured.map(|configured| RestoredRoute {
            router: configured.router,
            route: TrafficRoute {
                split: current.observed.split.clone(),
                ..TrafficRoute::new(configured, addresses)
            },
        }));
    };
    let mut router = active.spec.environment.router;
    let mut route = TrafficRoute::new(&active.spec.environment, addresses);
    route.split = active.spec.observed.split.clone();
    let rollout = rollouts.read(&active.spec.id.stream()).await?;
    if let Some(rollout) = rollout.and_then(|state| state.0) {
        // Limits that were measured are in the rollout's own log alone.
        route.configure(&rollout.spec.environment);
        router = rollout.router();
        route.split = rollout.observed.split.clone();
        route.salt = active.spec.id.to_string();
    }
    // Until the first release of an environment is ready there is no route: its address may be below another service's.
    let has_served = current.stable.is_some() || route.split != TrafficSplit::default();
    Ok(has_served.then_some(RestoredRoute { router, route }))
}
