//! Services × environments: what runs where, its health, what is moving.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use maud::{Markup, html};
use shipway_core::{ids::ReleaseNumber, service::EnvironmentHold, target::Phase};

use super::frame::{self, badge, moment, person, words};
use crate::{
    api::Problem,
    app::App,
    overview::{Place, places},
};

/// The handler of `/`.
pub(super) async fn page(State(app): State<Arc<App>>) -> Response {
    render(&app)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn render(app: &Arc<App>) -> Result<Response, Problem> {
    let places = places(app).await?;
    let now = app.now();
    let mut services: Vec<(&str, Vec<&Place>)> = Vec::new();
    for place in &places {
        match services
            .last_mut()
            .filter(|(name, _)| *name == place.service.as_str())
        {
            Some((_, of)) => of.push(place),
            None => services.push((place.service.as_str(), vec![place])),
        }
    }
    let content = html! {
        h1 { "Services" }
        @if services.is_empty() {
            section.card { (first_steps(&app.url)) }
        }
        @for (name, places) in &services {
            section.card {
                h2 { a href={ "/services/" (name) } { (name) } }
                div.places { @for place in places { (card(place, now)) } }
            }
        }
    };
    Ok(frame::page("Services", "all", &content))
}

fn first_steps(url: &str) -> Markup {
    html! {
        p { "Nothing has been pushed yet. In a repository with a " code { "shipway.yaml" } " (" code { "shipway init" } " writes one):" }
        pre { "git push " (url) "/git/my-service main" }
    }
}

/// One environment of a service.
pub(super) fn card(place: &Place, now: Timestamp) -> Markup {
    let ready = place
        .instances
        .iter()
        .filter(|status| status.is_ready())
        .count();
    html! {
        article.place {
            header {
                h3 { (place.environment) }
                a.address href=(place.url) { (place.url) }
            }
            @if let Some(problem) = &place.address_problem {
                p { (problem) }
            }
            @match &place.stable {
                Some(stable) => p.serves {
                    strong { (stable.number) } " " code { (stable.commit.id.short()) } " " (stable.commit.subject)
                    " " span.dim { (moment(stable.created_at, now)) }
                },
                None => p.dim { "nothing serves yet" },
            }
            @if let Some(rollout) = &place.rollout {
                p {
                    a href={ "/rollouts/" (place.service) "/" (rollout.id.number.0) } { "rollout " (rollout.id.number) }
                    " of " strong { (rollout.release) } " " (badge(&words(&rollout.status)))
                }
            }
            @if let Some(degradation) = &place.degradation {
                p.trouble { (badge("degraded")) " since " (moment(degradation.since, now)) ": " (degradation.to_string()) }
            }
            (held(place, now))
            (frame::shares(&place.split, newcomer(place)))
            p.dim {
                (ready) " of " (place.instances.len()) " instances ready"
                @for (index, waiting) in place.queue.iter().enumerate() { @if index == 0 { " · waiting: " } @else { ", " } (waiting) }
            }
            @for status in place.instances.iter().filter(|status| !status.is_ready()) {
                p.trouble { "instance " (status.id.slot) " of " (status.id.set.release) ": " (why(&status.phase)) }
            }
            (traffic(place))
        }
    }
}

/// Who holds the environment and why, with the button that resumes it.
fn held(place: &Place, now: Timestamp) -> Markup {
    let address = format!(
        "/api/v1/services/{}/environments/{}/resume",
        place.service, place.environment
    );
    html! {
        @if let Some(hold) = &place.hold {
            p.hold {
                (badge("held")) " by " (person(&hold.by)) " " (moment(hold.since, now)) ": " (hold.reason)
                ". Automatic promotion is stopped. "
                button type="button" data-post=(address) { "Resume" }
                " " code { (EnvironmentHold::resume_command(&place.service, &place.environment)) }
            }
        }
    }
}

/// The release that is on its way in, if it isn't the stable one.
fn newcomer(place: &Place) -> Option<ReleaseNumber> {
    let coming = place.rollout.as_ref().map(|rollout| rollout.release);
    coming.filter(|coming| {
        place
            .stable
            .as_ref()
            .is_some_and(|stable| stable.number != *coming)
    })
}

fn traffic(place: &Place) -> Markup {
    let shown: Vec<_> = place
        .traffic
        .iter()
        .filter(|traffic| {
            traffic.requests + traffic.abandoned + traffic.overdue > 0
                && place
                    .split
                    .shares
                    .iter()
                    .any(|(release, _)| *release == traffic.release)
        })
        .collect();
    html! {
        @if !shown.is_empty() {
            p.dim { "Since each release first served here:" }
            div.scroll { table {
                thead { tr { th { "release" } th.number { "requests" } th.number { "errors" } th.number { "abandoned" } th.number { "unanswered" } th.number { "p50" } th.number { "p99" } } }
                tbody {
                    @for traffic in shown {
                        tr {
                            td { (traffic.release) }
                            td.number { (traffic.requests) }
                            td class={ "number" @if traffic.errors > 0 { " trouble" } } { (traffic.errors) " (" (share(traffic.errors, traffic.requests)) ")" }
                            td class={ "number" @if traffic.abandoned > 0 { " trouble" } } { (traffic.abandoned) }
                            td class={ "number" @if traffic.late + traffic.overdue > 0 { " trouble" } } { (traffic.late + traffic.overdue) }
                            td.number { (millis(traffic.p50_ms)) }
                            td.number { (millis(traffic.p99_ms)) }
                        }
                    }
                }
            } }
        }
    }
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.2} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn millis(took: Option<f64>) -> String {
    took.map_or_else(|| "–".to_owned(), |took| format!("{took:.1} ms"))
}

fn why(phase: &Phase) -> String {
    match phase {
        Phase::Starting { why } => format!("starting: {why}"),
        Phase::Ready => "ready".to_owned(),
        Phase::Unready { why } => format!("not ready: {why}"),
        Phase::Backoff { why, .. } => format!("will be restarted: {why}"),
        Phase::Stopping => "stopping".to_owned(),
    }
}
