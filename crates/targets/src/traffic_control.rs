//! Traffic of one router: the split that rollouts decide, the instances of the targets, and one table of both for the router.
//!
//! There is one route for each service and environment. Only [`TrafficControl::shift`] changes its split; its instances follow their
//! readiness automatically. Every change gives the router the complete table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shipway_core::{
    address::EnvironmentAddresses,
    config::EnvironmentConfig,
    ids::ReleaseNumber,
    rollout::plan::TrafficSplit,
    target::{
        InstanceId, InstanceStatus, ReplicaSetKey, RouterKind, RouterMissing, ServiceEnvironment,
    },
};
use tokio::sync::{Notify, watch};

use crate::{
    router::{RefusedRoutes, Router, RoutingTable, TrafficRoute},
    target_registry::{InstanceChanges, TargetRegistry},
};

/// How long adopted instances may take to answer their first probe before the snapshot of the last server is replaced.
const ADOPTION_MAX: Duration = Duration::from_secs(3);

/// What became of the last route change.
#[derive(Clone, Default)]
struct AppliedRoutes {
    revision: u64,
    /// Why none of the routes were taken.
    refused: Option<String>,
    /// Why the routes of one place were not taken; the others were.
    refused_environments: RefusedRoutes,
}

/// Why traffic is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// The data plane refuses the routes.
    #[error("the proxy refuses the routes: {0}")]
    Refused(String),
    /// The environment names a router that the server does not have.
    #[error(transparent)]
    NoRouter(#[from] RouterMissing),
}

/// A port that a rollout has claimed at a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortReservation {
    /// The router that listens on it.
    pub router: RouterKind,
    /// The port.
    pub port: u16,
}

/// Where a place of a service is reached now.
#[derive(Clone, Debug)]
pub struct ServedAt {
    /// The place.
    pub place: ServiceEnvironment,
    /// Its addresses; `None`: nothing is routed there any more.
    pub addresses: Option<EnvironmentAddresses>,
    /// Whether others may take them over.
    pub is_transferable: bool,
    /// The port that its rollout has claimed and not yet promoted.
    pub reserved_port: Option<PortReservation>,
}

/// The traffic of all routes; cheap to share.
pub struct TrafficControl {
    routes: Mutex<BTreeMap<ServiceEnvironment, TrafficRoute>>,
    /// Ports to listen on that no route has yet.
    reserved_ports: Mutex<BTreeMap<ServiceEnvironment, u16>>,
    changed: Notify,
    /// The number of the last route change that was put, with the problem if the router refused it.
    applied: watch::Sender<AppliedRoutes>,
    revision: watch::Sender<u64>,
    router: Arc<dyn Router>,
    targets: Arc<TargetRegistry>,
}

impl TrafficControl {
    /// Without routes yet. [`TrafficControl::run`] must be running for anything to happen.
    #[must_use]
    pub fn new(router: Arc<dyn Router>, targets: Arc<TargetRegistry>) -> Self {
        Self {
            routes: Mutex::new(BTreeMap::new()),
            reserved_ports: Mutex::default(),
            changed: Notify::new(),
            applied: watch::Sender::new(AppliedRoutes::default()),
            revision: watch::Sender::new(1),
            router,
            targets,
        }
    }

    /// Takes over routes and ports as the log tells them, before [`TrafficControl::run`].
    pub fn restore(
        &self,
        routes: BTreeMap<ServiceEnvironment, TrafficRoute>,
        reserved_ports: BTreeMap<ServiceEnvironment, u16>,
    ) {
        *self.routes() = routes;
        *self.reserved_ports() = reserved_ports;
    }

    /// Gives each release its share, and returns when the router has it.
    ///
    /// # Errors
    /// When the router refuses the routes, with its reason; the shares before stay in force.
    pub async fn shift(
        &self,
        place: &ServiceEnvironment,
        environment: &EnvironmentConfig,
        addresses: &EnvironmentAddresses,
        split: &TrafficSplit,
        salt: &str,
    ) -> Result<(), TrafficError> {
        let mut before = None;
        let revision = self.change(|routes| {
            before = routes.get(place).cloned();
            let route = routes
                .entry(place.clone())
                .or_insert_with(|| TrafficRoute::new(environment, addresses.clone()));
            route.configure(environment);
            route.addresses.clone_from(addresses);
            route.split = split.clone();
            salt.clone_into(&mut route.salt);
        });
        let applied = self.applied(place, revision).await;
        if applied.is_err() {
            // What the proxy refused must not be put again with the next change of another route.
            self.change(|routes| match before {
                Some(before) => drop(routes.insert(place.clone(), before)),
                None => drop(routes.remove(place)),
            });
        }
        applied
    }

    /// Changes where places are reached; their shares stay as they are.
    ///
    /// # Errors
    /// When the router refuses the routes of one of them; those before stay in force.
    pub async fn move_addresses(&self, served: Vec<ServedAt>) -> Result<(), TrafficError> {
        {
            let mut ports = self.reserved_ports();
            for at in &served {
                match at.reserved_port {
                    Some(it) => drop(ports.insert(at.place.clone(), it.port)),
                    None => drop(ports.remove(&at.place)),
                }
            }
        }
        let revision = self.change(|routes| {
            for at in &served {
                match (&at.addresses, routes.get_mut(&at.place)) {
                    (Some(addresses), Some(route)) => {
                        route.addresses.clone_from(addresses);
                        route.is_transferable = at.is_transferable;
                    }
                    (None, Some(_)) => drop(routes.remove(&at.place)),
                    (_, None) => {}
                }
            }
        });
        for at in served {
            self.applied(&at.place, revision).await?;
        }
        Ok(())
    }

