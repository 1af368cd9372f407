//! Services × environments: what serves, its health, what is moving, what the traffic showed.

use std::sync::Arc;

use serde::Serialize;
use shipway_core::{
    ids::{EnvironmentName, ReleaseNumber, RolloutId, ServiceName},
    rollout::{RolloutView, plan::Split},
    service::{Degradation, EnvironmentHold, ReleaseView, ServiceView},
    target::{self, InstanceStatus},
};
use shipway_engine::StoreError;
use utoipa::ToSchema;

use crate::app::App;

/// One environment of one service, as it is now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Place {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The environment.
    #[schema(value_type = String)]
    pub environment: EnvironmentName,
    /// Where it is reached through the proxy.
    pub url: String,
    /// The same without a name to resolve, where its address is the default host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_url: Option<String>,
    /// Why it can't be reached at its port now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_problem: Option<String>,
    /// What serves.
    #[schema(value_type = Option<Object>)]
    pub stable: Option<ReleaseView>,
    /// What is moving.
    #[schema(value_type = Option<Object>)]
    pub rollout: Option<RolloutView>,
    /// Releases that wait for their turn.
    #[schema(value_type = Vec<u32>)]
    pub queue: Vec<ReleaseNumber>,
    /// Set while automatic promotion into it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub hold: Option<EnvironmentHold>,
    /// Set while its stable release lacks ready instances and no rollout guards it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub degradation: Option<Degradation>,
    /// Who gets which share.
    #[schema(value_type = Vec<Object>)]
    pub split: Split,
    /// What runs.
    #[schema(value_type = Vec<Object>)]
    pub instances: Vec<InstanceStatus>,
    /// What the traffic showed, by release.
    pub traffic: Vec<Traffic>,
}

/// What the traffic of a release showed, since its counters began.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Traffic {
    /// The release; with a mark where it is its baseline, or what copies of requests showed of it: see `name`.
    #[schema(value_type = u32)]
    pub release: ReleaseNumber,
    /// As people read it: `#3`, `#3 baseline`, `#4 mirrored`.
    pub name: String,
    /// Requests answered.
    pub requests: u64,
    /// Answered with 5xx.
    pub errors: u64,
    /// Failed in the proxy itself.
    pub proxy_errors: u64,
    /// Given up by their clients without an answer; not among `requests`.
    pub abandoned: u64,
    /// Answered without an error, but later than `answer_within`.
    pub late: u64,
    /// Open now, and without an answer for longer than `answer_within`; not among `requests`.
    pub overdue: u64,
    /// Half of the answers were at least this fast.
    pub p50_ms: Option<f64>,
    /// 99 of 100 answers were at least this fast.
    pub p99_ms: Option<f64>,
}

/// All places, in the order of promotion within each service.
pub async fn places(app: &Arc<App>) -> Result<Vec<Place>, StoreError> {
    let instances = app.target.instances();
    let reading = app.meter.read().await.ok();
    let unreachable = app.plane.unreachable_ports().await.unwrap_or_default();
    let mut places = Vec::new();
    let mut rows = app.store.all_rows("service").await?;
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    for row in rows {
        let Ok(service) = serde_json::from_value::<ServiceView>(row.doc) else {
            continue;
        };
        for environment in service.environments {
            let at = target::Place {
                service: service.name.clone(),
                environment: environment.name.clone(),
            };
            let addresses = app.addresses_of(&at).await;
            let rollout = match &environment.rollout {
                Some(id) => rollout_view(app, id).await,
                None => None,
            };
            places.push(Place {
                url: addresses.url(app.proxy_address),
                local_url: addresses.local_url(app.proxy_address),
                address_problem: addresses.port().and_then(|port| {
                    let reason = unreachable.get(&port)?;
                    Some(format!(
                        "the proxy can't listen on port {port}: {reason}; it tries again"
                    ))
                }),
                split: Split {
                    reach: None,
                    ..app.traffic.split(&at)
                },
                instances: instances
                    .iter()
                    .filter(|status| status.id.set.place == at)
                    .cloned()
                    .collect(),
                traffic: reading
                    .as_ref()
                    .map(|reading| traffic(reading, &at))
                    .unwrap_or_default(),
                service: at.service,
                environment: at.environment,
                stable: environment.stable,
                rollout,
                queue: environment.queue,
                hold: environment.hold,
                degradation: environment.degradation,
            });
        }
    }
    Ok(places)
}

async fn rollout_view(app: &App, id: &RolloutId) -> Option<RolloutView> {
    let state = app.rollout(id).await?;
    let mut view = state.0.as_deref().map(RolloutView::from)?;
    app.live.show(&mut view);
    Some(view)
}

fn traffic(
    reading: &shipway_drivers::data_plane::meter::Reading,
    at: &target::Place,
) -> Vec<Traffic> {
    let millis = |took: Option<std::time::Duration>| took.map(|took| took.as_secs_f64() * 1_000.0);
    let of =
        |(release, totals): (ReleaseNumber, &shipway_drivers::data_plane::meter::Totals)| Traffic {
            release,
            name: release.to_string(),
            requests: totals.requests,
            errors: totals.errors,
            proxy_errors: totals.proxy_errors,
            abandoned: totals.abandoned,
            late: totals.late,
            overdue: totals.overdue,
            p50_ms: millis(totals.latency.quantile(0.5)),
            p99_ms: millis(totals.latency.quantile(0.99)),
        };
    reading.at(at).map(of).collect()
}
