//! The JSON Schema of `shipway.yaml`, for editors. A test holds it to the keys that are read. `x-default` describes a default that is
//! not a value, for docs/configuration.md: editors insert a `default`.

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
            "branch": { "type": "string", "default": "main", "description": "Commits on this branch are released when their runs succeed." },
            "repository": { "type": "string", "x-default": "the server's --repository, or shipway/SERVICE", "description": "The repository on a forge that the commits come from, as OWNER/NAME or URL: github.repository of the runs." },
            "workflow": { "$ref": "#/$defs/texts", "x-default": "all in .github/workflows", "description": "The workflows that a push can start." },
            "artifact": {
                "x-default": "the only artifact of the run",
                "description": "What a release is made of: an artifact of the run, by the name given to actions/upload-artifact, or `{ source: . }`, the files of the commit in the folder of this file.",
                "oneOf": [
                    { "type": "string" },
                    { "type": "object", "additionalProperties": false, "properties": { "source": { "const": ".", "description": "The files of the commit in the folder of this file." }, "image": { "type": "string" } } }
                ]
            },
            "run": {
                "type": "object", "required": ["command"], "additionalProperties": false,
                "description": "How to start an instance.",
                "properties": {
                    "command": { "type": "string", "description": "A shell command; $PORT is the port to listen on." },
                    "env": { "$ref": "#/$defs/env", "description": "Environment variables of the instances; `$NAME` is a secret (`shipway secret set NAME`)." },
                    "health": { "$ref": "#/$defs/health", "description": "Health checks of the instances; without it an instance is ready when its port accepts connections." },
                    "limits": limits(),
                    "grace": { "$ref": "#/$defs/duration", "default": "10s", "description": "Time from the stop signal to SIGKILL." },
                    "stop_signal": { "enum": StopSignal::ALL.map(StopSignal::name), "default": "SIGTERM", "description": "Signal to stop an instance gracefully; sent once, only to the main process." }
                }
            },
            "paths": { "$ref": "#/$defs/texts", "x-default": "none; at the root all paths", "description": "Further paths of the repository whose changes release the service, besides its folder and the workflows that it names; with `!` paths that don't. Patterns as in `on.push.paths` of workflows: the last that matches decides." },
            "reports": reports(),
            "environments": { "type": "object", "minProperties": 1, "description": "The environments, in order of promotion.", "additionalProperties": { "$ref": "#/$defs/environment" } },
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
            "approval_rule": approval_rule(),
            "freeze_window": freeze_window(),
            "environment": environment()
        }
    })
}

fn reports() -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "description": "Test and coverage reports, and the required coverage.",
        "properties": {
            "junit": { "$ref": "#/$defs/texts", "default": "**/TEST-*.xml", "description": "Patterns of JUnit XML files." },
            "coverage": { "$ref": "#/$defs/texts", "x-default": "**/lcov.info, **/coverage.xml and similar", "description": "Patterns of Cobertura XML and LCOV files." },
            "minimum": { "type": ["string", "number"], "description": "Required line coverage of runs that report coverage, such as 80%." }
        }
    })
}

fn limits() -> Value {
    json!({ "type": "object", "additionalProperties": false, "x-default": "no limits", "description": "Limits of each instance (needs cgroups).", "properties": {
                        "memory": { "type": ["string", "integer"], "description": "Memory, including child processes." },
                        "cpu": { "type": ["string", "number"], "description": "CPU time in cores." },
                        "processes": { "type": "integer", "minimum": 1, "description": "Number of processes and threads." }
                    } })
}