    /// Whether it has a route or a reserved port of a place.
    pub(crate) fn has_route(&self, place: &ServiceEnvironment) -> bool {
        self.routes().contains_key(place) || self.reserved_ports().contains_key(place)
    }

    /// Ends the route of a place that another router has taken over.
    pub(crate) fn remove_route(&self, place: &ServiceEnvironment) {
        if self.has_route(place) {
            self.reserved_ports().remove(place);
            self.change(|routes| drop(routes.remove(place)));
        }
    }

    /// Listens on a port that no route has yet.
    ///
    /// # Errors
    /// When the router refuses it.
    pub async fn reserve_port(
        &self,
        place: &ServiceEnvironment,
        port: u16,
    ) -> Result<(), TrafficError> {
        self.reserved_ports().insert(place.clone(), port);
        let revision = self.change(|_| ());
        self.applied(place, revision).await
    }

    /// Takes the instances of `release` beyond `keep` out of the routes and waits until their open requests have ended, at most `grace`.
    /// Returns the number of requests that were still open.
    ///
    /// # Errors
    /// When the router refuses the routes, with its reason: the instances still get requests.
    pub async fn drain(
        &self,
        place: &ServiceEnvironment,
        release: ReleaseNumber,
        keep: u32,
        grace: Duration,
    ) -> Result<u64, TrafficError> {
        let revision = self.change(|routes| {
            if let Some(route) = routes.get_mut(place) {
                route.kept.insert(release, keep);
                if keep == 0 {
                    route.split.remove(release);
                }
            }
        });
        self.applied(place, revision).await?;
        let set = ReplicaSetKey {
            place: place.clone(),
            release,
        };
        Ok(self.router.wait_until_drained(&set, keep, grace).await)
    }

    /// Instances beyond `keep` are gone: a later start may use their slots again.
    pub fn undrain(&self, place: &ServiceEnvironment, release: ReleaseNumber) {
        self.change(|routes| {
            if let Some(route) = routes.get_mut(place) {
                route.kept.remove(&release);
            }
        });
    }

    /// The shares of a route.
    #[must_use]
    pub fn split(&self, place: &ServiceEnvironment) -> TrafficSplit {
        self.routes()
            .get(place)
            .map(|route| route.split.clone())
            .unwrap_or_default()
    }

    /// The sets that have traffic.
    #[must_use]
    pub fn serving(&self) -> Vec<ReplicaSetKey> {
        let routes = self.routes();
        let of_route = |(place, route): (&ServiceEnvironment, &TrafficRoute)| {
            let shares = route.split.releases();
            let served = shares.filter(|(_, weight)| !weight.is_zero());
            served
                .map(|(release, _)| ReplicaSetKey {
                    place: place.clone(),
                    release,
                })
                .collect::<Vec<_>>()
        };
        routes.iter().flat_map(of_route).collect()
    }

    /// A route, for pages.
    #[must_use]
    pub fn route(&self, place: &ServiceEnvironment) -> Option<TrafficRoute> {
        self.routes().get(place).cloned()
    }

    /// Keeps the router up to date, for ever.
    pub async fn run(&self) {
        let mut instances = self.targets.watch();
        self.await_adoption(&mut instances).await;
        loop {
            // A change while the table is made and applied is seen in the next round.
            instances.mark_seen();
            let mut applied = AppliedRoutes {
                revision: *self.revision.borrow(),
                ..AppliedRoutes::default()
            };
            match self.router.apply_routes(&self.table()).await {
                Ok(refused) => applied.refused_environments = refused,
                Err(error) => {
                    tracing::error!(%error, "the router refuses the routes; the previous ones stay in force");
                    applied.refused = Some(error.to_string());
                }
            }
            self.applied.send_replace(applied);
            tokio::select! {
                () = self.changed.notified() => {}
                changed = instances.changed() => if changed.is_err() { return },
            }
        }
    }

    fn table(&self) -> RoutingTable {
        RoutingTable {
            routes: self.routes().clone(),
            reserved_ports: self.reserved_ports().clone(),
            instances: self.targets.instances(),
        }
    }

    /// Waits for the first probe of each instance after a restart; until then the router keeps the routes of the last server.
    async fn await_adoption(&self, instances: &mut InstanceChanges) {
        let routed: BTreeSet<InstanceId> = self.router.routed_instances().await;
        let settled = |statuses: &[InstanceStatus]| {
            statuses
                .iter()
                .filter(|status| routed.contains(&status.id))
                .all(|status| status.is_ready())
        };
        let wait = async {
            while !settled(&self.targets.instances()) {
                if instances.changed().await.is_err() {
                    return;
                }
            }
        };
        // Instances without a probe result by then are treated as not ready.
        let _ = tokio::time::timeout(ADOPTION_MAX, wait).await;
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServiceEnvironment, TrafficRoute>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<ServiceEnvironment, TrafficRoute>)) -> u64 {
        change(&mut self.routes());
        let mut revision = 0;
        self.revision.send_modify(|it| {
            *it += 1;
            revision = *it;
        });
        self.changed.notify_one();
        revision
    }

    fn reserved_ports(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServiceEnvironment, u16>> {
        let ports = self.reserved_ports.lock();
        ports.unwrap_or_else(PoisonError::into_inner)
    }

    async fn applied(&self, place: &ServiceEnvironment, revision: u64) -> Result<(), TrafficError> {
        let mut applied = self.applied.subscribe();
        let done = applied.wait_for(|done| done.revision >= revision).await;
        // The sender lives as long as `self`.
        let done = done.map(|done| done.clone()).unwrap_or_default();
        let of_place = done.refused_environments.get(place).cloned();
        match done.refused.or(of_place) {
            Some(reason) => Err(TrafficError::Refused(reason)),
            None => Ok(()),
        }
    }
}
