//! Canaries that are reached by requests that match, by copies of requests, and beside a baseline.

use crate::{
    evidence::{ended, repository, ship},
    load::Load,
    site::{Site, until},
    words::assert_says,
};

/// The status of the only rollout that moves.
fn status(site: &Site, release: u64) -> String {
    let rollout = site.rollout("production", release).unwrap_or_default();
    rollout["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn testers_get_the_canary_by_a_header_or_a_cookie_before_anybody_else_does() {
    let site = Site::started();
    let canary = "    strategy: { canary: { match: [{ header: { x-canary: { regex: '[1-9]' } } }, { cookie: { staff: { present: true } } }], steps: [{ hold: 10m }, { weight: 50%, hold: 10m }] } }";
    let shop = repository(&site, "shop", canary);
    assert_says(&ship(&shop, "1.0", "0"), &["#1 serves production"]);
    let url = format!("http://{}/shop/", site.proxy);
    let users = Load::steady(&url, 50);
    let testers = Load::steady_with(&url, 50, &[("x-canary", "1")]);
    let staff = Load::steady_with(&url, 50, &[("cookie", "a=b; staff=eve")]);
    let others = Load::steady_with(&url, 50, &[("x-canary", "10"), ("cookie", "staff=")]);
    shop.write("MOOD", "0\n");
    let mut push = shop.ship_begun("1.1");
    until("testers to have 1.1", || {
        testers.of("1.1") > 20 && staff.of("1.1") > 20
    });
    assert_eq!(users.of("1.1") + others.of("1.1"), 0);
    let told = crate::site::said(&site.shipway(&["plan", "--env", "production"]));
    assert_says(&told, &["header x-canary: /[1-9]/ or cookie staff to #2"]);
    let view = site.get("/api/v1/rollouts/shop/2").unwrap();
    assert_eq!(
        view["reach"]["matches"][0]["headers"]["x-canary"]["regex"], "[1-9]",
        "{view:#}"
    );
    assert_eq!(
        site.post("/api/v1/rollouts/shop/2/abort", &serde_json::json!({}))
            .0,
        200
    );
    assert_eq!(ended(&site, "shop", 2)["status"], "aborted");
    push.wait().unwrap();
    for load in [staff, others] {
        let counts = load.stop();
        assert!(counts.keys().all(|it| it.starts_with("200")), "{counts:?}");
    }
    let (users, testers) = (users.stop(), testers.stop());
    assert_eq!(users.keys().collect::<Vec<_>>(), ["200 1.0"], "{users:?}");
    assert!(
        testers.keys().all(|it| it.starts_with("200")),
        "{testers:?}"
    );
}

#[test]
fn a_release_that_fails_on_copies_goes_back_before_it_ever_had_a_user() {
    let site = Site::started();
    let canary = "    strategy: { canary: { mirror: 50%, steps: [{ weight: 20%, hold: 10m }] } }\n    analysis: [{ metric: error-rate, worse_than: stable }]";
    let shop = repository(&site, "shop", canary);
    assert_says(&ship(&shop, "1.0", "0"), &["#1 serves production"]);
    let load = Load::steady(&format!("http://{}/shop/", site.proxy), 100);
    ship(&shop, "1.1", "0.5");
    let rollout = ended(&site, "shop", 2);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    assert_eq!(rollout["served"], false, "{rollout:#}");
    assert_says(
        rollout["rollback_start"]["why"].as_str().unwrap(),
        &["of #2 is "],
    );
    let counts = load.stop();
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["200 1.0"], "{counts:?}");
}

#[test]
fn a_baseline_runs_beside_the_canary_over_a_crash_of_the_server_and_goes_with_it() {
    let mut site = Site::started();
    let canary = "    strategy: { canary: { baseline: true, steps: [{ weight: 20%, hold: 10m }], min_hold: 1s } }
    analysis: [{ metric: error-rate, worse_than: stable }, { metric: orders, provider: events, worse_than: stable, direction: decrease }]";
    let shop = repository(&site, "shop", canary);
    assert_says(&ship(&shop, "1.0", "0.05"), &["#1 serves production"]);
    let load = Load::steady(&format!("http://{}/shop/", site.proxy), 100);
    shop.write("MOOD", "0.05\n");
    let mut push = shop.ship_begun("1.1");
    until("the canary to hold", || status(&site, 2) == "holding");
    assert_eq!(
        site.instances("production"),
        [
            "shop.production.1.1",
            "shop.production.2.1",
            "shop.production.1b.1"
        ]
    );
    site.kill();
    push.wait().unwrap();
    site.start();
    until("it is compared with the baseline", || {
        let seen = &site.rollout("production", 2).unwrap_or_default()["seen"];
        seen["stable"]["release"] == "#1 baseline"
            && seen["stable"]["sample"]["requests"].as_u64() > Some(10)
    });
    assert_eq!(site.instances("production").len(), 3);
    // An instance names itself, and so its orders are told from those of the stable release.
    let orders = |release: &str, count: u64| {
        let instance = format!("shop.production.{release}.1");
        let event = serde_json::json!({ "name": "orders", "count": count, "instance": instance });
        site.post(
            "/api/v1/services/shop/metrics",
            &serde_json::json!({ "events": [event] }),
        )
    };
    for (release, count) in [("1", 7), ("1b", 5), ("2", 6)] {
        assert_eq!(orders(release, count).0, 200);
    }
    assert_says(
        &orders("1.1", 1).1.to_string(),
        &["shop.production.1.1.1", "is not an instance"],
    );
    until("the baseline's orders to be seen", || {
        let seen = &site.rollout("production", 2).unwrap_or_default()["seen"];
        let count = |side: &str| seen[side]["sample"]["events"][0]["count"].as_u64();
        (count("stable"), count("canary")) == (Some(5), Some(6))
    });
    let promoted = site.post("/api/v1/rollouts/shop/2/promote", &serde_json::json!({}));
    assert_eq!(promoted.0, 200, "{promoted:?}");
    assert_eq!(ended(&site, "shop", 2)["status"], "promoted");
    assert_eq!(site.instances("production"), ["shop.production.2.1"]);
    let counts = load.stop();
    assert!(
        !counts.keys().any(|it| it.starts_with("broken")),
        "{counts:?}"
    );
}
