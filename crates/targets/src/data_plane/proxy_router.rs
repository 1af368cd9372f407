//! Shipway's proxy as a router: the table becomes one snapshot, which the proxy swaps atomically.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use shipway_core::target::{InstanceId, ReplicaSetKey, ServiceEnvironment};
use shipway_proxy::protocol::{AcceptedRoutes, RejectedRoutes, RouteSnapshot};
use tokio::sync::Mutex;

use super::{DataPlane, DataPlaneError, route_snapshot::compose, traffic_meter::TrafficMeter};
use crate::router::{RefusedRoutes, Router, RouterError, RoutingTable, TrafficReading};

/// Routes through the supervised proxy.
pub struct ProxyRouter {
    plane: Arc<DataPlane>,
    meter: TrafficMeter,
    /// The last snapshot that the proxy took as a whole: the same one isn't sent again.
    applied: Mutex<Option<RouteSnapshot>>,
}

impl ProxyRouter {
    /// A router that continues the totals of `totals_file`.
    #[must_use]
    pub fn new(plane: Arc<DataPlane>, totals_file: PathBuf) -> Self {
        Self {
            meter: TrafficMeter::new(plane.clone(), totals_file),
            plane,
            applied: Mutex::default(),
        }
    }
}

#[async_trait]
impl Router for ProxyRouter {
    async fn apply_routes(&self, table: &RoutingTable) -> Result<RefusedRoutes, RouterError> {
        let snapshot = compose(table);
        let mut applied = self.applied.lock().await;
        if applied.as_ref() == Some(&snapshot) {
            return Ok(RefusedRoutes::new());
        }
        let accepted = self.plane.apply_routes(snapshot.clone()).await?;
        if accepted.refused.is_empty() {
            *applied = Some(snapshot);
        }
        Ok(refused_routes(accepted))
    }

    async fn wait_until_drained(&self, set: &ReplicaSetKey, keep: u32, limit: Duration) -> u64 {
        self.plane
            .wait_until_drained(&set.place, set.release, keep, limit)
            .await
    }

    async fn read_totals(&self) -> Result<TrafficReading, RouterError> {
        Ok(self.meter.read_totals().await?)
    }

    async fn unreachable_ports(&self) -> Option<BTreeMap<u16, String>> {
        self.plane.unreachable_ports().await
    }

    async fn routed_instances(&self) -> BTreeSet<InstanceId> {
        let routed = self.plane.routed_instances().await;
        routed.iter().filter_map(|id| id.parse().ok()).collect()
    }

    async fn is_healthy(&self) -> bool {
        self.plane.is_healthy().await
    }
}

impl From<DataPlaneError> for RouterError {
    fn from(error: DataPlaneError) -> Self {
        match error {
            DataPlaneError::Refused(_) => Self::Refused(error.to_string()),
            DataPlaneError::Spawn { .. }
            | DataPlaneError::Ended(_)
            | DataPlaneError::Silent { .. }
            | DataPlaneError::Unreachable(_)
            | DataPlaneError::Timeout
            | DataPlaneError::Stopped => Self::Unreachable(error.to_string()),
        }
    }
}

fn refused_routes(accepted: AcceptedRoutes) -> RefusedRoutes {
    let mut refused = RefusedRoutes::new();
    for routes in accepted.refused {
        let RejectedRoutes {
            service,
            environment,
            reason,
        } = routes;
        tracing::error!(
            service,
            environment,
            reason,
            "the proxy refuses the routes of one environment; the previous ones stay in force"
        );
        if let (Ok(service), Ok(environment)) = (service.parse(), environment.parse()) {
            let place = ServiceEnvironment {
                service,
                environment,
            };
            refused.insert(place, reason);
        }
    }
    refused
}
