//! Whether the server is well, and its numbers for Prometheus.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::Problem;
use crate::{app::App, overview};

/// The process answers.
pub(super) async fn healthz(State(app): State<Arc<App>>) -> Response {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "timestamp": app.now() }))
        .into_response()
}

/// The store, the data plane and the disk are well.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let store = app.store.row("service", "none").await.is_ok();
    let proxy = app.plane.healthy().await;
    let disk = disk_is_well(&app);
    let ready = store && proxy && disk;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({ "ready": ready, "checks": { "store": store, "proxy": proxy, "disk": disk } })),
    )
        .into_response()
}

/// Free space below this share of a percent of what there is, or below this many bytes, is not well.
const DISK_BYTES_MIN: u64 = 64 << 20;

fn disk_is_well(app: &App) -> bool {
    let free = |found: rustix::fs::StatVfs| found.f_bavail.saturating_mul(found.f_frsize);
    rustix::fs::statvfs(&app.data).is_ok_and(|found| free(found) >= DISK_BYTES_MIN)
}

/// The text format of Prometheus.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
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
    let places = overview::places(&app).await?;
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
            (|traffic| traffic.requests) as fn(&overview::Traffic) -> u64,
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
pub(super) async fn schema() -> Response {
    Json(shipway_core::config::schema()).into_response()
}

/// The description of the API.
pub(super) async fn document(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
