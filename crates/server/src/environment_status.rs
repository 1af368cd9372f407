//! The status of every environment of every service: the stable release, instances, the rollout in progress, traffic.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use shipway_api::{EnvironmentStatus, ReleaseTraffic};
use shipway_core::{
    ids::ReleaseNumber,
    rollout::plan::TrafficSplit,
    service::EnvironmentRow,
    target::{InstanceStatus, ServiceEnvironment},
};
use shipway_engine::{Store, StoreError};
use shipway_targets::router::{TrafficReading, TrafficTotals};

use crate::{
    address_book::find_addresses, capabilities::Workloads, delivery_engines::DeliveryEngines,
    live_evidence::LiveEvidence, read_models::rollout_view,
};

/// What the status of an environment is read from.
#[derive(Clone)]
pub(crate) struct StatusSources {
    pub(crate) log: Arc<dyn Store>,
    pub(crate) engines: Arc<DeliveryEngines>,
    pub(crate) workloads: Workloads,
    pub(crate) live_evidence: Arc<LiveEvidence>,
    /// Where the proxy listens.
    pub(crate) proxy_address: SocketAddr,
}

/// All environments, ordered by service, and within each in the order of promotion.
pub(crate) async fn all_environment_statuses(
    sources: &StatusSources,
) -> Result<Vec<EnvironmentStatus>, StoreError> {
    let rows = sources
        .log
        .all_rows(EnvironmentRow::KIND)
        .await?
        .into_iter();
    let environments = rows.filter_map(|row| serde_json::from_value(row.doc).ok());
    let mut environments: Vec<EnvironmentRow> = environments.collect();
    environments.sort_by(|a, b| (&a.service, a.position).cmp(&(&b.service, b.position)));
    Ok(environment_statuses(sources, environments).await)
}

/// The status of each of these environments.
pub(crate) async fn environment_statuses(
    sources: &StatusSources,
    environments: Vec<EnvironmentRow>,
) -> Vec<EnvironmentStatus> {
    let workloads = &sources.workloads;
    let snapshot = InstanceSnapshot {
        instances: workloads.targets.instances(),
        traffic: workloads.targets.read_all_totals().await,
        unreachable_ports: workloads.targets.unreachable_ports().await,
    };
    let mut statuses = Vec::new();
    for row in environments {
        statuses.push(environment_status(sources, &snapshot, row).await);
    }
    statuses
}

/// Instances and traffic of all environments at one moment.
struct InstanceSnapshot {
    instances: Vec<InstanceStatus>,
    traffic: Option<TrafficReading>,
    unreachable_ports: BTreeMap<u16, String>,
}

async fn environment_status(
    sources: &StatusSources,
    snapshot: &InstanceSnapshot,
    row: EnvironmentRow,
) -> EnvironmentStatus {
    let (engines, workloads) = (&sources.engines, &sources.workloads);
    let environment = row.environment;
    let at = ServiceEnvironment {
        service: row.service,
        environment: environment.name,
    };
    let addresses = find_addresses(engines, &workloads.traffic, &at).await;
    let rollout = match &environment.rollout {
        Some(id) => rollout_view(engines, &sources.live_evidence, id).await.ok(),
        None => None,
    };
    let instances = snapshot.instances.iter();
    let reading = snapshot.traffic.as_ref();
    EnvironmentStatus {
        position: row.position,
        url: addresses.url(sources.proxy_address),
        local_url: addresses.local_url(sources.proxy_address),
        address_problem: addresses.port().and_then(|port| {
            let reason = snapshot.unreachable_ports.get(&port)?;
            Some(format!(
                "the proxy can't listen on port {port}: {reason}; retrying"
            ))
        }),
        split: TrafficSplit {
            reach: None,
            ..workloads.traffic.split(&at)
        },
        instances: instances
            .filter(|status| status.id.set.place == at)
            .cloned()
            .collect(),
        traffic: reading
            .map(|reading| release_traffic(reading, &at))
            .unwrap_or_default(),
        service: at.service,
        environment: at.environment,
        stable: environment.stable,
        rollout,
        queue: environment.queue,
        hold: environment.hold,
        degradation: environment.degradation,
        last_rollout: environment.last_rollout,
        deletion: environment.deletion,
    }
}

fn release_traffic(reading: &TrafficReading, at: &ServiceEnvironment) -> Vec<ReleaseTraffic> {
    let millis = |took: Option<std::time::Duration>| took.map(|took| took.as_secs_f64() * 1_000.0);
    let traffic = |(release, totals): (ReleaseNumber, &TrafficTotals)| ReleaseTraffic {
        release,
        name: release.to_string(),
        requests: totals.requests,
        errors: totals.errors(),
        proxy_errors: totals.proxy_errors,
        abandoned: totals.abandoned,
        late: totals.late,
        overdue: totals.overdue,
        p50_ms: millis(totals.latency.quantile(0.5)),
        p99_ms: millis(totals.latency.quantile(0.99)),
    };
    reading.releases_at(at).map(traffic).collect()
}
