//! Business events that services report: orders, sign-ups. What they are judged by is `provider: events` in `shipway.yaml`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use shipway_core::{
    config::StickyKey,
    ids::{EnvironmentName, ReleaseNumber, ServiceName},
    service,
    target::{InstanceId, ServiceEnvironment},
};
use utoipa::ToSchema;

use super::Problem;
use crate::{app::App, happened::Report, routes::Lane};

/// Events in one report, at most.
const EVENTS_MAX: usize = 1_000;
/// Times that one entry counts, at most.
const COUNT_MAX: u64 = 1_000_000;

/// What happened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reported {
    /// Where; the service's last environment when not said.
    environment: Option<String>,
    /// At most 1,000.
    events: Vec<Event>,
}

/// One kind of event on one release.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    /// What: `orders`.
    name: String,
    /// How often; once when not said.
    count: Option<u64>,
    /// On which instance, so on its release: an instance knows its own name as `SHIPWAY_INSTANCE`. The only way to tell a
    /// baseline's events from those of the release that it is of.
    instance: Option<String>,
    /// Or on which release: an instance knows its own as `SHIPWAY_RELEASE`.
    release: Option<u32>,
    /// Or whose it was: the value that the traffic is split by (the cookie, the header or the address).
    user: Option<String>,
}

/// What was counted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Counted {
    /// Events, each as often as it happened.
    counted: u64,
}

/// Counts business events. Once this is answered they are on disk; a report that may not have arrived is sent again with the same
/// `Idempotency-Key`.
#[utoipa::path(post, path = "/api/v1/services/{service}/metrics", params(("service" = String, Path)), request_body = Reported,
    responses((status = 200, body = Counted), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn report(
    State(app): State<Arc<App>>,
    Path(service): Path<String>,
    Json(reported): Json<Reported>,
) -> Result<Json<Counted>, Problem> {
    let place = place(&app, &service, reported.environment.as_deref()).await?;
    if reported.events.is_empty() || reported.events.len() > EVENTS_MAX {
        let given = reported.events.len();
        return Err(Problem::bad_request(format!(
            "a report has 1 to {EVENTS_MAX} events, not {given}"
        )));
    }
    let lane = app.traffic.lane(&place);
    let reports: Vec<Report> = reported
        .events
        .iter()
        .map(|event| counted(event, &place, lane.as_ref()))
        .collect::<Result<_, _>>()
        .map_err(Problem::bad_request)?;
    let counted = reports.iter().map(|report| report.count).sum();
    app.happened
        .report(&place, &reports)
        .await
        .map_err(|error| match error {
            crate::happened::LedgerError::TooMany(_) => Problem::bad_request(error.to_string()),
            crate::happened::LedgerError::Unwritable(_) => Problem::new(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                error.to_string(),
            ),
        })?;
    Ok(Json(Counted { counted }))
}

async fn place(
    app: &App,
    service: &str,
    environment: Option<&str>,
) -> Result<ServiceEnvironment, Problem> {
    let name: ServiceName =
        service
            .parse()
            .map_err(|error: <ServiceName as std::str::FromStr>::Err| {
                Problem::bad_request(error.to_string())
            })?;
    let unknown = || Problem::not_found(format!("there is no service {service}"));
    let row = app
        .store
        .row("service", service)
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
        Problem::bad_request(format!(
            "{service} has no environment {}; it has {}",
            environment.unwrap_or("at all"),
            names.join(", ")
        ))
    })?;
    Ok(ServiceEnvironment {
        service: name,
        environment: (*found).clone(),
    })
}

/// One event with its release; the error is a sentence.
fn counted(
    event: &Event,
    place: &ServiceEnvironment,
    lane: Option<&Lane>,
) -> Result<Report, String> {
    let name = event
        .name
        .parse()
        .map_err(|error: shipway_analysis::ParseNameError| error.to_string())?;
    let count = event.count.unwrap_or(1);
    if count == 0 || count > COUNT_MAX {
        return Err(format!(
            "`count` of {} is from 1 to {COUNT_MAX}, not {count}",
            event.name
        ));
    }
    let release = match (&event.instance, event.release, &event.user) {
        (Some(instance), None, None) => set_of(instance, place)?,
        (None, Some(release), None) => ReleaseNumber(release),
        (None, None, Some(user)) => side_of(user, lane)?,
        _ => {
            return Err(format!(
                "{} has one of `instance`, `release` and `user`",
                event.name
            ));
        }
    };
    Ok(Report {
        release,
        event: name,
        count,
    })
}

/// What an instance runs: a release, or the baseline of one.
fn set_of(instance: &str, place: &ServiceEnvironment) -> Result<ReleaseNumber, String> {
    let id: InstanceId = instance
        .parse()
        .map_err(|error: shipway_core::target::NoInstanceId| error.to_string())?;
    if id.set.place == *place {
        Ok(id.set.release)
    } else {
        Err(format!(
            "{instance} is no instance of {} in {}",
            place.service, place.environment
        ))
    }
}

/// The release that a user is on, as the proxy decides it.
fn side_of(user: &str, lane: Option<&Lane>) -> Result<ReleaseNumber, String> {
    const ALL: u32 = 10_000;
    let lane = lane
        .filter(|lane| !lane.split.shares.is_empty())
        .ok_or("nothing serves there, so no user is on any release")?;
    if lane.split.shares.len() > 1 && lane.sticky == StickyKey::None {
        return Err(
            "the traffic isn't split by user (`sticky: none`): name the release instead".to_owned(),
        );
    }
    if lane.split.reach.is_some() {
        return Err(
            "who is on the new release isn't decided by the user alone (`match`): name the release instead"
                .to_owned(),
        );
    }
    let weights: Vec<u32> = lane
        .split
        .shares
        .iter()
        .map(|(_, weight)| weight.basis_points())
        .collect();
    let bucket = shipway_flags::bucket_for(&lane.salt, user, ALL);
    let side = shipway_flags::choose_variant(&weights, bucket)
        .and_then(|side| lane.split.shares.get(side));
    side.map(|(release, _)| *release)
        .ok_or_else(|| "no release has any traffic there".to_owned())
}
