//! A release that is rolled back in staging leaves production, where automatic promotion has brought it.

use crate::{
    site::{Site, said, until},
    words::{assert_ends, assert_says},
};

const FILE: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  staging: { strategy: recreate, drain: 1s }
  production:
    drain: 1s
    strategy: { canary: { steps: [{ weight: 50, hold: 1h }] } }
";

#[test]
fn a_rollback_in_staging_takes_the_release_out_of_the_canary_in_production() {
    let mut site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", FILE);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop.ship("1.1");
    let answers = |site: &Site, version: &str| {
        let wanted = Some((200, version.to_owned()));
        site.ask("/shop/") == wanted
    };
    until("the canary to get traffic", || answers(&site, "1.1"));

    let back = site.shipway(&[
        "rollback",
        "shop",
        "--env",
        "staging",
        "--reason",
        "wrong prices",
    ]);
    assert_ends(
        &back,
        0,
        &[
            "from #2 to #1",
            "rollout shop/ro4 of the same release is rolling back too",
            "shipway watch shop/ro4",
        ],
    );
    let watched = site.shipway(&["watch", "shop/ro4"]);
    assert_ends(&watched, 1, &["#2 was rolled back in staging"]);
    let production = site.place("production");
    assert_eq!(production["stable"]["number"], 1, "{production:#}");
    for _ in 0..20 {
        assert!(answers(&site, "1.0"));
    }
    // A restart brings it back neither there nor in staging, and the fix goes through both once staging is resumed.
    site.kill();
    site.start();
    until("the server", || site.get("/api/v1/services/shop").is_some());
    assert_eq!(site.place("production")["hold"], serde_json::Value::Null);
    assert_ends(
        &site.shipway(&["resume", "shop", "--env", "staging"]),
        0,
        &[],
    );
    shop.ship("1.2");
    until("the canary of the fix", || answers(&site, "1.2"));
}