fn health() -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "http": { "type": "string", "description": "Path to request; 2xx and 3xx count as healthy." },
            "tcp": { "type": "boolean", "description": "Healthy when the port accepts connections." },
            "exec": { "type": "string", "description": "Shell command; exit code 0 counts as healthy." },
            "status": { "type": "integer", "x-default": "2xx and 3xx", "description": "The only status that counts as healthy." },
            "headers": { "$ref": "#/$defs/env", "description": "Headers of the `http` request. Default `host`: the first of the environment's `hosts`, else the instance's own address." },
            "liveness": { "type": "object", "additionalProperties": false, "x-default": "no liveness probe", "description": "A second probe that decides restarts: an instance that fails it is restarted.", "properties": {
                "http": { "type": "string", "description": "Path to request." },
                "tcp": { "type": "boolean", "description": "Healthy when the port accepts connections." },
                "exec": { "type": "string", "description": "Shell command; exit code 0 counts as healthy." },
                "status": { "type": "integer", "x-default": "2xx and 3xx", "description": "The only status that counts as healthy." },
                "headers": { "$ref": "#/$defs/env", "x-default": "those of the readiness probe", "description": "Headers of the `http` request." }
            } },
            "interval": { "$ref": "#/$defs/duration", "default": "2s", "description": "Time between probes." },
            "timeout": { "$ref": "#/$defs/duration", "default": "1s", "description": "Timeout of a probe." },
            "healthy_after": { "type": "integer", "default": 1, "description": "Consecutive successful probes until an instance is ready." },
            "unhealthy_after": { "type": "integer", "default": 3, "description": "Consecutive failed probes until an instance is not ready, or is restarted." },
            "start_period": { "$ref": "#/$defs/duration", "default": "30s", "description": "Failed liveness probes are ignored for this long after the start, or until the first success." }
        }
    })
}

fn smoke() -> Value {
    let path = |method: &str| json!({ "type": "string", "pattern": "^/", "description": format!("Path of a {method} request.") });
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "x-default": "the request or the command", "description": "Name of the test in messages." },
            "method": { "type": "string", "default": "GET", "description": "Method of the request to `path`." },
            "path": { "type": "string", "pattern": "^/", "description": "Path of the request." },
            "get": path("GET"), "post": path("POST"), "put": path("PUT"), "patch": path("PATCH"), "delete": path("DELETE"), "head": path("HEAD"), "options": path("OPTIONS"),
            "headers": { "$ref": "#/$defs/env", "description": "Headers of the request." },
            "body": { "description": "Body of the request; a mapping or a list is sent as JSON." },
            "retries": { "type": "integer", "default": 0, "description": "How often a failed test is repeated." },
            "exec": { "type": "string", "description": "Shell command, with URL in its environment." },
            "expect": {
                "type": "object", "additionalProperties": false, "description": "What the response must be.",
                "properties": {
                    "status": { "type": "integer", "x-default": "below 400", "description": "Expected status." },
                    "headers": { "$ref": "#/$defs/env", "description": "Expected headers." },
                    "json": { "description": "Expected values by path in the JSON response." },
                    "body": { "description": "A string that the body must contain, or { contains, matches }." },
                    "within": { "$ref": "#/$defs/duration", "description": "Maximum response time." }
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
            "metric": { "type": "string", "description": "The metric: a built-in one, or a name of your own with a `provider`.", "examples": shipway_analysis::Metric::names() },
            "provider": { "$ref": "#/$defs/provider", "description": "Source of the values of a metric of your own." },
            "over": { "x-default": "auto in the default rules", "oneOf": [{ "const": "auto" }, { "$ref": "#/$defs/duration" }], "description": "For slow-rate: responses that take longer count as slow; auto: stable's p99 of the last hour, at least 50ms, or 1s if stable had too few requests." },
            "required": { "type": "boolean", "default": false, "description": "Whether too little traffic for this rule pauses the rollout at the end of a hold." },
            "judge": { "enum": ["sequential", "threshold", "mann-whitney", "expression"], "x-default": "by the other keys: `max` or `min` is threshold, `pass` or `fail` expression, otherwise sequential", "description": "How the metric is judged." },
            "max": { "type": ["string", "number"], "description": "Upper limit, in the unit of the metric." },
            "min": { "type": ["string", "number"], "description": "Lower limit, in the unit of the metric." },
            "worse_than": { "enum": ["stable"], "description": "Compare with stable by the sequential judge, which decides as early as the evidence allows. With a limit of restarts or availability: no failure while stable is about as bad." },
            "max_without_stable": { "type": ["string", "number"], "description": "For error-rate and slow-rate with worse_than: the limit while there is no stable release to compare with." },
            "direction": { "enum": ["increase", "decrease", "either"], "x-default": "increase; either with judge mann-whitney", "description": "Which direction is worse; either: only with judge mann-whitney." },
            "abandoned": { "enum": ["count", "ignore"], "default": "count", "description": "For error-rate: whether requests that the client aborts, or that wait longer than answer_within, count as failures." },
            "unit": { "enum": ["users", "requests"], "default": "users", "description": "For error-rate and slow-rate with worse_than: count each affected user once (needs `sticky`), or count every request." },
            "interval": { "$ref": "#/$defs/duration", "default": "5s", "description": "Time between measurements." },
            "count": { "type": "integer", "x-default": "unlimited", "description": "Number of measurements." },
            "failure_limit": { "type": "integer", "default": 0, "description": "The rule fails with more failed measurements than this." },
            "consecutive_error_limit": { "type": "integer", "default": 4, "description": "The rule is inconclusive with more consecutive measurements without a value than this." },
            "inconclusive_limit": { "type": "integer", "x-default": "unlimited", "description": "The rule is inconclusive with more inconclusive measurements than this." },
            "min_requests": { "type": "integer", "default": 100, "description": "Requests of the new release that the rule needs to pass." },
            "skip": { "$ref": "#/$defs/duration", "description": "Warm-up: this long at the beginning of a hold isn't counted." },
            "missing": { "enum": ["remove", "replace"], "default": "remove", "description": "For judge mann-whitney: a window without a value is left out, or a zero." },
            "critical": { "type": "boolean", "default": false, "description": "For judge mann-whitney: the score is 0 if this metric fails." },
            "groups": { "type": "object", "additionalProperties": number(), "description": "For judge mann-whitney: weights in percent." },
            "metrics": { "type": "array", "items": { "type": "object" }, "description": "For judge mann-whitney: what is scored together." },
            "window": { "$ref": "#/$defs/duration", "default": "10s", "description": "For judge mann-whitney: length of a window; one value per window is compared." },
            "fail": { "type": "string", "description": "For judge expression: the condition under which the metric fails, such as value < 0.8 * stable." },
            "group": { "type": "string", "description": "For judge mann-whitney: group of the metric, for `groups`." }
        }
    });
    if let Some(known) = schema["properties"].as_object_mut() {
        known.extend(METRIC_NUMBERS.map(|(name, default, description)| {
            let number = json!({ "type": ["string", "number"], "x-default": default, "description": description });
            (name.to_owned(), number)
        }));
    }
    schema
}

