//! The status of every environment of every service: the stable release, instances, the rollout in progress, traffic.

use std::sync::Arc;

use shipway_api::{EnvironmentStatus, ReleaseTraffic};
use shipway_core::{ids::ReleaseNumber, rollout::plan::TrafficSplit, service::ServiceView, target};
use shipway_engine::StoreError;
use shipway_targets::router::{TrafficReading, TrafficTotals};

use crate::{app::App, read_models::rollout_view};

/// Ordered by service, and within each in the order of promotion.
pub(crate) async fn environment_statuses(
    app: &Arc<App>,
) -> Result<Vec<EnvironmentStatus>, StoreError> {
    let instances = app.workloads.targets.instances();
    let reading = app.workloads.router.read_totals().await.ok();
    let unreachable = app
        .workloads
        .router
        .unreachable_ports()
        .await
        .unwrap_or_default();
    let mut statuses = Vec::new();
    let mut rows = app.store.all_rows("service").await?;
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
            let addresses = app.addresses_of(&at).await;
            let rollout = match &environment.rollout {
                Some(id) => rollout_view(app, id).await.ok(),
                None => None,
            };
            statuses.push(EnvironmentStatus {
                url: addresses.url(app.server_addresses.proxy_address),
                local_url: addresses.local_url(app.server_addresses.proxy_address),
                address_problem: addresses.port().and_then(|port| {
                    let reason = unreachable.get(&port)?;
                    Some(format!(
                        "the proxy can't listen on port {port}: {reason}; it tries again"
                    ))
                }),
                split: TrafficSplit {
                    reach: None,
                    ..app.workloads.traffic.split(&at)
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
