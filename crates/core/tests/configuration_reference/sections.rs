//! The sections of docs/configuration.md, with an example for each key.

/// A mapping of the file: where it is in the schema, how an example of it becomes a whole file, and an example for each key.
pub struct Section {
    pub title: &'static str,
    pub intro: &'static str,
    pub pointer: &'static str,
    /// The file around an example, which replaces `@`.
    pub around: &'static str,
    pub examples: &'static [(&'static str, &'static str)],
}

const IN_ENVIRONMENT: &str =
    "service: shop\nrun: { command: ./shop }\nenvironments: { production: @ }";
const IN_RULE: &str = "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: canary, analysis: [@] } }";

pub const SECTIONS: &[Section] = &[
    Section {
        title: "The file",
        intro: "`shipway.yaml` is at the root of a repository, or in the folders of `services/` ([several services](repositories.md)). `service`, `run` and `environments` are required.",
        pointer: "",
        around: "@",
        examples: &[
            ("service", "service: shop"),
            ("repository", "repository: acme/shop"),
            ("branch", "branch: main"),
            ("workflow", "workflow: .github/workflows/cd.yml"),
            ("artifact", "artifact: shop"),
            ("run", "run: { command: ./shop --port $PORT }"),
            ("reports", "reports: { minimum: 80% }"),
            ("paths", "paths: [libs/**, '!**/*.md']"),
            (
                "environments",
                "environments: { staging: {}, production: { instances: 3 } }",
            ),
            ("target", "target: process"),
            ("router", "router: proxy"),
        ],
    },
    Section {
        title: "`artifact`",
        intro: "A name, or a mapping:",
        pointer: "/properties/artifact/oneOf/1",
        around: "service: shop\nartifact: @\nrun: { command: ./shop }\nenvironments: { production: {} }",
        examples: &[("source", "{ source: . }")],
    },
    Section {
        title: "`run`",
        intro: "",
        pointer: "/properties/run",
        around: "service: shop\nrun: @\nenvironments: { production: {} }",
        examples: &[
            ("command", "{ command: ./shop --port $PORT }"),
            (
                "env",
                "{ command: ./shop, env: { LOG_LEVEL: info, API_KEY: $API_KEY } }",
            ),
            ("health", "{ command: ./shop, health: { http: /health } }"),
            ("limits", "{ command: ./shop, limits: { memory: 512MiB } }"),
            ("grace", "{ command: ./shop, grace: 30s }"),
            ("stop_signal", "{ command: ./shop, stop_signal: SIGQUIT }"),
        ],
    },
    Section {
        title: "`run.health`",
        intro: "One of `http`, `tcp` and `exec`. The probe decides which instances get traffic.",
        pointer: "/$defs/health",
        around: "service: shop\nrun: { command: ./shop, health: @ }\nenvironments: { production: {} }",
        examples: &[
            ("http", "{ http: /health/ready }"),
            ("tcp", "{ tcp: true }"),
            ("exec", "{ exec: ./healthy.sh }"),
            ("status", "{ http: /health, status: 204 }"),
            (
                "headers",
                "{ http: /health, headers: { x-probe: shipway } }",
            ),
            (
                "liveness",
                "{ http: /health/ready, liveness: { http: /health/live } }",
            ),
            ("interval", "{ http: /health, interval: 5s }"),
            ("timeout", "{ http: /health, timeout: 2s }"),
            ("healthy_after", "{ http: /health, healthy_after: 2 }"),
            ("unhealthy_after", "{ http: /health, unhealthy_after: 5 }"),
            ("start_period", "{ http: /health, start_period: 60s }"),
        ],
    },
    Section {
        title: "`run.health.liveness`",
        intro: "",
        pointer: "/$defs/health/properties/liveness",
        around: "service: shop\nrun: { command: ./shop, health: { tcp: true, liveness: @ } }\nenvironments: { production: {} }",
        examples: &[
            ("http", "{ http: /health/live }"),
            ("tcp", "{ tcp: true }"),
            ("exec", "{ exec: ./alive.sh }"),
            ("status", "{ http: /health/live, status: 200 }"),
            (
                "headers",
                "{ http: /health/live, headers: { x-probe: shipway } }",
            ),
        ],
    },
    Section {
        title: "`run.limits`",
        intro: "",
        pointer: "/properties/run/properties/limits",
        around: "service: shop\nrun: { command: ./shop, limits: @ }\nenvironments: { production: {} }",
        examples: &[
            ("memory", "{ memory: 512MiB }"),
            ("cpu", "{ cpu: 1.5 }"),
            ("processes", "{ processes: 200 }"),
        ],
    },
    Section {
        title: "`reports`",
        intro: "",
        pointer: "/properties/reports",
        around: "service: shop\nrun: { command: ./shop }\nreports: @\nenvironments: { production: {} }",
        examples: &[
            ("junit", "{ junit: build/test-results/*.xml }"),
            ("coverage", "{ coverage: [coverage/lcov.info] }"),
            ("minimum", "{ minimum: 80% }"),
        ],
    },
    Section {
        title: "`environments.NAME`",
        intro: "Environments are listed in order of promotion. [rollouts.md](rollouts.md) explains how these keys work together.",
        pointer: "/$defs/environment",
        around: IN_ENVIRONMENT,
        examples: &[
            ("instances", "{ instances: 3 }"),
            (
                "strategy",
                "{ strategy: { canary: { steps: [{ weight: 10%, hold: 5m }] } } }",
            ),
            (
                "hosts",
                "{ hosts: [shop.example.com, \"*.shop.example.com\"] }",
            ),
            ("path", "{ path: /shop }"),
            ("strip_prefix", "{ path: /shop, strip_prefix: false }"),
            ("port", "{ port: 9000 }"),
            ("sticky", "{ sticky: address }"),
            ("approvals", "{ approvals: 1 }"),
            ("wait", "{ wait: 30m }"),
            ("branches", "{ branches: [main, \"release/*\"] }"),
            (
                "freeze",
                "{ freeze: [{ cron: \"0 17 * * FRI\", for: 64h, zone: Europe/Berlin, reason: weekend }] }",
            ),
            ("break_glass", "{ break_glass: [alice, \"@oncall\"] }"),
            ("smoke", "{ smoke: [{ get: /, expect: { status: 200 } }] }"),
            ("tests", "{ tests: .github/workflows/e2e.yml }"),
            (
                "analysis",
                "{ analysis: [{ metric: error-rate, max: 5% }] }",
            ),
            ("env", "{ env: { LOG_LEVEL: debug } }"),
            ("when_busy", "{ when_busy: queue }"),
            ("rollback_window", "{ rollback_window: { releases: 3 } }"),
            ("promote_with", "{ promote_with: [cart] }"),
            ("notify", "{ notify: [{ slack: $SLACK_WEBHOOK }] }"),
            ("progress_deadline", "{ progress_deadline: 20m }"),
            ("drain", "{ drain: 60s }"),
            ("watch", "{ watch: 2h }"),
            ("unready_grace", "{ unready_grace: 10s }"),
            ("response_timeout", "{ response_timeout: 120s }"),
            ("hold_timeout", "{ hold_timeout: 5s }"),
            ("answer_within", "{ answer_within: 30s }"),
            ("target", "{ target: { process: { router: proxy } } }"),
            ("router", "{ router: proxy }"),
        ],
    },
    Section {
        title: "`strategy: rolling`",
        intro: "`strategy` is `recreate`, `rolling`, `blue-green` or `canary`, alone or with these parameters; `recreate` has none.",
        pointer: "/$defs/environment/properties/strategy/oneOf/1/properties/rolling",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: { rolling: @ } } }",
        examples: &[
            ("max_surge", "{ max_surge: 1 }"),
            ("max_unavailable", "{ max_unavailable: 25% }"),
            ("hold", "{ hold: 1m }"),
            ("min_hold", "{ hold: 1m, min_hold: 20s }"),
            ("on_inconclusive", "{ hold: 1m, on_inconclusive: rollback }"),
        ],
    },
    Section {
        title: "`strategy: blue-green`",
        intro: "",
        pointer: "/$defs/environment/properties/strategy/oneOf/1/properties/blue-green",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: { blue-green: @ } } }",
        examples: &[
            ("bake", "{ bake: 10m }"),
            ("keep", "{ keep: 2h }"),
            ("min_hold", "{ bake: 10m, min_hold: 20s }"),
            ("on_inconclusive", "{ bake: 10m, on_inconclusive: promote }"),
        ],
    },
    Section {
        title: "`strategy: canary`",
        intro: "",
        pointer: "/$defs/environment/properties/strategy/oneOf/1/properties/canary",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: { canary: @ } } }",
        examples: &[
            (
                "steps",
                "{ steps: [{ weight: 1%, hold: 2m }, { weight: 25%, hold: 10m }] }",
            ),
            ("match", "{ match: { header: { x-canary: \"1\" } } }"),
            ("mirror", "{ mirror: 10% }"),
            (
                "baseline",
                "{ baseline: true, steps: [{ weight: 10%, hold: 10m }] }",
            ),
            ("min_hold", "{ min_hold: 30s }"),
            ("on_inconclusive", "{ on_inconclusive: rollback }"),
        ],
    },
    Section {
        title: "`canary.steps[]`",
        intro: "",
        pointer: "/$defs/environment/properties/strategy/oneOf/1/properties/canary/properties/steps/items",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: { canary: { steps: [@] } } } }",
        examples: &[
            ("weight", "{ weight: 10% }"),
            ("hold", "{ weight: 10%, hold: 5m }"),
            ("smoke", "{ weight: 50%, hold: 5m, smoke: true }"),
            ("ask", "{ weight: 50%, hold: 5m, ask: true }"),
            ("scale", "{ weight: 10%, hold: 5m, scale: 50% }"),
        ],
    },
    Section {
        title: "`canary.match`",
        intro: "A mapping, or a list of mappings of which one must match. A condition is a value, `{ prefix: … }`, `{ regex: … }` or `{ present: true }`.",
        pointer: "/$defs/environment/properties/strategy/oneOf/1/properties/canary/properties/match/oneOf/0",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: { canary: { match: @ } } } }",
        examples: &[
            ("header", "{ header: { x-user: { regex: \"[a-m].*\" } } }"),
            ("cookie", "{ cookie: { beta: { present: true } } }"),
        ],
    },
    Section {
        title: "`canary.mirror`",
        intro: "A percentage, or a mapping:",
        pointer: "/$defs/environment/properties/strategy/oneOf/1/properties/canary/properties/mirror/oneOf/1",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: { canary: { mirror: @ } } } }",
        examples: &[
            ("share", "{ share: 10% }"),
            ("methods", "{ share: 10%, methods: all }"),
        ],
    },
    Section {
        title: "`sticky`",
        intro: "`cookie`, `address`, `none`, or a mapping:",
        pointer: "/$defs/environment/properties/sticky/oneOf/1",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { sticky: @ } }",
        examples: &[
            ("cookie", "{ cookie: session }"),
            ("header", "{ header: x-user-id }"),
            ("to", "{ cookie: chat, to: instance }"),
        ],
    },
    Section {
        title: "`approvals`",
        intro: "",
        pointer: "/$defs/approval_rule",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { approvals: @ } }",
        examples: &[
            ("count", "{ count: 2 }"),
            ("from", "{ count: 1, from: [alice, \"@platform\"] }"),
            (
                "not",
                "[{ count: 2 }, { from: [\"@security\"], not: [author, triggerer] }]",
            ),
            ("expires", "{ expires: 7d }"),
        ],
    },
    Section {
        title: "`freeze`",
        intro: "A list of windows:",
        pointer: "/$defs/freeze_window",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { freeze: [@] } }",
        examples: &[
            ("cron", "{ cron: \"0 17 * * FRI\", for: 64h }"),
            ("rrule", "{ rrule: \"FREQ=WEEKLY;BYDAY=FR\", for: 1d }"),
            (
                "start",
                "{ rrule: \"FREQ=MONTHLY;BYDAY=-1FR\", start: \"2026-01-30T12:00\", for: 6h }",
            ),
            ("for", "{ cron: \"0 0 20 12 *\", for: 14d }"),
            (
                "zone",
                "{ cron: \"0 17 * * FRI\", for: 64h, zone: Europe/Berlin }",
            ),
            (
                "reason",
                "{ cron: \"0 17 * * FRI\", for: 64h, reason: weekend }",
            ),
        ],
    },
    Section {
        title: "`rollback_window`",
        intro: "",
        pointer: "/$defs/environment/properties/rollback_window",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { rollback_window: @ } }",
        examples: &[
            ("releases", "{ releases: 3 }"),
            ("within", "{ within: 24h }"),
        ],
    },
    Section {
        title: "`notify[]`",
        intro: "",
        pointer: "/$defs/environment/properties/notify/items",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { notify: [@] } }",
        examples: &[
            ("slack", "{ slack: $SLACK_WEBHOOK }"),
            ("webhook", "{ webhook: https://example.com/hook }"),
        ],
    },
    Section {
        title: "`smoke[]`",
        intro: "A request or a command.",
        pointer: "/$defs/smoke",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { smoke: [@] } }",
        examples: &[
            ("name", "{ name: home page, get: / }"),
            ("get", "{ get: / }"),
            ("post", "{ post: /orders, body: { item: 1 } }"),
            ("put", "{ put: /items/1, body: { name: tea } }"),
            ("patch", "{ patch: /items/1, body: { name: tea } }"),
            ("delete", "{ delete: /items/1 }"),
            ("head", "{ head: / }"),
            ("options", "{ options: / }"),
            ("method", "{ method: REPORT, path: /calendar }"),
            ("path", "{ path: /items }"),
            ("headers", "{ get: /, headers: { accept: text/html } }"),
            ("body", "{ post: /orders, body: { item: 1 } }"),
            ("retries", "{ get: /, retries: 2 }"),
            ("exec", "{ exec: ./scripts/smoke.sh $URL }"),
            ("expect", "{ get: /items, expect: { status: 200 } }"),
        ],
    },
    Section {
        title: "`smoke[].expect`",
        intro: "",
        pointer: "/$defs/smoke/properties/expect",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { smoke: [{ get: /items, expect: @ }] } }",
        examples: &[
            ("status", "{ status: 200 }"),
            ("headers", "{ headers: { content-type: application/json } }"),
            ("json", "{ json: { \"items[0].name\": tea } }"),
            ("body", "{ body: { contains: tea } }"),
            ("within", "{ within: 500ms }"),
        ],
    },
    Section {
        title: "`analysis[]`",
        intro: "Built-in metrics: `error-rate`, `slow-rate`, `latency-p50`, `latency-p90`, `latency-p99`, `requests`, `saturation`, `cpu`, `memory`, `restarts`, `availability`.",
        pointer: "/$defs/metric",
        around: IN_RULE,
        examples: &[
            ("metric", "{ metric: error-rate }"),
            ("worse_than", "{ metric: error-rate, worse_than: stable }"),
            ("max", "{ metric: latency-p99, max: 500ms }"),
            ("min", "{ metric: availability, min: 95% }"),
            (
                "over",
                "{ metric: slow-rate, over: 300ms, worse_than: stable }",
            ),
            (
                "max_without_stable",
                "{ metric: error-rate, worse_than: stable, max_without_stable: 5% }",
            ),
            (
                "unit",
                "{ metric: error-rate, worse_than: stable, unit: requests }",
            ),
            (
                "abandoned",
                "{ metric: error-rate, max: 5%, abandoned: ignore }",
            ),
            (
                "required",
                "{ metric: error-rate, max: 5%, required: true }",
            ),
            (
                "min_requests",
                "{ metric: error-rate, max: 5%, min_requests: 500 }",
            ),
            ("skip", "{ metric: latency-p99, max: 500ms, skip: 30s }"),
            ("interval", "{ metric: error-rate, max: 5%, interval: 10s }"),
            (
                "alpha",
                "{ metric: error-rate, worse_than: stable, alpha: 0.5% }",
            ),
            ("margin", "{ metric: cpu, worse_than: stable, margin: 1.2 }"),
            (
                "tolerance",
                "{ metric: error-rate, worse_than: stable, tolerance: 3 }",
            ),
            ("count", "{ metric: error-rate, max: 5%, count: 10 }"),
            (
                "failure_limit",
                "{ metric: error-rate, max: 5%, failure_limit: 2 }",
            ),
            (
                "inconclusive_limit",
                "{ metric: error-rate, max: 5%, inconclusive_limit: 5 }",
            ),
            (
                "consecutive_error_limit",
                "{ metric: error-rate, max: 5%, consecutive_error_limit: 10 }",
            ),
            ("judge", "{ metric: cpu, judge: mann-whitney }"),
            (
                "direction",
                "{ metric: orders, provider: events, worse_than: stable, direction: decrease }",
            ),
            (
                "provider",
                "{ metric: queue, provider: { prometheus: \"http://127.0.0.1:9090\", query: queue_length }, max: 100 }",
            ),
            (
                "pass",
                "{ metric: rate, judge: expression, provider: { exec: ./rate.sh }, pass: value >= 0.95 * stable }",
            ),
            (
                "fail",
                "{ metric: rate, judge: expression, provider: { exec: ./rate.sh }, fail: value < 0.8 * stable }",
            ),
            (
                "window",
                "{ metric: cpu, judge: mann-whitney, window: 30s }",
            ),
            (
                "increase",
                "{ metric: cpu, judge: mann-whitney, increase: 1.2 }",
            ),
            (
                "decrease",
                "{ metric: cpu, judge: mann-whitney, direction: decrease, decrease: 0.8 }",
            ),
            (
                "missing",
                "{ metric: cpu, judge: mann-whitney, missing: replace }",
            ),
            (
                "critical",
                "{ metric: cpu, judge: mann-whitney, critical: true }",
            ),
            (
                "marginal",
                "{ metric: cpu, judge: mann-whitney, pass: 90, marginal: 60 }",
            ),
            (
                "metrics",
                "{ judge: mann-whitney, metrics: [{ metric: cpu }, { metric: memory }] }",
            ),
            (
                "group",
                "{ judge: mann-whitney, metrics: [{ metric: cpu, group: load }, { metric: memory }] }",
            ),
            (
                "groups",
                "{ judge: mann-whitney, metrics: [{ metric: cpu, group: load }, { metric: memory }], groups: { load: 60 } }",
            ),
        ],
    },
    Section {
        title: "`provider`",
        intro: "`events` (business events reported to `/api/v1/services/SERVICE/metrics`), or a mapping with one of `prometheus`, `datadog`, `web` and `exec`:",
        pointer: "/$defs/provider/oneOf/1",
        around: "service: shop\nrun: { command: ./shop }\nenvironments: { production: { strategy: canary, analysis: [{ metric: load, max: 5, provider: @ }] } }",
        examples: &[
            (
                "prometheus",
                "{ prometheus: \"http://127.0.0.1:9090\", query: load }",
            ),
            (
                "datadog",
                "{ datadog: datadoghq.eu, query: \"avg:load{*}\", api_key: $DD_API, app_key: $DD_APP }",
            ),
            (
                "web",
                "{ web: \"https://kpi.example.com/{{release}}\", path: data.load }",
            ),
            ("exec", "{ exec: ./load.sh }"),
            (
                "query",
                "{ prometheus: \"http://127.0.0.1:9090\", query: \"load{release='{{release}}'}\" }",
            ),
            (
                "path",
                "{ web: \"https://kpi.example.com\", path: \"data.items[0].value\" }",
            ),
            (
                "method",
                "{ web: \"https://kpi.example.com\", method: POST, body: \"{}\", path: load }",
            ),
            (
                "body",
                "{ web: \"https://kpi.example.com\", method: POST, body: \"release={{release}}\", path: load }",
            ),
            (
                "headers",
                "{ web: \"https://kpi.example.com\", path: load, headers: { authorization: Bearer $KPI_TOKEN } }",
            ),
            (
                "api_key",
                "{ datadog: datadoghq.eu, query: \"avg:load{*}\", api_key: $DD_API, app_key: $DD_APP }",
            ),
            (
                "app_key",
                "{ datadog: datadoghq.eu, query: \"avg:load{*}\", api_key: $DD_API, app_key: $DD_APP }",
            ),
            ("timeout", "{ exec: ./load.sh, timeout: 10s }"),
            (
                "window",
                "{ prometheus: \"http://127.0.0.1:9090\", query: \"rate(load[{{window}}])\", window: 5m }",
            ),
        ],
    },
];
