//! Whether the server is well, and its numbers for Prometheus.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use shipway_api::ReleaseTraffic;

use super::Problem;
use crate::{app::App, environment_status::environment_statuses};

/// The process answers.
pub(crate) async fn healthz(State(app): State<Arc<App>>) -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "timestamp": app.now() }))
        .into_response()
}

/// Whether the store, the data plane and the disk are well; with the reason of each check that fails.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let proxy = match app.plane.is_healthy().await {
        true => Ok(()),
        false => Err("the proxy does not answer on its control socket".to_owned()),
    };
    let checks = [
        ("store", check_store(&app).await),
        ("proxy", proxy),
        ("disk", check_disk(&app)),
        ("artifacts", app.storing.check()),
    ];
    let ready = checks.iter().all(|(_, check)| check.is_ok());
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let (mut passed, mut reasons) = (serde_json::Map::new(), serde_json::Map::new());
    for (name, check) in checks {
        passed.insert(name.to_owned(), json!(check.is_ok()));
        if let Err(reason) = check {
            reasons.insert(name.to_owned(), json!(reason));
        }
    }
    let mut body = json!({ "ready": ready, "checks": passed });
    if !reasons.is_empty() {
        body["reasons"] = reasons.into();
    }
    (status, Json(body)).into_response()
}

/// Whether events can be read and appended.
async fn check_store(app: &App) -> Result<(), String> {
    let read = app.store.row("service", "none").await;
    read.map_err(|error| error.to_string())?;
    let appends = app.store.check_appends().await;
    appends.map_err(|error| error.to_string())
}

/// Free space below this many bytes is not well.
const DISK_BYTES_MIN: u64 = 64 << 20;

fn check_disk(app: &App) -> Result<(), String> {
    let shown = app.data.display();
    let found = rustix::fs::statvfs(&app.data).map_err(|error| format!("{shown}: {error}"))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= DISK_BYTES_MIN {
        return Ok(());
    }
    let (free, min) = (free >> 20, DISK_BYTES_MIN >> 20);
    Err(format!(
        "{free} MiB are free at {shown}, fewer than {min} MiB: free some space"
    ))
}

/// The text format of Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut text = String::new();
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    head(
        &mut text,
        "shipway_build_info",
        "gauge",
        "The version of this server.",
    );
    let _ = writeln!(
        text,
        "shipway_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    head(
        &mut text,
        "shipway_log_position",
        "counter",
        "Events in the log.",
    );
    let _ = writeln!(
        text,
        "shipway_log_position {}",
        app.store.last_position().await?
    );
    let places = environment_statuses(&app).await?;
    head(
        &mut text,
        "shipway_instances_ready",
        "gauge",
        "Instances that answer their readiness probe.",
    );
    for place in &places {
        let ready = place
            .instances
            .iter()
            .filter(|status| status.is_ready())
            .count();
        let _ = writeln!(
            text,
            "shipway_instances_ready{{service=\"{}\",environment=\"{}\"}} {ready}",
            place.service, place.environment
        );
    }
    for (name, help, value) in [
        (
            "shipway_requests_total",
            "Requests answered through the proxy.",
            (|traffic| traffic.requests) as fn(&ReleaseTraffic) -> u64,
        ),
        (
            "shipway_request_errors_total",
            "Requests answered with 5xx.",
            |traffic| traffic.errors,
        ),
        (
            "shipway_proxy_errors_total",
            "Requests that failed in the proxy itself.",
            |traffic| traffic.proxy_errors,
        ),
        (
            "shipway_requests_abandoned_total",
            "Requests that their clients gave up without an answer.",
            |traffic| traffic.abandoned,
        ),
        (
            "shipway_requests_late_total",
            "Requests answered without an error, but later than answer_within.",
            |traffic| traffic.late,
        ),
    ] {
        head(&mut text, name, "counter", help);
        for place in &places {
            for traffic in &place.traffic {
                let labels = format!(
                    "service=\"{}\",environment=\"{}\",release=\"{}\"",
                    place.service,
                    place.environment,
                    traffic.release.plain()
                );
                let _ = writeln!(text, "{name}{{{labels}}} {}", value(traffic));
            }
        }
    }
    Ok((
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response())
}

/// The JSON Schema of `shipway.yaml`.
pub(crate) async fn schema() -> Response {
    Json(shipway_core::config::schema()).into_response()
}

/// The description of the API.
pub(crate) async fn document(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
