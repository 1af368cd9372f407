//! The JSON Schema of `shipway.yaml`, for editors. A test holds it to the keys that are read.

use serde_json::{Value, json};

use super::Strategy;
use crate::target::StopSignal;

/// The schema (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let (target, router) = super::targets::schemas();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "shipway.yaml",
        "description": "How a service is built, run, checked and rolled out.",
        "type": "object",
        "required": ["service", "run", "environments"],
        "additionalProperties": false,
        "properties": {
            "service": { "$ref": "#/$defs/name", "description": "The service's name, unique on a server." },
            "branch": { "type": "string", "default": "main", "description": "Whose green commits are released." },
            "workflow": { "$ref": "#/$defs/texts", "description": "The workflows that a push runs; default: all in .github/workflows that match it." },
            "artifact": {
                "description": "What a release is made of: the name given to actions/upload-artifact, or the commit's own tree.",
                "oneOf": [
                    { "type": "string" },
                    { "type": "object", "additionalProperties": false, "properties": { "source": { "const": "." }, "image": { "type": "string" } } }
                ]
            },
            "run": {
                "type": "object", "required": ["command"], "additionalProperties": false,
                "description": "How an instance starts.",
                "properties": {
                    "command": { "type": "string", "description": "A shell command; $PORT is the port to listen on." },
                    "env": { "$ref": "#/$defs/env" },
                    "health": { "$ref": "#/$defs/health" },
                    "limits": { "type": "object", "additionalProperties": false, "properties": { "memory": { "type": ["string", "integer"] }, "cpu": { "type": ["string", "number"] }, "processes": { "type": "integer", "minimum": 1 } } },
                    "grace": { "$ref": "#/$defs/duration", "default": "10s", "description": "From the stop signal to SIGKILL." },
                    "stop_signal": { "enum": StopSignal::ALL.map(StopSignal::name), "default": "SIGTERM", "description": "Sent once, to the main process alone, to ask it to finish its open requests and exit." }
                }
            },
            "reports": {
                "type": "object", "additionalProperties": false,
                "description": "Where tests report, and what is asked of them.",
                "properties": {
                    "junit": { "$ref": "#/$defs/texts", "description": "JUnit XML files, as patterns; default **/TEST-*.xml." },
                    "coverage": { "$ref": "#/$defs/texts", "description": "Cobertura XML and LCOV files, as patterns; default **/lcov.info, **/coverage.xml and the like." },
                    "minimum": { "type": ["string", "number"], "description": "The share of lines that must be covered where a run reports coverage: 80%." }
                }
            },
            "environments": { "type": "object", "minProperties": 1, "description": "In order of promotion.", "additionalProperties": { "$ref": "#/$defs/environment" } },
            "target": target,
            "router": router
        },
        "$defs": {
            "name": { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" },
            "duration": { "type": "string", "pattern": "^([0-9.]+(d|h|m|s|ms))+$" },
            "texts": { "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] },
            "env": { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } },
            "count": { "type": ["integer", "string"], "description": "A number or a percentage." },
            "health": health(),
            "smoke": smoke(),
            "metric": metric(),
            "provider": provider(),
            "environment": environment()
        }
    })
}

fn health() -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "http": { "type": "string", "description": "A path; 2xx or 3xx is good." },
            "tcp": { "type": "boolean" },
            "exec": { "type": "string", "description": "A shell command; exit code 0 is good." },
            "status": { "type": "integer", "description": "The only good status." },
            "headers": { "$ref": "#/$defs/env", "description": "Sent with `http`. Without `host` the first of the environment's `hosts` is asked for, or else the instance's own address." },
            "liveness": { "type": "object", "additionalProperties": false, "properties": { "http": { "type": "string" }, "tcp": { "type": "boolean" }, "exec": { "type": "string" }, "status": { "type": "integer" }, "headers": { "$ref": "#/$defs/env" } } },
            "interval": { "$ref": "#/$defs/duration", "default": "2s" },
            "timeout": { "$ref": "#/$defs/duration", "default": "1s" },
            "healthy_after": { "type": "integer", "default": 1, "description": "Good answers in a row, an interval apart, until an instance is ready." },
            "unhealthy_after": { "type": "integer", "default": 3 },
            "start_period": { "$ref": "#/$defs/duration", "default": "30s", "description": "How long after its start failed liveness probes are not counted, until the first good one." }
        }
    })
}

