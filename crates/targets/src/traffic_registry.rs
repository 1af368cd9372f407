//! The traffic of all environments, each at the router that its release names.
//!
//! # Invariants
//!
//! - An environment has its route at one router: a shift to another router takes the route away from the one before.
//! - Routers are independent: one that does not answer delays no environment of another.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use shipway_core::{
    address::EnvironmentAddresses,
    config::EnvironmentConfig,
    ids::ReleaseNumber,
    rollout::plan::TrafficSplit,
    target::{ReplicaSetKey, RouterKind, RouterMissing, ServiceEnvironment},
};

use crate::{
    router::TrafficRoute,
    target_registry::TargetRegistry,
    traffic_control::{PortReservation, ServedAt, TrafficControl, TrafficError},
};

/// A route as the log has it, and the router that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoredRoute {
    /// The router.
    pub router: RouterKind,
    /// The route.
    pub route: TrafficRoute,
}

/// A [`TrafficControl`] for each router of the server.
pub struct TrafficRegistry {
    controls: BTreeMap<RouterKind, TrafficControl>,
    targets: Arc<TargetRegistry>,
}

impl TrafficRegistry {
    /// Without routes yet. [`TrafficRegistry::run`] must be running for anything to happen.
    #[must_use]
    pub fn new(targets: Arc<TargetRegistry>) -> Self {
        let controls = targets.routers().map(|(kind, router)| {
            let control = TrafficControl::new(router.clone(), targets.clone());
            (kind, control)
        });
        Self {
            controls: controls.collect(),
            targets,
        }
    }

    /// Takes over routes and ports from the log, before [`TrafficRegistry::run`]. Those of a router that the server does not have are
    /// left out.
    pub fn restore(
        &self,
        routes: &BTreeMap<ServiceEnvironment, RestoredRoute>,
        reserved_ports: &BTreeMap<ServiceEnvironment, PortReservation>,
    ) {
        for (place, restored) in routes {
            if let Err(missing) = self.control(restored.router) {
                tracing::error!(%missing, %place, "its traffic can't be restored");
            }
        }
        for (kind, control) in &self.controls {
            let routes = routes.iter().filter(|(_, it)| it.router == *kind);
            let ports = reserved_ports.iter().filter(|(_, it)| it.router == *kind);
            control.restore(
                routes
                    .map(|(place, it)| (place.clone(), it.route.clone()))
                    .collect(),
                ports.map(|(place, it)| (place.clone(), it.port)).collect(),
            );
        }
    }

    /// The traffic of a router.
    ///
    /// # Errors
    /// When the server has no such router.
    pub fn control(&self, kind: RouterKind) -> Result<&TrafficControl, RouterMissing> {
        match self.controls.get(&kind) {
            Some(control) => Ok(control),
            None => Err(self.targets.missing_router(kind)),
        }
    }

    /// The traffic of the router that has the route of an environment; without a route, of the router that it names.
    ///
    /// # Errors
    /// When the server has no such router.
    pub fn control_of(
        &self,
        place: &ServiceEnvironment,
        named: RouterKind,
    ) -> Result<&TrafficControl, RouterMissing> {
        match self.routed(place) {
            Some((control, _)) => Ok(control),
            None => self.control(named),
        }
    }

    /// Gives each release its share at a router, see [`TrafficControl::shift`]. A route at another router ends once this one has taken
    /// it.
    ///
    /// # Errors
    /// When the server has no such router, or it refuses the routes.
    pub async fn shift(
        &self,
        router: RouterKind,
        place: &ServiceEnvironment,
        environment: &EnvironmentConfig,
        addresses: &EnvironmentAddresses,
        split: &TrafficSplit,
        salt: &str,
    ) -> Result<(), TrafficError> {
        let control = self.control(router)?;
        control
            .shift(place, environment, addresses, split, salt)
            .await?;
        for (kind, other) in &self.controls {
            if *kind != router {
                other.remove_route(place);
            }
        }
        Ok(())
    }

    /// See [`TrafficControl::undrain`].
    pub fn undrain(&self, place: &ServiceEnvironment, release: ReleaseNumber) {
        if let Some((control, _)) = self.routed(place) {
            control.undrain(place, release);
        }
    }

    /// Listens on a port that no route has yet.
    ///
    /// # Errors
    /// When the server has no such router, or it refuses the port.
    pub async fn reserve_port(
        &self,
        place: &ServiceEnvironment,
        reservation: PortReservation,
    ) -> Result<(), TrafficError> {
        let control = self.control(reservation.router)?;
        control.reserve_port(place, reservation.port).await
    }

    /// Changes where environments are reached; their shares stay as they are.
    ///
    /// # Errors
    /// When a router refuses the routes of one of them; those before stay in force.
    pub async fn move_addresses(&self, served: Vec<ServedAt>) -> Result<(), TrafficError> {
        for (kind, control) in &self.controls {
            let reserved = |at: &&ServedAt| at.reserved_port.filter(|it| it.router == *kind);
            let concerned = served
                .iter()
                .filter(|at| reserved(at).is_some() || control.has_route(&at.place));
            let concerned: Vec<ServedAt> = concerned
                .map(|at| ServedAt {
                    reserved_port: reserved(&at),
                    ..at.clone()
                })
                .collect();
            if !concerned.is_empty() {
                control.move_addresses(concerned).await?;
            }
        }
        Ok(())
    }

    /// The route of an environment.
    #[must_use]
    pub fn route(&self, place: &ServiceEnvironment) -> Option<TrafficRoute> {
        self.routed(place).map(|(_, route)| route)
    }

    /// The shares of an environment.
    #[must_use]
    pub fn split(&self, place: &ServiceEnvironment) -> TrafficSplit {
        self.route(place)
            .map(|route| route.split)
            .unwrap_or_default()
    }

    /// The sets that have traffic.
    #[must_use]
    pub fn serving(&self) -> Vec<ReplicaSetKey> {
        let controls = self.controls.values();
        controls.flat_map(TrafficControl::serving).collect()
    }

    /// Keeps all routers up to date, for ever.
    pub async fn run(&self) {
        join_all(self.controls.values().map(TrafficControl::run)).await;
    }

    fn routed(&self, place: &ServiceEnvironment) -> Option<(&TrafficControl, TrafficRoute)> {
        let mut controls = self.controls.values();
        controls.find_map(|control| Some((control, control.route(place)?)))
    }
}
