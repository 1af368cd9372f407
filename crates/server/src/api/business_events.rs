//! Business events that services report, such as orders and sign-ups. `provider: events` in `shipway.yaml` makes one a metric.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use shipway_api::{BusinessEvent, BusinessEventReport, BusinessEventsCounted};
use shipway_core::{
    access::{Resource, Verb},
    config::StickyKey,
    ids::{EnvironmentName, ReleaseNumber, ServiceName},
    service,
    target::{InstanceId, ServiceEnvironment},
};
use shipway_engine::Store;
use shipway_targets::router::TrafficRoute;

use super::{ApiError, Caller, json_body::JsonObject, services::parse};
use crate::{
    business_events::EventReport,
    capabilities::{ReleaseObservations, Workloads},
};

/// Events in one report, at most.
const EVENTS_MAX: usize = 1_000;
/// Times that one entry counts, at most.
const COUNT_MAX: u64 = 1_000_000;

/// Counts business events. Once this is answered they are on disk; a report that may not have arrived is sent again with the same
/// `Idempotency-Key`.
#[utoipa::path(post, path = "/api/v1/services/{service}/metrics", operation_id = "report_business_events", params(("service" = String, Path)), request_body = BusinessEventReport,
    responses((status = 200, body = BusinessEventsCounted), (status = 400, body = shipway_api::Problem), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn report(
    State(store): State<Arc<dyn Store>>,
    State(observations): State<ReleaseObservations>,
    State(workloads): State<Workloads>,
    Path(service): Path<String>,
    caller: Caller,
    JsonObject(reported): JsonObject<BusinessEventReport>,
) -> Result<Json<BusinessEventsCounted>, ApiError> {
    let name = parse::<ServiceName>(&service)?;
    let environment = reported.environment.as_deref();
    let resource = match environment.and_then(|it| it.parse().ok()) {
        Some(environment) => Resource::Environment(ServiceEnvironment {
            service: name.clone(),
            environment,
        }),
        None => Resource::Service(name.clone()),
    };
    caller.require(Verb::ReportMetrics, &resource)?;
    let place = find_environment(&*store, name, reported.environment.as_deref()).await?;
    if reported.events.is_empty() || reported.events.len() > EVENTS_MAX {
        let given = reported.events.len();
        return Err(ApiError::bad_request(format!(
            "a report must have 1 to {EVENTS_MAX} events, but this has {given}"
        )));
    }
    let route = workloads.traffic.route(&place);
    let reports: Vec<EventReport> = reported
        .events
        .iter()
        .map(|event| resolve_event(event, &place, route.as_ref()))
        .collect::<Result<_, _>>()
        .map_err(|error: EventError| ApiError::bad_request(error.to_string()))?;
    let counted = reports.iter().map(|report| report.count).sum();
    observations
        .business_events
        .report(&place, &reports)
        .await
        .map_err(|error| match error {
            crate::business_events::ReportError::TooMany(_) => {
                ApiError::bad_request(error.to_string())
            }
            crate::business_events::ReportError::Unwritable(_) => ApiError::new(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                error.to_string(),
            ),
        })?;
    Ok(Json(BusinessEventsCounted { counted }))
}

async fn find_environment(
    store: &dyn Store,
    service: ServiceName,
    environment: Option<&str>,
) -> Result<ServiceEnvironment, ApiError> {
    let unknown = || ApiError::missing(format!("no such service: {service}"));
    let row = store
        .row("service", service.as_str())
        .await?
        .ok_or_else(unknown)?;
    let view: service::ServiceView = serde_json::from_value(row.doc).map_err(|_| unknown())?;
    let known: Vec<&EnvironmentName> = view.environments.iter().map(|it| &it.name).collect();
    let found = match environment {
        Some(wanted) => known.iter().find(|it| it.as_str() == wanted),
        None => known.last(),
    };
    let found = found.ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|it| it.as_str()).collect();
        ApiError::bad_request(format!(
            "{service} has no environment {}; it has {}",
            environment.unwrap_or("at all"),
            names.join(", ")
        ))
    })?;
    Ok(ServiceEnvironment {
        environment: (*found).clone(),
        service,
    })
}

/// Why an event of a report can't be counted.
#[derive(Debug, thiserror::Error)]
enum EventError {
    #[error(transparent)]
    Name(#[from] shipway_analysis::ParseNameError),
    #[error("`count` of {name} must be from 1 to {COUNT_MAX}, but this is {count}")]
    Count { name: String, count: u64 },
    #[error("{name} must have exactly one of `instance`, `release` and `user`")]
    AmbiguousRelease { name: String },
    #[error(transparent)]
    InstanceId(#[from] shipway_core::target::NoInstanceId),
    #[error("{instance} is not an instance of {} in {}", place.service, place.environment)]
    OtherInstance {
        instance: String,
        place: ServiceEnvironment,
    },
    #[error("no release is deployed there, so users can't be assigned to one")]
    NothingServes,
    #[error("the traffic isn't split by user (`sticky: none`): name the release instead")]
    NotSticky,
    #[error("the new release isn't chosen by user alone (`match`): name the release instead")]
    Matched,
    #[error("no release has any traffic there")]
    NoTraffic,
}

/// One event with its release.
fn resolve_event(
    event: &BusinessEvent,
    place: &ServiceEnvironment,
    route: Option<&TrafficRoute>,
) -> Result<EventReport, EventError> {
    let name = event.name.parse()?;
    let count = event.count.unwrap_or(1);
    if count == 0 || count > COUNT_MAX {
        let name = event.name.clone();
        return Err(EventError::Count { name, count });
    }
    let release = match (&event.instance, event.release, &event.user) {
        (Some(instance), None, None) => release_of_instance(instance, place)?,
        (None, Some(release), None) => ReleaseNumber(release),
        (None, None, Some(user)) => release_of_user(user, route)?,
        _ => {
            let name = event.name.clone();
            return Err(EventError::AmbiguousRelease { name });
        }
    };
    Ok(EventReport {
        release,
        event: name,
        count,
    })
}

/// What an instance runs: a release, or the baseline of one.
fn release_of_instance(
    instance: &str,
    place: &ServiceEnvironment,
) -> Result<ReleaseNumber, EventError> {
    let id: InstanceId = instance.parse()?;
    if id.set.place == *place {
        return Ok(id.set.release);
    }
    Err(EventError::OtherInstance {
        instance: instance.to_owned(),
        place: place.clone(),
    })
}

/// The release that a user is on, as the proxy decides it.
fn release_of_user(user: &str, route: Option<&TrafficRoute>) -> Result<ReleaseNumber, EventError> {
    const ALL: u32 = 10_000;
    let route = route
        .filter(|route| !route.split.shares.is_empty())
        .ok_or(EventError::NothingServes)?;
    if route.split.shares.len() > 1 && route.sticky == StickyKey::None {
        return Err(EventError::NotSticky);
    }
    if route.split.reach.is_some() {
        return Err(EventError::Matched);
    }
    let shares: Vec<_> = route.split.releases().collect();
    let weights: Vec<u32> = shares
        .iter()
        .map(|(_, weight)| weight.basis_points())
        .collect();
    let bucket = shipway_flags::bucket_for(&route.salt, user, ALL);
    let side = shipway_flags::choose_variant(&weights, bucket).and_then(|side| shares.get(side));
    side.map(|(release, _)| *release)
        .ok_or(EventError::NoTraffic)
}
