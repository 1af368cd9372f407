//! Metrics of the server and of the traffic through its proxy, for Prometheus.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use shipway_api::{EnvironmentStatus, ReleaseTraffic};
use shipway_engine::Store;

use super::ApiError;
use crate::environment_status::{StatusSources, all_environment_statuses};

/// A counter of each release: its name, its help text and its value.
type TrafficCounter = (&'static str, &'static str, fn(&ReleaseTraffic) -> u64);

const TRAFFIC_COUNTERS: [TrafficCounter; 5] = [
    (
        "shipway_requests_total",
        "Requests answered through the proxy.",
        |traffic| traffic.requests,
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
        "Requests aborted by the client before a response.",
        |traffic| traffic.abandoned,
    ),
    (
        "shipway_requests_late_total",
        "Requests answered successfully, but later than answer_within.",
        |traffic| traffic.late,
    ),
];

/// The metrics in the text format of Prometheus.
pub(crate) async fn metrics(
    State(store): State<Arc<dyn Store>>,
    State(status): State<StatusSources>,
) -> Result<Response, ApiError> {
    let position = store.last_position().await?;
    let environments = all_environment_statuses(&status).await?;
    let mut text = String::new();
    write_head(
        &mut text,
        "shipway_build_info",
        "gauge",
        "The version of this server.",
    );
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(text, "shipway_build_info{{version=\"{version}\"}} 1");
    write_head(
        &mut text,
        "shipway_log_position",
        "counter",
        "Events in the log.",
    );
    let _ = writeln!(text, "shipway_log_position {position}");
    write_ready_instances(&mut text, &environments);
    for counter in &TRAFFIC_COUNTERS {
        write_counter(&mut text, counter, &environments);
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn write_head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn write_ready_instances(text: &mut String, environments: &[EnvironmentStatus]) {
    write_head(
        text,
        "shipway_instances_ready",
        "gauge",
        "Instances that answer their readiness probe.",
    );
    for it in environments {
        let ready = it.instances.iter().filter(|status| status.is_ready());
        let ready = ready.count();
        let _ = writeln!(
            text,
            "shipway_instances_ready{{service=\"{}\",environment=\"{}\"}} {ready}",
            it.service, it.environment
        );
    }
}

fn write_counter(
    text: &mut String,
    (name, help, value): &TrafficCounter,
    environments: &[EnvironmentStatus],
) {
    write_head(text, name, "counter", help);
    for it in environments {
        for traffic in &it.traffic {
            let _ = writeln!(
                text,
                "{name}{{service=\"{}\",environment=\"{}\",release=\"{}\"}} {}",
                it.service,
                it.environment,
                traffic.release.plain(),
                value(traffic)
            );
        }
    }
}
