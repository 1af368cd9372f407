//! A rollout: who gets which share, what the evidence says, the plan with where it is, its story.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{
    ids::{RolloutId, RolloutNumber, ServiceName},
    rollout::{Progress, RolloutView},
};

use super::frame::{self, badge, moment, words};
use crate::{api, app::App};

/// The handler of `/rollouts/{service}/{number}`.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Response {
    let id = service
        .parse::<ServiceName>()
        .ok()
        .zip(number.parse::<RolloutNumber>().ok());
    let Some(id) = id.map(|(service, number)| RolloutId { service, number }) else {
        return frame::missing("That is no rollout.");
    };
    match api::rollout_view(&app, &id).await {
        Ok(view) => frame::page(
            &format!("{} of {}", id.number, id.service),
            &format!("stream={}", id.stream()),
            &content(&view, app.now()),
        ),
        Err(problem) if problem.status == 404 => frame::missing(&problem.detail),
        Err(problem) => problem.into_response(),
    }
}

fn content(view: &RolloutView, now: Timestamp) -> Markup {
    html! {
        p.dim { a href={ "/services/" (view.id.service) } { (view.id.service) } " / " (view.id.number) }
        h1 { (view.release) " → " (view.environment) " " (badge(&words(&view.status))) }
        p { code { (view.commit) } " " (view.subject) span.dim { " · " (view.strategy) " · " (view.why) " · by " (view.by) " · " (moment(view.opened_at, now)) } }
        @if let Some(end) = &view.ended { p.lead { (end.why) } }
        @if let Some(turn) = view.turned_back.as_ref().filter(|_| view.ended.is_none()) { p.lead.bad { "Going back: " (turn.why) } }
        @if let Some(pause) = &view.paused { p.lead { "Paused by " (pause.by) ": " (pause.reason) } }
        @if let Some(until) = view.hold_until { p.dim { "This step is held until " (moment(until, now)) } }
        section.card {
            h2 { "Traffic" }
            @if view.split.0.is_empty() { p.dim { "no traffic" } }
            div.shares { @for (index, (release, weight)) in view.split.0.iter().enumerate() {
                meter class={ "share s" (index.min(1)) } min="0" max="100" value=(weight.percent()) {}
                span { (weight) " to " (release) }
            } }
            @if let Some(judgement) = &view.judgement { p { (judgement.verdict.to_string()) } }
            (measured(view))
        }
        (smoke(view))
        section.card {
            h2 { "Plan" }
            ol.plan { @for line in &view.plan { li class=(words(&line.progress)) aria-current=[(line.progress == Progress::Now).then_some("step")] { (line.text) } } }
        }
        section.card {
            h2 { "Story" }
            table { tbody { @for note in view.notes.iter().rev() { tr { td.dim { (moment(note.at, now)) } td { (note.text) } td.dim { (note.by) } } } } }
        }
        @if view.ended.is_none() { (commands(view)) }
    }
}

fn measured(view: &RolloutView) -> Markup {
    let Some(seen) = &view.seen else {
        return html! {};
    };
    let sides = std::iter::once(&seen.canary).chain(&seen.stable);
    let shown = |value: Option<f64>, unit: &str| {
        value
            .filter(|value| value.is_finite())
            .map_or_else(|| "–".to_owned(), |value| format!("{value:.1} {unit}"))
    };
    html! {
        table {
            thead { tr { th { "release" } th { "requests" } th { "errors" } th { "p99" } th { "cpu" } th { "memory" } th { "restarts" } } }
            tbody { @for side in sides { @if let Some(sample) = &side.sample { tr {
                td { (side.release) } td { (sample.requests) } td { (sample.errors) }
                td { (shown(sample.latency.and_then(|latency| latency.p99_ms), "ms")) }
                td { (shown(sample.cpu.map(|cpu| cpu * 100.0), "%")) }
                td { (shown(sample.memory_bytes.map(|bytes| bytes / 1_048_576.0), "MiB")) }
                td { (sample.restarts.map_or_else(|| "–".to_owned(), |restarts| restarts.to_string())) }
            } } } }
        }
    }
}

fn smoke(view: &RolloutView) -> Markup {
    let Some(report) = &view.smoke else {
        return html! {};
    };
    html! {
        section.card {
            h2 { "Smoke tests" }
            p { (report.sentence()) }
            table { tbody { @for result in &report.results { tr {
                td { (badge(if result.passed { "success" } else { "failure" })) }
                td { (result.name) } td.dim { (result.instance) } td { (result.took.as_millis()) " ms" }
                td { @for difference in &result.differences { (difference.0) br; } }
            } } } }
        }
    }
}

/// What a person would do, as commands to copy; buttons come with logins.
fn commands(view: &RolloutView) -> Markup {
    let verbs: &[&str] = match view.status {
        shipway_core::rollout::Status::Waiting => &["approve", "reject"],
        shipway_core::rollout::Status::Paused => &["resume", "promote", "abort"],
        _ => &["pause", "promote", "abort"],
    };
    html! { section.card { h2 { "Steer" } @for verb in verbs { pre { "shipway " (verb) " " (view.id) } } } }
}
