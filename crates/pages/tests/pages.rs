//! Pages as HTML, from views written by hand.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shipway_api::{DeliveryMatrix, MatrixQuery};
use shipway_pages::{OverviewPage, RolloutPage, RunPage, ServicePage, ShownLog, refusal_page};

const COMMIT: &str = "2b4c9f0e1d3a5b7c9e0f1a2b3c4d5e6f70819203";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn view<T: DeserializeOwned>(document: Value) -> T {
    serde_json::from_value(document).unwrap()
}

/// The content of a page, a line for each element, without what all pages share.
fn content(html: &str) -> String {
    let start = html.find("<main").unwrap();
    let end = html.find("</main>").unwrap();
    html[start..end].replace("><", ">\n<")
}

fn release(number: u32, subject: &str) -> Value {
    let digest = format!("sha256:{}", "a".repeat(64));
    json!({
        "number": number,
        "commit": { "id": COMMIT, "subject": subject, "author": "Ann <ann@example.com>", "at": "2026-11-21T11:00:00Z" },
        "run": number, "artifact": digest, "created_at": "2026-11-21T11:30:00Z",
    })
}

fn rollout() -> Value {
    json!({
        "id": "shop/ro2", "environment": "production", "release": 2, "commit": "2b4c9f0", "subject": "<b>1.1</b> & more",
        "stable": 1, "kind": "deploy", "pace": "by_strategy", "change_failure": false, "strategy": "canary", "status": "holding", "direction": "forward",
        "by": "Ann <ann@example.com>", "why": "pushed", "plan": [
            { "text": "start #2", "progress": "done" }, { "text": "hold for 2 min", "progress": "now" }, { "text": "promote #2", "progress": "todo" },
        ],
        "split": [[1, 5_000], [2, 5_000]], "paused": null, "hold_until": "2026-11-21T12:02:00Z", "judgement": null, "seen": null,
        "smoke": null, "served": true, "notes": [{ "at": "2026-11-21T11:59:00Z", "by": "shipway", "text": "#2 serves 50%" }],
        "opened_at": "2026-11-21T11:58:00Z", "rollback_start": null, "rolled_back_at": null, "ended": null,
    })
}

fn environment() -> Value {
    json!({
        "service": "shop", "environment": "production", "url": "http://shop.localhost", "stable": release(1, "First"),
        "position": 0, "rollout": rollout(), "queue": [3], "split": [[1, 5_000], [2, 5_000]], "instances": [],
        "hold": { "by": "Ann <ann@example.com>", "since": "2026-11-21T11:50:00Z", "reason": "incident" },
        "traffic": [{ "release": 1, "name": "#1", "requests": 100, "errors": 1, "proxy_errors": 0, "abandoned": 0, "late": 0, "overdue": 0, "p50_ms": 1.5, "p99_ms": null }],
    })
}

fn run() -> Value {
    json!({
        "id": "shop/r12", "number": 12, "status": "failure", "conclusion": "failure", "commit": COMMIT, "subject": "Break it",
        "branch": "main", "event": "push", "workflow": ".github/workflows/ci.yml", "name": "ci", "title": "Break it",
        "created_at": "2026-11-21T11:00:00Z", "started_at": "2026-11-21T11:00:01Z", "finished_at": "2026-11-21T11:01:00Z",
        "jobs": [{
            "key": "test", "name": "test", "status": "failure", "why": "step `make` failed", "needs": [],
            "started_at": "2026-11-21T11:00:01Z", "finished_at": "2026-11-21T11:01:00Z",
            "steps": [{ "name": "make <all>", "status": "failure", "took_ms": 12_345 }, { "name": "upload", "status": "skipped", "took_ms": 0 }],
            "annotations": [{ "level": "error", "message": "no <rule>", "file": "Makefile", "line": 3 }],
            "environment": "staging", "environment_url": "javascript:alert(1)",
            "earlier": [], "summary": "# Tests\n3 of **4** pass",
        }],
        "artifacts": [], "by": "Ann <ann@example.com>", "why": "test failed", "attempt": 2,
    })
}

fn overview(services: Value) -> OverviewPage {
    OverviewPage {
        matrix: view(json!({
            "columns": ["staging", "production"],
            "counts": [{ "state": "red", "environments": 1 }, { "state": "healthy", "environments": 1 }],
            "services": services,
        })),
        query: MatrixQuery::default(),
        page: 1,
        revision: 7,
        server_url: "http://127.0.0.1:7878".to_owned(),
        now: now(),
    }
}

