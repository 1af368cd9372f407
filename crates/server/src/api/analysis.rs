//! The analysis of a rollout over time: numbers for programs and tables, drawings for people.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use shipway_analysis::plot;
use shipway_api::AnalysisReport;
use shipway_core::access::{Resource, Verb};
use shipway_engine::Store;

use super::{ApiError, Caller, rollouts};
use crate::{
    capabilities::ReleaseObservations,
    delivery_engines::DeliveryEngines,
    read_models::{analysis_series, rollout_view},
};

/// The analysis of a rollout: for each metric the values of both releases with their 95% confidence sequences over time (at most 240
/// points), the limit, the weights, and the moment of the decision.
#[utoipa::path(get, path = "/api/v1/rollouts/{service}/{number}/analysis", operation_id = "show_analysis", params(("service" = String, Path), ("number" = String, Path, description = "`7` or `ro7`")),
    responses((status = 200, body = serde_json::Value), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn show(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(observations): State<ReleaseObservations>,
    Path((service, number)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<AnalysisReport>, ApiError> {
    let id = rollouts::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::Analysis(id.clone()))?;
    let view = rollout_view(&engines, &observations.live_evidence, &id).await?;
    Ok(Json(AnalysisReport {
        series: analysis_series(&*store, &id).await?,
        judgement: view.judgement,
        id,
    }))
}

/// One metric of a rollout, drawn: an SVG that is legible in light and dark.
#[utoipa::path(get, path = "/api/v1/rollouts/{service}/{number}/analysis/{metric}", operation_id = "draw_metric",
    params(("service" = String, Path), ("number" = String, Path, description = "`7` or `ro7`"), ("metric" = String, Path, description = "`error-rate`, or `error-rate.svg`")),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = 404, body = shipway_api::Problem)))]
pub(super) async fn drawing(
    State(store): State<Arc<dyn Store>>,
    State(engines): State<Arc<DeliveryEngines>>,
    State(observations): State<ReleaseObservations>,
    Path((service, number, metric)): Path<(String, String, String)>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let id = rollouts::id(&service, &number)?;
    caller.require(Verb::Read, &Resource::Analysis(id.clone()))?;
    rollout_view(&engines, &observations.live_evidence, &id).await?;
    let all = analysis_series(&*store, &id).await?;
    let name = metric.strip_suffix(".svg").unwrap_or(&metric);
    let Some(found) = all.iter().find(|series| series.metric == name) else {
        let known: Vec<&str> = all.iter().map(|series| series.metric.as_str()).collect();
        let known = if known.is_empty() {
            "nothing".to_owned()
        } else {
            known.join(", ")
        };
        return Err(ApiError::missing(format!(
            "{id} has not judged `{name}`: it has judged {known}"
        )));
    };
    Ok((
        [(header::CONTENT_TYPE, "image/svg+xml")],
        plot::standalone(found),
    )
        .into_response())
}
