//! What was judged in a rollout, over time: numbers for programs and tables, drawings for people.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use shipway_analysis::{
    Judgement,
    plot::{self, Series},
};
use shipway_core::{
    aggregate::Event,
    ids::RolloutId,
    rollout::{Body, series},
};

use super::{Problem, rollouts};
use crate::app::App;

/// What was judged.
#[derive(Debug, Serialize)]
pub(super) struct Judged {
    /// The rollout.
    id: RolloutId,
    /// How things stand, with the sentence.
    judgement: Option<Judgement>,
    /// One for each metric, in the order of the rules.
    series: Vec<Series>,
}

/// What was judged in a rollout: for each metric both releases' values with their 95 % confidence sequences over time (at most 240
/// points), the limit, the weights, and the moment of the decision.
#[utoipa::path(get, path = "/api/v1/rollouts/{service}/{number}/analysis", params(("service" = String, Path), ("number" = String, Path, description = "`7` or `ro7`")),
    responses((status = 200, body = serde_json::Value), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Result<Json<Judged>, Problem> {
    let id = rollouts::id(&service, &number)?;
    let view = rollouts::view(&app, &id).await?;
    Ok(Json(Judged {
        series: series_of(&app, &id).await?,
        judgement: view.judgement,
        id,
    }))
}

/// One metric of a rollout, drawn: an SVG that is legible in light and dark.
#[utoipa::path(get, path = "/api/v1/rollouts/{service}/{number}/analysis/{metric}",
    params(("service" = String, Path), ("number" = String, Path, description = "`7` or `ro7`"), ("metric" = String, Path, description = "`error-rate`, or `error-rate.svg`")),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = 404, body = Problem)))]
pub(super) async fn drawing(
    State(app): State<Arc<App>>,
    Path((service, number, metric)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let id = rollouts::id(&service, &number)?;
    rollouts::view(&app, &id).await?;
    let all = series_of(&app, &id).await?;
    let name = metric.strip_suffix(".svg").unwrap_or(&metric);
    let Some(found) = all.iter().find(|series| series.metric == name) else {
        let known: Vec<&str> = all.iter().map(|series| series.metric.as_str()).collect();
        let known = if known.is_empty() {
            "nothing".to_owned()
        } else {
            known.join(", ")
        };
        return Err(Problem::not_found(format!(
            "{id} has not judged `{name}`: it has judged {known}"
        )));
    };
    Ok((
        [(header::CONTENT_TYPE, "image/svg+xml")],
        plot::standalone(found),
    )
        .into_response())
}

/// The series of a rollout, read from its log.
pub(crate) async fn series_of(app: &Arc<App>, id: &RolloutId) -> Result<Vec<Series>, Problem> {
    series_until(app, id, Timestamp::MAX).await
}

/// The series of a rollout as they were at that moment.
pub(crate) async fn series_until(
    app: &Arc<App>,
    id: &RolloutId,
    until: Timestamp,
) -> Result<Vec<Series>, Problem> {
    let log = app.store.read(&id.stream(), 0).await?;
    let read = move || {
        // An event that can't be read here could not be folded either, and there would be no rollout to show.
        let events: Vec<Event<Body>> = log
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok())
            .filter(|event: &Event<Body>| event.at <= until)
            .collect();
        series::series(&events)
    };
    // Thousands of measurements are milliseconds of work: not for the threads that answer everybody.
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
