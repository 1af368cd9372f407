//! Metrics that Shipway doesn't measure itself: a KPI in a real Prometheus, and business events that are reported.

#[path = "../../../drivers/tests/metrics_support/mod.rs"]
mod metrics_support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use metrics_support::{Fake, Prometheus};
use serde_json::json;

use crate::{
    site::{Site, said, until},
    strategies,
};

/// An exporter whose KPI is halved on every other release, with a little noise: a KPI that stands still has no variance to judge by.
fn exporter() -> Fake {
    let scrapes = AtomicU64::new(0);
    Fake::serve(move |_, _| {
        // A van der Corput sequence: random noise looks correlated by chance now and then, and then nothing is judged.
        let scrape = scrapes.fetch_add(1, Ordering::Relaxed);
        let noise = (scrape.reverse_bits() >> 60) as f64 / 1_250.0;
        let line = |release: u32| {
            let value = if release.is_multiple_of(2) { 0.2 } else { 0.4 };
            format!("conversion{{release=\"{release}\"}} {}\n", value + noise)
        };
        Some((200, (1..5).map(line).collect()))
    })
}

const KPI: &str = "[{ metric: conversion, worse_than: stable, direction: decrease, interval: 200ms, provider: { prometheus: \"URL\", query: 'conversion{release=\"{{release}}\"}', timeout: 2s } }]";

#[test]
fn a_kpi_that_halves_rolls_back_and_a_prometheus_that_is_killed_promotes_nothing() {
    let exporter = exporter();
    let Some(mut prometheus) = Prometheus::start(&exporter) else {
        return;
    };
    prometheus.until_has("conversion");
    let site = Site::started();
    let shop = site.shop();
    let canary = "{ canary: { steps: [{ weight: 50, hold: 20m }], min_hold: 20m } }";
    let limits = "[{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]";
    let config = strategies::config(canary).replace(limits, &KPI.replace("URL", &prometheus.url));
    shop.write("shipway.yaml", &config.replace("/smoke", "/ready"));
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("#1 serves production"), "{told}");

    // The push doesn't wait for so long a hold.
    shop.ship("2.0");
    let told = site.ended_rollout("production", 2).to_string();
    for words in [
        "rollback_start",
        "conversion of #2 is worse than #1: 0.2",
        " vs 0.4",
        "certainty",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }

    // As good as the first, and Prometheus goes before that is shown.
    shop.ship("3.0");
    let judged = |words: &str| {
        site.rollout("production", 3).is_some_and(|rollout| {
            let judgement = &rollout["judgement"];
            judgement["verdict"] == "inconclusive"
                && judgement["why"]
                    .as_str()
                    .is_some_and(|why| why.contains(words))
        })
    };
    until("the first values", || {
        site.rollout("production", 3)
            .is_some_and(|rollout| !rollout["judgement"].is_null())
    });
    prometheus.kill();
    until("the reason", || judged("Prometheus could not be reached"));
    assert!(site.rollout("production", 3).unwrap()["ended"].is_null());
}

#[test]
fn a_kpi_that_halves_after_a_switch_is_told_from_what_it_was_before() {
    let exporter = exporter();
    let Some(prometheus) = Prometheus::start_with_interval(&exporter, "250ms") else {
        return;
    };
    prometheus.until_has("conversion");
    let site = Site::started();
    let shop = site.shop();
    let limits = "[{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]";
    let config = strategies::config("{ blue-green: { bake: 20m, min_hold: 20m } }");
    let config = config.replace(
        limits,
        &KPI.replace("URL", &prometheus.url)
            .replace("200ms", "250ms"),
    );
    shop.write("shipway.yaml", &config.replace("/smoke", "/ready"));
    assert!(said(&shop.ship("1.0")).contains("#1 serves production"));
    // The comparison needs 30 values of stable from before the switch, and gets no more of them afterwards.
    let begun = std::time::Instant::now();
    until("stable to have been there for a while", || {
        site.ask("/shop/").is_some() && begun.elapsed() > std::time::Duration::from_secs(15)
    });
    shop.ship("2.0");
    let told = site.ended_rollout("production", 2).to_string();
    for words in [
        "rolled_back",
        "conversion of #2 is worse than #1 before the switch: 0.2",
        " vs 0.4",
        "certainty",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // As good as before.
    let begun = std::time::Instant::now();
    until("the rollback to be over", || {
        site.ask("/shop/").is_some() && begun.elapsed() > std::time::Duration::from_secs(2)
    });
    shop.ship("3.0");
    until("it is known to be as good as #1 was", || {
        let rollout = site.rollout("production", 3).unwrap_or_default();
        let why = rollout["judgement"]["why"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        rollout["judgement"]["verdict"] == "pass" && why.contains("#1 before the switch")
    });
}

/// What a Prometheus that isn't well answers, and what is said of it.
const BAD_ANSWERS: [(&str, &str); 9] = [
    ("", "did not respond within"),
    (
        r#"{"status":"error","error":"out of memory"}"#,
        "refused the query (200): out of memory",
    ),
    ("<html>502</html>", "did not return JSON"),
    (
        r#"{"status":"success","data":{"resultType":"string","result":[1,"1"]}}"#,
        "returns a string",
    ),
    (
        r#"{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}"#,
        "NaN",
    ),
    (
        r#"{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}"#,
        "+Inf",
    ),
    (
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
        "has no series",
    ),
    (
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"1"]}]}}"#,
        "2 series, but one is needed",
    ),
    (
        r#"{"status":"success","warnings":["store 2 is down"],"data":{"resultType":"scalar","result":[1,"1"]}}"#,
        "partial: store 2 is down",
    ),
];
const GOOD_ANSWER: &str =
    r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0.4"]}}"#;

