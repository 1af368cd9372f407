//! People outrank automation: what a person asked for is not superseded by a push, and what they hold waits until they resume.

use crate::{
    evidence::{ended, repository, ship},
    pages::shows,
    site::{Site, said, until},
    words::{assert_ends, assert_says},
};

/// Instances take this long to start, so that a push comes while a rollback is under way.
const SLOW: &str = "sleep 3; exec python3 shop.py";

#[test]
fn a_rollback_by_a_person_is_not_superseded_by_a_push_and_holds_the_environment_until_resumed() {
    let site = Site::started();
    // Without `watch` the rollout before has ended, and the rollback is a rollout of its own.
    let blue_green = "    strategy: { blue-green: { keep: 0s } }\n    watch: none";
    let shop = repository(&site, "shop", blue_green);
    shop.edit("shipway.yaml", "exec python3 shop.py", SLOW);
    for (version, rollout) in [("1.0", 1), ("1.1", 2)] {
        ship(&shop, version, "0");
        assert_eq!(ended(&site, "shop", rollout)["status"], "promoted");
    }
    let rollback = [
        "rollback",
        "--env",
        "production",
        "--reason",
        "customers call",
    ];
    let resume = "shipway resume shop --env production";
    let begun = "rolling back shop in production from #2 to #1: rollout shop/ro3 started";
    assert_ends(&site.shipway(&rollback), 0, &[begun, "held by ann", resume]);
    let twice = "rolling back shop in production from #2 to #1, already in progress: shipway watch shop/ro3";
    assert_ends(&site.shipway(&rollback), 0, &[twice]);

    let pushed = ship(&shop, "1.2", "0");
    let held = [
        "#3 is queued",
        "production is held by ann since",
        "customers call",
        resume,
    ];
    assert_says(&pushed, &held);
    let rollout = ended(&site, "shop", 1);
    assert_eq!(rollout["kind"], "rollback", "{rollout:#}");
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    assert_eq!(site.ask("/shop"), Some((200, "1.0".to_owned())));
    let place = site.place("production");
    assert_eq!(place["queue"], serde_json::json!([3]), "{place:#}");
    assert_eq!(place["hold"]["by"], "ann", "{place:#}");
    let status = ["held", "customers call", resume, "#3 waiting"];
    assert_ends(&site.shipway(&["status"]), 0, &status);
    assert_ends(&site.shipway(&["history"]), 0, &["rollback", "deploy"]);
    let button = "data-post=\"/api/v1/services/shop/environments/production/resume\"";
    for page in ["/", "/services/shop"] {
        shows(&site, page, &["held", "customers call", button]);
    }
    shows(&site, "/rollouts/shop/3", &["Rollback to"]);

    let resume = ["resume", "shop", "--env", "production", "--reason", "fixed"];
    let continues = "automatic promotion of shop into production continues";
    assert_ends(
        &site.shipway(&resume),
        0,
        &[continues, "rollout shop/ro4 started"],
    );
    assert_eq!(ended(&site, "shop", 3)["status"], "promoted");
    assert_eq!(site.ask("/shop"), Some((200, "1.2".to_owned())));
    assert_ends(&site.shipway(&resume), 0, &["not held: nothing changes"]);
    let nowhere = ["resume", "shop", "--env", "moon"];
    assert_ends(&site.shipway(&nowhere), 2, &["moon", "production"]);
}

#[test]
fn an_abort_whose_reason_begins_like_that_of_a_superseded_one_takes_the_tied_rollout_along() {
    let site = Site::started();
    let canary = "    strategy: { canary: { steps: [{ weight: 50%, hold: 10m }] } }";
    let cart = repository(&site, "cart", canary);
    let shop = repository(
        &site,
        "shop",
        &format!("{canary}\n    promote_with: [cart]"),
    );
    for service in [&cart, &shop] {
        assert_says(&ship(service, "1.0", "0"), &["#1 serves production"]);
    }
    let mut pushes = Vec::new();
    for (name, service) in [("cart", &cart), ("shop", &shop)] {
        pushes.push(service.ship_begun("1.1"));
        until("the canary to hold", || {
            let view = site.get(&format!("/api/v1/rollouts/{name}/2"));
            view.is_some_and(|view| view["status"] == "holding")
        });
    }
    let reason = "superseded by the hotfix";
    said(&site.shipway(&["abort", "shop/ro2", "--reason", reason]));
    assert_eq!(ended(&site, "shop", 2)["status"], "aborted");
    let cart = ended(&site, "cart", 2);
    assert_eq!(cart["status"], "rolled_back", "{cart:#}");
    assert_eq!(
        cart["rollback_start"]["cause"], "peer_rolled_back",
        "{cart:#}"
    );
    // A person stopped the one, and nobody held the other.
    assert_ends(&site.shipway(&["status", "shop"]), 0, &["held by ann"]);
    assert!(!said(&site.shipway(&["status", "cart"])).contains("held by"));
    for mut push in pushes {
        push.wait().unwrap();
    }
}