fn smoke() -> Value {
    let path = || json!({ "type": "string", "pattern": "^/" });
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "name": { "type": "string" }, "method": { "type": "string" }, "path": path(),
            "get": path(), "post": path(), "put": path(), "patch": path(), "delete": path(), "head": path(), "options": path(),
            "headers": { "$ref": "#/$defs/env" }, "body": {}, "retries": { "type": "integer", "default": 0 },
            "exec": { "type": "string", "description": "A shell command with URL in its environment." },
            "expect": {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "status": { "type": "integer" }, "headers": { "$ref": "#/$defs/env" },
                    "json": { "description": "By path, what the value there must contain." },
                    "body": { "description": "A text it must contain, or { contains, matches }." },
                    "within": { "$ref": "#/$defs/duration" }
                }
            }
        }
    })
}

fn metric() -> Value {
    let number = || json!({ "type": ["string", "number"] });
    let mut schema = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "metric": { "type": "string", "description": "What is measured: one of those below, or a name of your own with a provider.", "examples": shipway_analysis::Metric::names() },
            "provider": { "$ref": "#/$defs/provider" },
            "over": { "oneOf": [{ "const": "auto" }, { "$ref": "#/$defs/duration" }], "description": "Of slow-rate: the time from which on an answer is slow; auto: stable's own p99 of the last hour, at least 50ms, or 1s where stable had too few requests." },
            "required": { "type": "boolean", "default": false, "description": "Whether too little traffic for this rule pauses the rollout at the end of a hold." },
            "judge": { "enum": ["sequential", "threshold", "mann-whitney", "expression"] },
            "max": number(), "min": number(),
            "worse_than": { "enum": ["stable"], "description": "Compared with stable by the sequential judge, as early as the evidence allows. With a limit of restarts or availability: forgiven where stable is about as bad." },
            "max_without_stable": { "type": ["string", "number"], "description": "Of error-rate and slow-rate with worse_than: the limit where there is no stable release to compare with." },
            "direction": { "enum": ["increase", "decrease", "either"], "description": "Which way is worse; either: of judge mann-whitney." },
            "abandoned": { "enum": ["count", "ignore"], "default": "count", "description": "Of error-rate: whether requests that clients give up, or that wait for longer than answer_within, are failures." },
            "unit": { "enum": ["users", "requests"], "default": "users", "description": "Of error-rate and slow-rate with worse_than: users who meet one count once, where they are known again (sticky), or every request does." },
            "interval": { "$ref": "#/$defs/duration", "default": "5s" },
            "count": { "type": "integer" }, "failure_limit": { "type": "integer", "default": 0 }, "consecutive_error_limit": { "type": "integer", "default": 4 },
            "inconclusive_limit": { "type": "integer" }, "min_requests": { "type": "integer", "default": 100 },
            "skip": { "$ref": "#/$defs/duration", "description": "The beginning of a hold that isn't counted: a warm-up." },
            "missing": { "enum": ["remove", "replace"], "default": "remove", "description": "Of judge mann-whitney: a window without a value is left out, or a zero." },
            "critical": { "type": "boolean", "default": false },
            "groups": { "type": "object", "additionalProperties": number(), "description": "Of judge mann-whitney: weights in percent." },
            "metrics": { "type": "array", "items": { "type": "object" }, "description": "Of judge mann-whitney: what is scored together." },
            "window": { "$ref": "#/$defs/duration", "default": "10s" }
        }
    });
    if let Some(known) = schema["properties"].as_object_mut() {
        known.extend(["fail", "group"].map(|name| (name.to_owned(), json!({ "type": "string" }))));
        known.extend(METRIC_NUMBERS.map(|(name, description)| {
            let number = json!({ "type": ["string", "number"], "description": description });
            (name.to_owned(), number)
        }));
    }
    schema
}

/// Keys of a metric that take a number or its text, with their descriptions.
const METRIC_NUMBERS: [(&str, &str); 7] = [
    (
        "pass",
        "Of judge expression: a condition, such as value >= 0.95 * stable. Of judge mann-whitney: a score, 95.",
    ),
    (
        "alpha",
        "How probable it may be that a good release is rolled back; 1%, split over all comparisons.",
    ),
    ("margin", "How many times stable's is still as good."),
    (
        "tolerance",
        "How many times stable's a hold that ends early must exclude.",
    ),
    (
        "increase",
        "Of judge mann-whitney: at least so many times stable's mean counts as more.",
    ),
    (
        "decrease",
        "Of judge mann-whitney: at most so many times stable's mean counts as less.",
    ),
    (
        "marginal",
        "Of judge mann-whitney: below this score it fails; 75.",
    ),
];

