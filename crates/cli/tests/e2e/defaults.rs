//! A `shipway.yaml` without `analysis`: the default rules are judged.

use crate::{
    evidence::{ended, repository, ship},
    load::Load,
    site::{Site, until},
    words::assert_says,
};

#[test]
fn a_release_whose_instances_crash_is_rolled_back_though_its_requests_fall_back_to_stable() {
    let site = Site::started();
    // Missing instances alone would roll it back sooner.
    let environment =
        "    unready_grace: 60s\n    strategy: { canary: { steps: [{ weight: 30%, hold: 5m }] } }";
    let shop = repository(&site, "shop", environment);
    assert_says(&ship(&shop, "1.0", "0"), &["#1 serves production"]);
    let load = Load::steady(&format!("http://{}/shop", site.proxy), 100);
    until("the load to be steady", || load.of("1.0") > 100);
    // It answers well, and is gone after three seconds, again and again.
    shop.edit(
        "shop.py",
        "print(\"serving\"",
        "threading.Timer(3, lambda: os._exit(3)).start()\nprint(\"serving\"",
    );
    shop.edit("shop.py", "import random,", "import os, random,");
    let told = ship(&shop, "1.1", "0");
    assert_says(&told, &["count as slow"]);
    let rollout = ended(&site, "shop", 2);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    let why = rollout["rollback_start"]["why"].as_str().unwrap();
    assert_says(why, &["restart count of #2 is over the limit: 1, limit 0"]);
    load.stop();
}

#[test]
fn a_quiet_service_is_promoted_with_how_little_was_seen_unless_a_rule_is_required() {
    let site = Site::started();
    let canary = "    strategy: { canary: { steps: [{ weight: 50%, hold: 1s }] } }";
    let shop = repository(&site, "shop", canary);
    assert_says(&ship(&shop, "1.0", "0"), &["#1 serves production"]);
    let told = ship(&shop, "1.1", "0");
    assert_says(
        &told,
        &[
            "#2 serves production",
            "no data: too little traffic to judge the error rate of #2: 0 of the 100 requests needed",
        ],
    );
    let required = format!("{canary}\n    analysis: [{{ metric: error-rate, required: true }}]");
    shop.write("shipway.yaml", &crate::evidence::config("shop", &required));
    shop.write("MOOD", "0.0\n");
    let mut push = shop.ship_begun("1.2");
    until("the hold to be over its time", || {
        let view = site.get("/api/v1/rollouts/shop/3").unwrap_or_default();
        let judged = &view["judgement"];
        let is_past = view["hold_until"]
            .as_str()
            .and_then(|until| until.parse::<jiff::Timestamp>().ok())
            .is_some_and(|until| until < jiff::Timestamp::now());
        assert!(view["ended"].is_null(), "{view:#}");
        is_past && judged["verdict"] == "no_data" && view["hold_deadline"].is_string()
    });
    site.shipway(&["abort", "shop/ro3"]);
    ended(&site, "shop", 3);
    push.wait().unwrap();
}
