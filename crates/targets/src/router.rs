//! The interface of a router, which splits the traffic of environments between releases and counts it.
//!
//! A router gets the whole table of its routes at each change and makes the world like it, environment by environment: the proxy swaps
//! a snapshot, a mesh would apply one resource for each environment. A table says everything, so a router keeps no history and repeats
//! a table without harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use shipway_analysis::RequiredMetrics;
use shipway_core::{
    address::EnvironmentAddresses,
    config::{EnvironmentConfig, RequestTimeouts, StickyKey, StickyScope},
    ids::ReleaseNumber,
    rollout::{canary_match::TrafficMatch, plan::TrafficSplit},
    target::{InstanceId, InstanceStatus, ReplicaSetKey, ServiceEnvironment},
};

pub use crate::traffic_reading::{TrafficReading, TrafficTotals};

/// Splits the traffic of environments between their releases.
#[async_trait]
pub trait Router: Send + Sync {
    /// Makes the traffic follow this table; returns when it does. Called at every change of a route or an instance, in order. The routes
    /// of an environment that is refused stay as they were.
    ///
    /// # Errors
    /// When no route of the table is in force; all of them stay as they were.
    async fn apply_routes(&self, table: &RoutingTable) -> Result<RefusedRoutes, RouterError>;

    /// Waits until the instances of a set beyond the first `keep` have no open request, up to `limit`; returns the number of requests
    /// that are still open. The instances are out of the routes already.
    async fn wait_until_drained(&self, set: &ReplicaSetKey, keep: u32, limit: Duration) -> u64;

    /// The counts of each release, as totals that only grow: two readings can be subtracted, also across restarts.
    ///
    /// # Errors
    /// When the router does not answer, or does not count ([`RouterError::NotCounted`]): a metrics provider must then.
    async fn read_totals(&self) -> Result<TrafficReading, RouterError>;

    /// The ports of routes that can't be listened on now, with the reason; `None` if the router doesn't answer.
    async fn unreachable_ports(&self) -> Option<BTreeMap<u16, String>>;

    /// The instances that get requests now, also by routes of an earlier server; empty if the router doesn't answer.
    async fn routed_instances(&self) -> BTreeSet<InstanceId>;

    /// Whether the router answers.
    async fn is_healthy(&self) -> bool;
}

/// The environments whose routes a router does not take, with the reason.
pub type RefusedRoutes = BTreeMap<ServiceEnvironment, String>;

/// Why a router did not do what it was called for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouterError {
    /// The routes are refused. Trying the same again is useless.
    #[error("{0}")]
    Refused(String),
    /// The router does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The router splits traffic without counting it, or there is none.
    #[error("the router doesn't count requests; a metrics provider is needed")]
    NotCounted,
}

/// All that a router must know: routes, and the instances behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingTable {
    /// One route for each service and environment.
    pub routes: BTreeMap<ServiceEnvironment, TrafficRoute>,
    /// Ports to listen on that no route has yet.
    pub reserved_ports: BTreeMap<ServiceEnvironment, u16>,
    /// The status of all instances, routed or not.
    pub instances: Vec<InstanceStatus>,
}

impl RoutingTable {
    /// The instances of a release that get its share of the traffic: ready, and not being drained.
    pub fn ready_instances(
        &self,
        place: &ServiceEnvironment,
        release: ReleaseNumber,
    ) -> impl Iterator<Item = &InstanceStatus> {
        let route = self.routes.get(place);
        let kept = route.and_then(|route| route.kept.get(&release));
        let keep = kept.copied().unwrap_or(u32::MAX);
        self.instances.iter().filter(move |status| {
            status.id.set.place == *place
                && status.id.set.release == release
                && status.id.slot <= keep
                && status.is_ready()
        })
    }
}

/// The traffic of one service in one environment.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficRoute {
    /// Where it is reached.
    pub addresses: EnvironmentAddresses,
    /// Whether other traffic routes go first where they have the same address: no configuration names this environment any more.
    pub is_transferable: bool,
    /// By what a user is known again.
    pub sticky: StickyKey,
    /// What a user is kept on.
    pub sticky_to: StickyScope,
    /// How long its instances are waited for.
    pub timeouts: RequestTimeouts,
    /// The share of each release.
    pub split: TrafficSplit,
    /// What the users are hashed with: the rollout, so that each rollout draws anew.
    pub salt: String,
    /// Latency limits, in µs, whose exceeding users are counted like users with errors; `None` when no metric counts users.
    pub counted: Option<Vec<u64>>,
    /// Releases of which only the first instances serve, because the others are being taken down.
    pub kept: BTreeMap<ReleaseNumber, u32>,
}

impl TrafficRoute {
    /// A traffic route without traffic.
    #[must_use]
    pub fn new(environment: &EnvironmentConfig, addresses: EnvironmentAddresses) -> Self {
        let mut traffic_route = Self {
            addresses,
            is_transferable: false,
            sticky: environment.sticky.clone(),
            sticky_to: environment.sticky_to,
            timeouts: environment.timeouts.clone(),
            split: TrafficSplit::default(),
            salt: String::new(),
            counted: None,
            kept: BTreeMap::new(),
        };
        traffic_route.configure(environment);
        traffic_route
    }

    /// Takes over how users are known and counted.
    pub fn configure(&mut self, environment: &EnvironmentConfig) {
        self.sticky = environment.sticky.clone();
        self.sticky_to = environment.sticky_to;
        self.timeouts = environment.timeouts.clone();
        let asked = RequiredMetrics::for_analysis(&environment.analysis);
        self.counted = asked.users.then_some(asked.slow);
    }

    /// The latency limits that users are counted by, while that says something: they are known again, more than one release has some,
    /// and each has its side by chance alone, not by a rule and not by way of copies.
    #[must_use]
    pub fn users(&self) -> Option<Vec<u64>> {
        let are_known = self.sticky != StickyKey::None;
        let with_users = self.split.shares.iter().filter(|(_, it)| !it.is_zero());
        let are_drawn = self
            .split
            .reach
            .as_ref()
            .is_none_or(TrafficMatch::is_nobody);
        let limits = self.counted.clone()?;
        (are_known && are_drawn && with_users.count() > 1).then_some(limits)
    }
}