fn provider() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "oneOf": [
            { "const": "events", "description": "Events that are reported to /api/v1/services/{service}/metrics." },
            {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "prometheus": text("Its address."),
                    "datadog": text("Its site, such as datadoghq.eu."),
                    "web": text("An address that answers with JSON."),
                    "exec": text("A shell command that prints a number or JSON."),
                    "query": text("A template: {{release}}, {{stable}}, {{service}}, {{environment}}, {{window}}."),
                    "headers": { "$ref": "#/$defs/env" },
                    "method": text("GET"), "body": text("Sent along."),
                    "path": text("Where in the answer the number is: data.items[0].value."),
                    "api_key": text("A secret: $NAME."), "app_key": text("A secret: $NAME."),
                    "timeout": { "$ref": "#/$defs/duration", "default": "5s" },
                    "window": { "$ref": "#/$defs/duration", "default": "1m" }
                }
            }
        ]
    })
}

fn environment() -> Value {
    let (watch, unready_grace) = super::guard::schemas();
    let (target, router) = super::targets::schemas();
    json!({
        "type": ["object", "null"], "additionalProperties": false,
        "properties": {
            "instances": { "type": "integer", "minimum": 1, "default": 1 },
            "strategy": {
                "oneOf": [
                    { "enum": Strategy::WORDS },
                    { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": Strategy::schemas() }
                ]
            },
            "hosts": { "$ref": "#/$defs/texts", "description": "Hosts that lead to it. Without hosts, path and port: SERVICE.localhost for production, SERVICE-ENVIRONMENT.localhost for every other environment." },
            "path": { "type": "string", "pattern": "^/", "description": "The path that leads to it: below its hosts, or below any host." },
            "strip_prefix": { "type": "boolean", "default": true, "description": "Take `path` off before an instance gets the request." },
            "port": { "type": "integer", "minimum": 1, "maximum": 65535, "description": "A port of its own on the proxy." },
            "sticky": { "oneOf": [{ "enum": ["cookie", "address", "none"] }, { "type": "object", "additionalProperties": false, "properties": { "cookie": { "type": "string" }, "header": { "type": "string" } } }] },
            "approvals": { "type": "object", "additionalProperties": false, "properties": { "count": { "type": "integer", "minimum": 1, "default": 1 }, "from": { "$ref": "#/$defs/texts" } } },
            "smoke": { "type": "array", "items": { "$ref": "#/$defs/smoke" } },
            "tests": { "type": "string", "description": "A workflow that tests the environment; green before the release goes on." },
            "analysis": { "oneOf": [{ "const": "none" }, { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/metric" } }], "description": "What is judged. Left out: error-rate and slow-rate compared with stable, restarts and availability. none: nothing is judged." },
            "env": { "$ref": "#/$defs/env" },
            "when_busy": { "enum": ["supersede", "queue", "refuse"], "default": "supersede" },
            "rollback_window": { "type": "object", "minProperties": 1, "additionalProperties": false, "description": "How far a rollback skips steps and analysis: to the last releases, or to those that served lately.", "properties": { "releases": { "type": "integer", "minimum": 1, "maximum": 10 }, "within": { "$ref": "#/$defs/duration" } } },
            "promote_with": { "$ref": "#/$defs/texts", "description": "Other services whose rollouts into this environment are promoted together with this one's, or go back together." },
            "notify": { "type": "array", "items": { "type": "object", "additionalProperties": false, "properties": { "slack": { "type": "string" }, "webhook": { "type": "string" } } } },
            "progress_deadline": { "$ref": "#/$defs/duration", "default": "10m" },
            "drain": { "$ref": "#/$defs/duration", "default": "30s" },
            "watch": watch,
            "unready_grace": unready_grace,
            "response_timeout": { "$ref": "#/$defs/duration", "default": "60s", "description": "To the first byte of an answer; then the client gets 504, an error of the release." },
            "hold_timeout": { "$ref": "#/$defs/duration", "default": "15s", "description": "How long a request is held while no instance is ready; then the client gets 503." },
            "answer_within": { "$ref": "#/$defs/duration", "default": "10s", "description": "A request that waits longer for its answer is a failure for error-rate. Raise it for long polling." },
            "target": target,
            "router": router
        }
    })
}