/// Keys of a metric that take a number or its text, with their defaults and descriptions.
const METRIC_NUMBERS: [(&str, &str, &str); 7] = [
    (
        "pass",
        "95 with judge mann-whitney",
        "For judge expression: the condition under which the metric passes, such as value >= 0.95 * stable. For judge mann-whitney: the score, from 0 to 100, from which it passes.",
    ),
    (
        "alpha",
        "1%, split over all comparisons",
        "Accepted probability of rolling back a good release.",
    ),
    (
        "margin",
        "1; 1.1 for cpu, memory and saturation",
        "Factor over stable that still counts as equally good.",
    ),
    (
        "tolerance",
        "2; 1.5 for latencies and values",
        "A hold ends early only when a factor of this size over stable is excluded.",
    ),
    (
        "increase",
        "1",
        "For judge mann-whitney: from this factor of stable's mean on a value counts as higher.",
    ),
    (
        "decrease",
        "1",
        "For judge mann-whitney: up to this factor of stable's mean a value counts as lower.",
    ),
    (
        "marginal",
        "75",
        "For judge mann-whitney: the score, from 0 to 100, below which it fails.",
    ),
];

fn provider() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "oneOf": [
            { "const": "events", "description": "Business events reported to /api/v1/services/{service}/metrics." },
            {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "prometheus": text("URL of the Prometheus server."),
                    "datadog": text("Datadog site, such as datadoghq.eu."),
                    "web": text("URL that returns JSON."),
                    "exec": text("A shell command that prints a number or JSON."),
                    "query": text("The query. Placeholders: {{release}}, {{stable}}, {{service}}, {{environment}}, {{window}}."),
                    "headers": { "$ref": "#/$defs/env", "description": "Headers of the request; `$NAME` is a secret (`shipway secret set NAME`)." },
                    "method": { "type": "string", "default": "GET", "description": "Method of the request to `web`." },
                    "body": text("Body of the request to `web`."),
                    "path": text("Path of the number in the response, such as data.items[0].value."),
                    "api_key": text("API key of Datadog, as a secret: $NAME."), "app_key": text("Application key of Datadog, as a secret: $NAME."),
                    "timeout": { "$ref": "#/$defs/duration", "default": "5s", "description": "Timeout of a query." },
                    "window": { "$ref": "#/$defs/duration", "default": "1m", "description": "Value of {{window}}." }
                }
            }
        ]
    })
}