/// A service with one healthy environment and one where a rollout was taken back, another is on its way and a person holds it.
fn matrix_service(name: &str) -> Value {
    json!({
        "service": name,
        "last_run": { "id": format!("{name}/r12"), "status": "failure", "workflow": "ci.yml", "at": "2026-11-21T11:01:00Z" },
        "environments": [
            { "environment": "staging", "states": ["healthy"], "release": { "number": 4, "commit": COMMIT, "subject": "Fourth" },
              "serves_since": "2026-11-21T11:50:00Z", "health": "healthy" },
            { "environment": "production", "states": ["red", "held", "moving"],
              "release": { "number": 3, "commit": COMMIT, "subject": "<script>alert(1)</script>" },
              "serves_since": "2026-11-18T12:00:00Z", "health": "degraded", "problem": "1 of 3 instances of #3 ready",
              "rollout": { "id": format!("{name}/ro8"), "kind": "deploy", "status": "holding", "release": 5, "weight": 1_000, "by": "Ann <ann@example.com>" },
              "last_rollout": { "number": 7, "release": 4, "outcome": "rolled_back", "why": "5% of the requests failed", "at": "2026-11-21T11:30:00Z" },
              "hold": { "by": "Ann \u{202e}<b>", "since": "2026-11-21T11:50:00Z", "reason": "incident" }, "queue": [6] },
        ],
    })
}

#[test]
fn an_overview_without_services_says_how_to_begin() {
    let mut page = overview(json!([]));
    page.matrix = DeliveryMatrix::default();
    insta::assert_snapshot!(content(&page.to_html()));
}

#[test]
fn the_overview_answers_what_serves_since_when_and_whether_it_is_well() {
    insta::assert_snapshot!(content(
        &overview(json!([matrix_service("shop")])).to_html()
    ));
}

