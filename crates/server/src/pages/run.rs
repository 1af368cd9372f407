//! A run: its jobs and steps with how they ended, and where their logs are.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde_json::Value;
use shipway_core::{
    ids::{RunId, RunNumber, ServiceName},
    run::{Annotation, RunView},
};

use super::{
    frame::{self, badge, person, took},
    markdown::markdown,
    testing,
};
use crate::{api, app::App, telling, testing as tests};

/// The handler of `/runs/{service}/{number}`.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    Path((service, number)): Path<(String, String)>,
) -> Response {
    let id = service
        .parse::<ServiceName>()
        .ok()
        .zip(number.parse::<RunNumber>().ok());
    let Some(id) = id.map(|(service, number)| RunId { service, number }) else {
        return frame::missing("That is no run.");
    };
    let run = match api::run_doc(&app, &id).await {
        Ok(run) => run,
        Err(problem) if problem.status == 404 => return frame::missing(&problem.detail),
        Err(problem) => return problem.into_response(),
    };
    let view: Option<RunView> = serde_json::from_value(run.clone()).ok();
    let (lines, tests) = match &view {
        Some(view) => (telling::of(&app, view).await, tests::of(&app, view).await),
        None => (None, None),
    };
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let content = html! {
        p.dim { a href={ "/services/" (id.service) } { (id.service) } " / " (id.number) }
        h1 { (title(&run)) " " (badge(&text(&run, "status"))) @if run["attempt"].as_u64().is_some_and(|attempt| attempt > 1) { span.dim { " attempt " (run["attempt"].as_u64().unwrap_or_default()) } } }
        p { code { (text(&run, "commit").chars().take(7).collect::<String>()) } " " (text(&run, "subject")) span.dim { " · " (text(&run, "name")) " · " (text(&run, "workflow")) " · " (text(&run, "event")) " · " (text(&run, "branch")) " · by " (person(&text(&run, "by"))) } }
        @if !text(&run, "waits_for").is_empty() { p { (text(&run, "waits_for")) } }
        @if let Some(lines) = &lines { (testing::three_lines(lines)) }
        @if let Some(tests) = &tests { (testing::section(tests, app.now())) }
        @if run["status"] == "failure" || run["status"] == "cancelled" {
            p.dim { "again: " code { "shipway retry " (id) " --from-failed-step" } " goes on where it failed, " code { "shipway retry " (id) " --failed" } " runs what failed from its first step, " code { "shipway retry " (id) } " all of it; " code { "shipway shell " (id) } " opens a shell there" }
        }
        @for job in list(&run, "jobs") {
            section.card {
                h2 { (text(&job, "name")) " " (badge(&text(&job, "status"))) }
                @if !text(&job, "environment").is_empty() { p.dim { "environment " (text(&job, "environment")) (address(&text(&job, "environment_url"))) } }
                @if !text(&job, "waits_for").is_empty() { p { (text(&job, "waits_for")) } }
                @if !text(&job, "why").is_empty() { p.trouble { (text(&job, "why")) } }
                div.scroll { table { tbody { @for step in list(&job, "steps") { tr {
                    td.tight { (badge(&text(&step, "status"))) }
                    td { (text(&step, "name")) @if let Some(attempt) = step["in_attempt"].as_u64() { span.dim { " in attempt " (attempt) } } }
                    td.dim.number { @if let Some(millis) = step["took_ms"].as_u64().filter(|_| step["status"] != "skipped") { (took(millis)) } }
                } } } } }
                (annotations(&list(&job, "annotations")))
                @if !text(&job, "summary").is_empty() { details open { summary { "Summary" } (markdown(&text(&job, "summary"))) } }
                @if !text(&job, "calls").is_empty() { p.dim { "calls " code { (text(&job, "calls")) } @if !text(&job, "calls_commit").is_empty() { " at " code { (text(&job, "calls_commit").chars().take(7).collect::<String>()) } } } }
                @else if !matches!(text(&job, "status").as_str(), "skipped" | "waiting") {
                    // Filled by the script while it is open; without it the link is there.
                    details.log data-log={ "/api/v1/runs/" (id.service) "/" (id.number.0) "/jobs/" (text(&job, "key")) "/log" } {
                        summary { "log " a.dim href={ "/api/v1/runs/" (id.service) "/" (id.number.0) "/jobs/" (text(&job, "key")) "/log" } { "as text: log of " (text(&job, "name")) } }
                        pre {}
                    }
                    @for (at, _) in list(&job, "earlier").iter().enumerate() { " · " a href={ "/api/v1/runs/" (id.service) "/" (id.number.0) "/jobs/" (text(&job, "key")) "/log?attempt=" (at + 1) } { "attempt " (at + 1) } }
                }
            }
        }
    };
    frame::page(
        &id.to_string(),
        &format!("stream={}", id.stream()),
        &content,
    )
}

/// What a run is called, in the row of it.
pub(super) fn title(run: &Value) -> &str {
    let words = [&run["title"], &run["name"]];
    let mut words = words.into_iter().filter_map(Value::as_str);
    words.find(|text| !text.is_empty()).unwrap_or_default()
}

/// What the steps of a job pointed out.
fn annotations(all: &[Value]) -> Markup {
    let line = |annotation: &Value| {
        serde_json::from_value::<Annotation>(annotation.clone())
            .map(|annotation| annotation.in_one_line())
            .unwrap_or_default()
    };
    html! {
        @if !all.is_empty() { ul { @for annotation in all {
            li { (badge(annotation["level"].as_str().unwrap_or_default())) " " (line(annotation)) }
        } } }
    }
}

/// An address that a job gave; only of the web, whatever it says.
fn address(url: &str) -> Markup {
    let of_web = ["https://", "http://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    html! {
        @if of_web { " · " a href=(url) rel="nofollow noopener noreferrer" { (url) } }
        @else if !url.is_empty() { " · " (url) }
    }
}