/// One window of `freeze`.
fn freeze_window() -> Value {
    json!({ "type": "object", "required": ["for"], "oneOf": [{ "required": ["cron"] }, { "required": ["rrule"] }], "additionalProperties": false, "properties": {
        "cron": { "type": "string", "description": "When the window starts: five fields of cron." },
        "rrule": { "type": "string", "maxLength": 500, "description": "When the window starts, as a recurrence rule of iCalendar (RFC 5545): `FREQ=MONTHLY;BYDAY=-1FR`." },
        "start": { "type": "string", "x-default": "midnight of each day of `rrule`", "description": "The first start of `rrule` by the wall clock: `2026-01-02T17:00`. It has the time of day, and intervals are counted from it." },
        "for": { "$ref": "#/$defs/duration", "description": "How long it lasts by the wall clock of its zone, from 1 minute to 366 days." },
        "zone": { "type": "string", "default": "UTC", "description": "A time zone of the IANA database." },
        "reason": { "type": "string", "maxLength": 500, "description": "Shown while it is in force." }
    } })
}

/// One rule of `approvals`.
fn approval_rule() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {
        "count": { "type": "integer", "minimum": 1, "maximum": 100, "default": 1, "description": "Number of different people." },
        "from": { "$ref": "#/$defs/texts", "x-default": "anyone", "description": "Who may approve: names, groups as `\"@platform\"`. Each person counts once, and in one rule only." },
        "not": { "oneOf": [{ "enum": ["author", "committer", "triggerer"] }, { "type": "array", "items": { "enum": ["author", "committer", "triggerer"] } }], "x-default": "none", "description": "Whose approval does not count: the author or the committer of the commit, or the person whose push or deploy started it. They may still reject." },
        "expires": { "$ref": "#/$defs/duration", "default": "30d", "description": "What is not approved within this time is rejected; the shortest of all rules counts." }
    } })
}