#[test]
fn a_filter_without_a_match_says_so_and_leads_back() {
    let mut page = overview(json!([]));
    page.query.q = Some("<x> & \"y\"".to_owned());
    let html = page.to_html();
    for words in [
        "No service matches “&lt;x&gt; &amp; &quot;y&quot;”",
        "href=\"/\">Show all services",
        "value=\"&lt;x&gt; &amp; &quot;y&quot;\"",
        "href=\"/?q=%3Cx%3E%20%26%20%22y%22&amp;state=red\"",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
}

#[test]
fn five_hundred_services_are_pages_of_at_most_150_kib_with_the_red_ones_first() {
    let services: Vec<Value> = (0..500)
        .map(|number| {
            let mut service = matrix_service(&format!("service-{number:03}"));
            let environments = service["environments"].as_array_mut().unwrap();
            environments.extend(environments.clone());
            for (environment, name) in
                environments
                    .iter_mut()
                    .zip(["dev", "test", "staging", "production"])
            {
                environment["environment"] = name.into();
                if number != 321 {
                    environment["states"] = json!(["healthy"]);
                }
            }
            service["last_run"]["status"] =
                if number == 321 { "failure" } else { "success" }.into();
            service
        })
        .collect();
    let mut page = overview(services.into());
    page.matrix.columns = ["dev", "test", "staging", "production"]
        .map(|name| name.parse().unwrap())
        .into();
    let mut seen = 0;
    for number in 1..=10 {
        page.page = number;
        let html = page.to_html();
        assert!(html.len() <= 150 << 10, "{} bytes", html.len());
        seen += html.matches("<tr id=\"s-service-").count();
        if number == 1 {
            let first = html.split("<tr id=\"").nth(1).unwrap();
            assert!(first.starts_with("s-service-321\""), "{first}");
        }
        assert_eq!(html.contains("rel=\"next\""), number < 10);
    }
    assert_eq!(seen, 500);
    // A page that doesn't exist is the last one.
    page.page = 99_999;
    assert!(page.to_html().contains("Page 10 of 10"));
}

#[test]
fn a_service_with_a_canary_and_a_hold() {
    insta::assert_snapshot!(content(&service_page(environment()).to_html()));
}

fn service_page(environment: Value) -> ServicePage {
    ServicePage {
        service: "shop".to_owned(),
        environments: vec![view(environment)],
        rollouts: Vec::new(),
        runs: Vec::new(),
        releases: Vec::new(),
        now: now(),
    }
}

#[test]
fn the_page_of_a_service_lists_rollouts_runs_and_releases() {
    let page = ServicePage {
        service: "shop".to_owned(),
        environments: Vec::new(),
        rollouts: vec![view(rollout())],
        runs: vec![view(run())],
        releases: vec![view(release(1, "First <script>"))],
        now: now(),
    };
    insta::assert_snapshot!(content(&page.to_html()));
}

#[test]
fn a_canary_under_way() {
    let page = RolloutPage {
        rollout: view(rollout()),
        history: view(json!({
            "forward_plan": [],
            "traffic": [
                { "at": "2026-11-21T11:58:00Z", "split": [[1, 10_000]], "direction": "forward" },
                { "at": "2026-11-21T11:59:00Z", "split": [[1, 5_000], [2, 5_000]], "direction": "forward" },
            ],
            "rules": [{
                "metric": "error-rate", "criterion": { "stable": { "odds": 100.0 } }, "min_requests": 100, "is_required": false,
                "judgement": { "verdict": "no_data", "why": "too little traffic", "seen": 3, "needed": 100, "finality": "open" },
                "requests": 3,
                "odds": [{ "at": "2026-11-21T11:59:10Z", "log_odds": 0.4, "log_threshold": 4.6 }],
            }],
        })),
        series: Vec::new(),
        instances: vec![view(json!({
            "id": "shop.production.2.1", "phase": "unready", "why": "<b>503</b>", "address": "127.0.0.1:9", "pid": 7, "restarts": 2,
            "since": "2026-11-21T11:58:30Z", "usage": null,
        }))],
        successor: None,
        now: now(),
    };
    insta::assert_snapshot!(content(&page.to_html()));
}

#[test]
fn a_failed_run_escapes_what_users_wrote_and_links_only_to_web_pages() {
    let page = RunPage {
        run: view(run()),
        failure_summary: Some(["a".to_owned(), "<b>".to_owned(), "c".to_owned()]),
        tests: None,
        log: ShownLog::Lines(view(json!({
            "job": "test", "attempt": 1, "total": 90, "bytes": 900, "focus": 42,
            "lines": [
                { "number": 41, "at": "2026-11-21T11:00:59Z", "text": "##[group]Run make" },
                { "number": 42, "text": "\u{1b}[31mno <rule>\u{1b}[0m \u{202e}" },
            ],
            "steps": [{ "index": 0, "name": "make <all>", "status": "failure", "started_at": "2026-11-21T11:00:50Z", "took_ms": 12_345, "first": 1, "last": 90 }],
        }))),
        search: None,
        releases: Vec::new(),
        now: now(),
    };
    insta::assert_snapshot!(content(&page.to_html()));
}

#[test]
fn a_whole_page_names_its_events_and_its_script() {
    insta::assert_snapshot!(refusal_page(404, "No such service: <x>.").replace("><", ">\n<"));
}

#[test]
fn a_release_that_was_rolled_back_and_an_outage_are_seen_on_its_page() {
    let mut environment = environment();
    environment["rollout"] = Value::Null;
    environment["last_rollout"] = json!({
        "number": 2, "release": 2, "outcome": "rolled_back", "why": "5% of the requests to #2 failed", "at": "2026-11-21T11:59:00Z",
    });
    environment["degradation"] = json!({
        "since": "2026-11-21T11:59:30Z", "release": 1, "ready": 0, "needed": 2, "problem": "instance 1: exit code 1",
    });
    let page = service_page(environment);
    let html = page.to_html();
    for words in [
        ">rolled back</span>",
        "5% of the requests to #2 failed",
        ">degraded</span>",
        "0 of 2 instances of #1 ready: instance 1: exit code 1",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
}

#[test]
fn a_watched_promotion_is_the_newest_result_of_its_environment() {
    let mut environment = environment();
    environment["last_rollout"] = json!({
        "number": 1, "release": 1, "outcome": "promoted", "why": "", "at": "2026-11-21T11:59:00Z",
    });
    for (status, shows_previous) in [("promoted", false), ("holding", true)] {
        environment["rollout"]["status"] = status.into();
        let page = service_page(environment.clone());
        let html = page.to_html();
        let previous = html.contains("last <a href=\"/rollouts/shop/1\"");
        assert_eq!(previous, shows_previous, "{status}: {html}");
    }
}

#[test]
fn a_pause_is_seen_on_the_page_with_its_reason_and_the_commands_that_end_it() {
    let mut environment = environment();
    environment["rollout"]["paused"] = json!({
        "since": "2026-11-21T11:59:00Z", "reason": "error-rate of #2 <unknown>", "by": "Shipway",
    });
    let page = service_page(environment);
    let html = page.to_html();
    for words in [
        ">paused</span> by Shipway",
        "error-rate of #2 &lt;unknown&gt;",
        "data-post=\"/api/v1/rollouts/shop/",
        "<code>shipway resume shop/ro",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
}

#[test]
fn a_run_of_250_jobs_with_hostile_names_has_a_page_of_limited_size() {
    let mut document = run();
    let name = format!("<script>alert(1)</script>\u{202e}{}", "x".repeat(100_000));
    let job = document["jobs"][0].clone();
    let jobs = (0..250).map(|number| {
        let mut job = job.clone();
        job["key"] = format!("test.{number}").into();
        job["name"] = name.clone().into();
        job["steps"][0]["name"] = name.clone().into();
        job["annotations"][0]["message"] = name.clone().into();
        job["summary"] = Value::Null;
        job
    });
    document["jobs"] = jobs.collect();
    document["subject"] = name.clone().into();
    document["title"] = name.clone().into();
    let page = RunPage {
        run: view(document),
        failure_summary: None,
        tests: None,
        log: ShownLog::NoJob,
        search: None,
        releases: Vec::new(),
        now: now(),
    };
    let html = page.to_html();
    assert!(html.len() < 1_500_000, "{}", html.len());
    assert!(!html.contains("<script>alert") && !html.contains('\u{202e}'));
}
