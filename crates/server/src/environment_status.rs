//! The status of every environment of every service: the stable release, instances, the rollout in progress, traffic.

use std::net::SocketAddr;

use shipway_api::{EnvironmentStatus, ReleaseTraffic};
use shipway_core::{ids::ReleaseNumber, rollout::plan::TrafficSplit, service::ServiceView, target};
use shipway_engine::{Store, StoreError};
use shipway_targets::router::{TrafficReading, TrafficTotals};

use crate::{
    address_book::find_addresses, capabilities::Workloads, delivery_engines::DeliveryEngines,
    live_evidence::LiveEvidence, read_models::rollout_view,
};

/// What the status of an environment is read from.
#[derive(Clone, Copy)]
pub(crate) struct StatusSources<'a> {
    pub(crate) log: &'a dyn Store,
    pub(crate) engines: &'a DeliveryEngines,
    pub(crate) workloads: &'a Workloads,
    pub(crate) live_evidence: &'a LiveEvidence,
    /// Where the proxy listens.
    pub(crate) proxy_address: SocketAddr,
}

/// Ordered by service, and within each in the order of promotion.
pub(crate) async fn environment_statuses(
    sources: StatusSources<'_>,
) -> Result<Vec<EnvironmentStatus>, StoreError> {
    let (engines, workloads) = (sources.engines, sources.workloads);
    let proxy_address = sources.proxy_address;
    let instances = workloads.targets.instances();
    let reading = workloads.targets.read_all_totals().await;
    let unreachable = workloads.targets.unreachable_ports().await;
    let mut statuses = Vec::new();
    let mut rows = sources.log.all_rows("service").await?;
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    for row in rows {
        let Ok(service) = serde_json::from_value::<ServiceView>(row.doc) else {
            continue;
        };
        for environment in service.environments {
            let at = target::ServiceEnvironment {
                service: service.name.clone(),
                environment: environment.name.clone(),
            };
            let addresses = find_addresses(engines, &workloads.traffic, &at).await;
            let rollout = match &environment.rollout {
                Some(id) => rollout_view(engines, sources.live_evidence, id).await.ok(),
                None => None,
            };
            statuses.push(EnvironmentStatus {
                url: addresses.url(proxy_address),
                local_url: addresses.local_url(proxy_address),
                address_problem: addresses.port().and_then(|port| {
                    let reason = unreachable.get(&port)?;
                    Some(format!(
                        "the proxy can't listen on port {port}: {reason}; retrying"
                    ))
                }),
                split: TrafficSplit {
                    reach: None,
                    ..workloads.traffic.split(&at)
                },
                instances: instances
                    .iter()
                    .filter(|status| status.id.set.place == at)
                    .cloned()
                    .collect(),
                traffic: reading
                    .as_ref()
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
            });
        }
    }
    Ok(statuses)
}

fn release_traffic(
    reading: &TrafficReading,
    at: &target::ServiceEnvironment,
) -> Vec<ReleaseTraffic> {
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
