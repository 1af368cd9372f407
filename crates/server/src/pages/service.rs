//! A service: its environments, releases and latest rollouts and runs.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use maud::html;
use serde_json::Value;
use shipway_core::{
    release::Release,
    rollout::{RolloutView, Status},
};

use super::{
    frame::{self, badge, moment, person, words},
    overview::card,
};
use crate::{api::Problem, app::App, overview::places};

/// Entries of each list.
const SHOWN: u32 = 15;

/// The handler of `/services/{service}`.
pub(super) async fn page(State(app): State<Arc<App>>, Path(service): Path<String>) -> Response {
    render(&app, &service)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn render(app: &Arc<App>, service: &str) -> Result<Response, Problem> {
    let places: Vec<_> = places(app)
        .await?
        .into_iter()
        .filter(|place| place.service.as_str() == service)
        .collect();
    if places.is_empty() {
        return Ok(frame::missing(&format!("There is no service {service}.")));
    }
    let now = app.now();
    let docs = async |kind: &str| {
        app.store
            .rows(kind, Some(service), false, None, SHOWN)
            .await
            .map(|page| {
                page.rows
                    .into_iter()
                    .map(|row| row.doc)
                    .collect::<Vec<Value>>()
            })
    };
    let releases: Vec<Release> = docs("release")
        .await?
        .into_iter()
        .filter_map(|doc| serde_json::from_value(doc).ok())
        .collect();
    let rollouts: Vec<RolloutView> = docs("rollout")
        .await?
        .into_iter()
        .filter_map(|doc| serde_json::from_value(doc).ok())
        .collect();
    let runs = docs("run").await?;
    let content = html! {
        h1 { (service) }
        div.places { @for place in &places { (card(place, now)) } }
        section.card {
            h2 { "Rollouts" }
            div.scroll { table { tbody { @for rollout in &rollouts { tr {
                td.tight { a href={ "/rollouts/" (service) "/" (rollout.id.number.0) } { (rollout.id.number) } }
                td.tight { (super::rollout::kind_word(rollout)) (rollout.release) " → " (rollout.environment) }
                td {
                    (badge(&words(&rollout.status)))
                    @if let Some(end) = rollout.ended.as_ref().filter(|_| rollout.status != Status::Promoted) { p { (end.why) } }
                }
                td.dim.tight { (moment(rollout.opened_at, now)) }
            } } } } }
        }
        section.card {
            h2 { "Runs" }
            div.scroll { table { tbody { @for run in &runs { tr {
                @let number = run["number"].as_u64().unwrap_or_default();
                td.tight { a href={ "/runs/" (service) "/" (number) } { "r" (number) } }
                td { (super::run::title(run)) " " span.dim { (run["workflow"].as_str().unwrap_or_default()) } }
                td { (badge(run["status"].as_str().unwrap_or_default())) }
                td.dim { (run["commit"].as_str().unwrap_or_default().chars().take(7).collect::<String>()) }
            } } } } }
        }
        section.card {
            h2 { "Releases" }
            div.scroll { table { tbody { @for release in &releases { tr {
                td.tight { strong { (release.number) } }
                td { code { (release.commit.id.short()) } " " (release.commit.subject) }
                td { (person(&release.commit.author)) }
                td.dim.tight { (moment(release.created_at, now)) }
            } } } } }
        }
    };
    Ok(frame::page(
        service,
        &format!("service={service}"),
        &content,
    ))
}
