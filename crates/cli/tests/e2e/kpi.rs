//! Metrics that Shipway doesn't measure itself: a KPI in a real Prometheus, and business events that are reported.

#[path = "../../../drivers/tests/metrics_support/mod.rs"]
mod metrics_support;

use std::time::{SystemTime, UNIX_EPOCH};

use metrics_support::{Fake, Prometheus};
use serde_json::json;

use crate::{
    site::{Site, said, until},
    strategies,
};

/// An exporter whose KPI is halved on every other release. A little noise: a KPI stands still only when nobody looks.
fn exporter() -> Fake {
    Fake::serve(|_, _| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let noise = ((now.as_millis() / 10 * 7_919) % 13) as f64 / 1_000.0;
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
        "turned_back",
        "conversion 0.2",
        "on #2 against 0.4",
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
    let Some(prometheus) = Prometheus::start(&exporter) else {
        return;
    };
    prometheus.until_has("conversion");
    let site = Site::started();
    let shop = site.shop();
    let limits = "[{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]";
    let config = strategies::config("{ blue-green: { bake: 20m, min_hold: 20m } }");
    let config = config.replace(limits, &KPI.replace("URL", &prometheus.url));
    shop.write("shipway.yaml", &config.replace("/smoke", "/ready"));
    assert!(said(&shop.ship("1.0")).contains("#1 serves production"));
    // Nothing is known of a release that nobody asked, and two releases need some time in Prometheus.
    let begun = std::time::Instant::now();
    until("stable to have been there for a while", || {
        site.ask("/shop").is_some() && begun.elapsed() > std::time::Duration::from_secs(10)
    });
    shop.ship("2.0");
    let told = site.ended_rollout("production", 2).to_string();
    for words in [
        "rolled_back",
        "conversion 0.2",
        "on #2 against 0.4",
        "on #1 before the switch",
        "certainty",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // As good as before.
    let begun = std::time::Instant::now();
    until("the way back to be over", || {
        site.ask("/shop").is_some() && begun.elapsed() > std::time::Duration::from_secs(2)
    });
    shop.ship("3.0");
    until("it is known to be as good as #1 was", || {
        let rollout = site.rollout("production", 3).unwrap_or_default();
        let why = rollout["judgement"]["why"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        rollout["judgement"]["verdict"] == "pass" && why.contains("on #1 before the switch")
    });
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
            "no name of a metric",
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