fn environment() -> Value {
    let (watch, unready_grace) = super::guard::schemas();
    let (target, router) = super::targets::schemas();
    json!({
        "type": ["object", "null"], "additionalProperties": false,
        "properties": {
            "instances": { "type": "integer", "minimum": 1, "default": 1, "description": "Number of instances." },
            "strategy": {
                "default": "rolling", "description": "How a release replaces the stable one: one word, or one word with its parameters.",
                "oneOf": [
                    { "enum": Strategy::WORDS },
                    { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": Strategy::schemas() }
                ]
            },
            "hosts": { "$ref": "#/$defs/texts", "x-default": "without `path` and `port`: SERVICE.localhost for production, SERVICE-ENVIRONMENT.localhost for other environments", "description": "Hosts of the environment." },
            "path": { "type": "string", "pattern": "^/", "description": "Path prefix of the environment, on its hosts or on any host." },
            "strip_prefix": { "type": "boolean", "default": true, "description": "Remove `path` before the request is forwarded to an instance." },
            "port": { "type": "integer", "minimum": 1, "maximum": 65535, "description": "A dedicated port on the proxy." },
            "sticky": {
                "default": "cookie", "description": "How users are identified, so that each stays on one release during a rollout: by a cookie of the proxy, their address, or not at all.",
                "oneOf": [{ "enum": ["cookie", "address", "none"] }, { "type": "object", "additionalProperties": false, "properties": {
                    "cookie": { "type": "string", "default": "shipway", "description": "Name of the cookie; the proxy sets it if it is missing." },
                    "header": { "type": "string", "description": "Name of a request header that identifies the user." },
                    "to": { "enum": ["release", "instance"], "default": "release", "description": "What a user stays on; instance: also on one instance of the release, for apps that keep sessions in memory. The proxy sets a second cookie, NAME-instance; with `header` the hash of its value decides." }
                } }]
            },
            "approvals": { "oneOf": [{ "type": "integer", "minimum": 1, "maximum": 100 }, { "$ref": "#/$defs/approval_rule" }, { "type": "array", "minItems": 1, "maxItems": 50, "items": { "$ref": "#/$defs/approval_rule" } }], "x-default": "no approval", "description": "Approvals that a rollout or a job needs before it goes to the environment: a number, a rule or a list of rules that must all hold." },
            "wait": { "$ref": "#/$defs/duration", "x-default": "no wait", "description": "Time between the order of a rollout and its first action; it continues by itself." },
            "branches": { "$ref": "#/$defs/texts", "x-default": "all", "description": "Patterns of the branches whose releases and jobs may go to the environment; the last that matches decides." },
            "freeze": { "type": "array", "minItems": 1, "maxItems": 20, "items": { "$ref": "#/$defs/freeze_window" }, "x-default": "never", "description": "Windows of time in which no rollout starts. A rollback is always allowed." },
            "break_glass": { "$ref": "#/$defs/texts", "x-default": "no one", "description": "People and groups that may open all gates of a rollout in an emergency: `shipway break-glass`." },
            "smoke": { "type": "array", "items": { "$ref": "#/$defs/smoke" }, "description": "Smoke tests of new instances before they get traffic." },
            "tests": { "type": "string", "description": "A workflow that tests the environment; it must succeed before the release is promoted to the next one." },
            "analysis": { "oneOf": [{ "const": "none" }, { "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/metric" } }], "x-default": "error-rate and slow-rate compared with stable, restarts and availability", "description": "The rules of the analysis; none: no analysis." },
            "env": { "$ref": "#/$defs/env", "description": "Environment variables of the instances in this environment, in addition to `run.env`." },
            "when_busy": { "enum": ["supersede", "queue", "refuse"], "default": "supersede", "description": "What happens to a new release while a rollout is in progress: it supersedes the rollout, is queued, or is refused." },
            "rollback_window": { "type": "object", "minProperties": 1, "additionalProperties": false, "description": "Which releases a rollback deploys without steps and analysis: the last ones, or those that were stable recently.", "x-default": "all that are remembered", "properties": {
                "releases": { "type": "integer", "minimum": 1, "maximum": 10, "description": "The last releases that were stable." },
                "within": { "$ref": "#/$defs/duration", "description": "Releases that were stable within this time." }
            } },
            "promote_with": { "$ref": "#/$defs/texts", "description": "Other services whose rollouts in this environment are promoted or rolled back together with this one's." },
            "notify": { "type": "array", "description": "Receivers of notifications.", "items": { "type": "object", "additionalProperties": false, "properties": {
                "slack": { "type": "string", "description": "URL of a Slack webhook, usually a secret: $NAME." },
                "webhook": { "type": "string", "description": "URL that gets notifications as JSON." }
            } } },
            "progress_deadline": { "$ref": "#/$defs/duration", "default": "10m", "description": "A rollout that makes no progress for this long fails." },
            "drain": { "$ref": "#/$defs/duration", "default": "30s", "description": "How long open requests may take to finish before instances are stopped." },
            "watch": watch,
            "unready_grace": unready_grace,
            "response_timeout": { "$ref": "#/$defs/duration", "default": "60s", "description": "Time to the first byte of a response; then the client gets 504, which counts as an error of the release." },
            "hold_timeout": { "$ref": "#/$defs/duration", "default": "15s", "description": "How long a request is held while no instance is ready; then the client gets 503." },
            "answer_within": { "$ref": "#/$defs/duration", "default": "10s", "description": "A request that waits longer for its response counts as a failure for error-rate. Raise it for long polling." },
            "target": target,
            "router": router
        }
    })
}