#[test]
fn whatever_a_provider_answers_is_said_and_nothing_passes_by_it() {
    let answer = Arc::new(Mutex::new(GOOD_ANSWER));
    let prometheus = Fake::serve({
        let answer = answer.clone();
        move |_, _| {
            let text = *answer.lock().unwrap();
            (!text.is_empty()).then(|| (200, text.to_owned()))
        }
    });
    let site = Site::started();
    let shop = site.shop();
    let canary = "{ canary: { steps: [{ weight: 50, hold: 20m }], min_hold: 100ms } }";
    let limits = "[{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]";
    let provider = |query: &str, more: &str| {
        format!(
            "{{ prometheus: \"{}\", query: \"{query}\", timeout: 200ms{more} }}",
            prometheus.url
        )
    };
    let (good, secret) = (
        provider("it", ""),
        provider("it", ", headers: { X-Key: $NOT_THERE }"),
    );
    let rules = |second: &str| {
        format!(
            "[{{ metric: it, min: 0.1, interval: 200ms, consecutive_error_limit: 100000, provider: {good} }}, {{ metric: other, min: 0.1, interval: 200ms, consecutive_error_limit: 100000, provider: {second} }}]"
        )
    };
    let config = |second: &str| {
        strategies::config(canary)
            .replace(limits, &rules(second))
            .replace("/smoke", "/ready")
    };
    shop.write("shipway.yaml", &config(&good));
    assert!(said(&shop.ship("1.0")).contains("#1 serves production"));
    // A secret that nobody has given is named, and the other answer is not enough.
    shop.write("shipway.yaml", &config(&secret));
    shop.ship("2.0");
    let judged = |release: u64, verdict: &str, words: &str| {
        until(&format!("{verdict}: {words}"), || {
            let rollout = site.rollout("production", release).unwrap_or_default();
            assert!(rollout["ended"].is_null(), "{rollout:#}");
            let why = rollout["judgement"]["why"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            rollout["judgement"]["verdict"] == verdict && why.contains(words)
        });
    };
    judged(2, "inconclusive", "NOT_THERE");
    for (text, words) in BAD_ANSWERS {
        *answer.lock().unwrap() = text;
        judged(2, "inconclusive", words);
    }
    *answer.lock().unwrap() = GOOD_ANSWER;
    judged(2, "inconclusive", "NOT_THERE");
    assert_eq!(site.rollout("production", 2).unwrap()["status"], "holding");
}

#[test]
fn business_events_are_counted_once_and_outlive_the_server() {
    let (mut site, _) = strategies::serving(strategies::RECREATE);
    let path = "/api/v1/services/shop/metrics";
    let orders = json!({ "events": [{ "name": "orders", "release": 1, "count": 3 }, { "name": "orders", "user": "ada" }] });
    assert_eq!(
        site.post_once(path, "order-17", &orders),
        (200, json!({ "counted": 4 }))
    );
    assert_eq!(
        site.post_once(path, "order-17", &orders).0,
        200,
        "said again"
    );
    for (wrong, words) in [
        (json!({ "events": [] }), "1 to 1000 events"),
        (
            json!({ "events": [{ "name": "orders" }] }),
            "one of `instance`, `release` and `user`",
        ),
        (
            json!({ "events": [{ "name": "an order!", "release": 1 }] }),
            "not a valid metric name",
        ),
        (
            json!({ "events": [{ "name": "orders", "release": 1, "count": 0 }] }),
            "`count`",
        ),
        (
            json!({ "environment": "moon", "events": [{ "name": "orders", "release": 1 }] }),
            "no environment moon",
        ),
    ] {
        let (status, problem) = site.post(path, &wrong);
        assert_eq!(status, 400, "{problem}");
        assert!(problem.to_string().contains(words), "{problem}");
    }
    assert_eq!(site.post("/api/v1/services/none/metrics", &orders).0, 404);
    let counts = std::fs::read_to_string(site.data().join("happened.json")).unwrap();
    assert_eq!(counts, r#"{"shop/production":{"1":{"orders":4}}}"#);
    site.kill();
    site.start();
    assert_eq!(site.post(path, &orders).0, 200);
    let counts = std::fs::read_to_string(site.data().join("happened.json")).unwrap();
    assert_eq!(counts, r#"{"shop/production":{"1":{"orders":8}}}"#);
}
