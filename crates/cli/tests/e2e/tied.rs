//! Services that are rolled out together: promoted together, back together.

use crate::{
    evidence::{config, ended, repository, ship},
    site::{SHIPWAY, Site, said, until},
    words::assert_says,
};

const CANARY: &str = "    strategy: { canary: { steps: [{ weight: 50%, hold: 300ms }] } }";

fn status(site: &Site, service: &str, rollout: u32) -> String {
    let view = site.get(&format!("/api/v1/rollouts/{service}/{rollout}"));
    view.unwrap_or_default()["status"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn tied_services_wait_for_each_other_and_one_that_goes_back_takes_the_other_along() {
    let mut site = Site::started();
    let shop = repository(
        &site,
        "shop",
        &format!("{CANARY}\n    promote_with: [cart]"),
    );
    let told = ship(&shop, "1.0", "0");
    assert_says(
        &told,
        &["`promote_with` names cart, and no such service exists here"],
    );
    let file = shop.path.join("shipway.yaml");
    let file = file.to_str().unwrap();
    let server = site.url("");
    let check = |more: &[&str]| {
        let mut words = vec!["check", file];
        words.extend(more);
        let mut command = std::process::Command::new(SHIPWAY);
        command.args(words).env_remove("SHIPWAY_URL");
        said(&command.output().unwrap())
    };
    let asked = check(&["--server", &server]);
    assert_says(
        &asked,
        &[
            "shipway.yaml:12:20",
            "`promote_with` names cart",
            "no such service: cart",
            "0 errors, 1 warning",
        ],
    );
    assert_says(&check(&[]), &["0 errors, 0 warnings"]);
    let nobody = check(&["--server", "http://127.0.0.1:9"]);
    assert_says(&nobody, &["can't check whether cart exists", "2 warnings"]);
    let gated = format!("{CANARY}\n    approvals: {{ count: 1 }}");
    let cart = repository(&site, "cart", CANARY);
    assert_says(&ship(&cart, "1.0", "0"), &["#1 serves production"]);
    assert_says(&check(&["--server", &server]), &["0 errors, 0 warnings"]);
    assert_says(&ship(&shop, "1.1", "0"), &["#1 serves production"]);
    // Both on their way: the cart waits for a person, the shop for the cart.
    cart.write("shipway.yaml", &config("cart", &gated));
    let mut pushes = Vec::new();
    cart.commit("1.1");
    pushes.push(cart.push_begun("main"));
    until("the cart to wait", || status(&site, "cart", 2) == "waiting");
    shop.commit("1.2");
    pushes.push(shop.push_begun("main"));
    until("the shop to wait for the cart", || {
        status(&site, "shop", 2) == "waiting_for_peers"
    });
    let told = said(&site.shipway(&["plan", "shop", "--env", "production"]));
    assert_says(&told, &["wait for the rollouts of cart"]);
    // A crash changes nothing about it.
    site.kill();
    site.start();
    until("the shop to wait still", || {
        status(&site, "shop", 2) == "waiting_for_peers"
    });
    assert_eq!(
        site.post("/api/v1/rollouts/cart/2/approve", &serde_json::json!({}))
            .0,
        200
    );
    for service in ["shop", "cart"] {
        let rollout = ended(&site, service, 2);
        assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    }
    // And back together.
    cart.commit("1.2");
    pushes.push(cart.push_begun("main"));
    until("the cart to wait", || status(&site, "cart", 3) == "waiting");
    shop.commit("1.3");
    pushes.push(shop.push_begun("main"));
    until("the shop to wait for the cart", || {
        status(&site, "shop", 3) == "waiting_for_peers"
    });
    let reason = serde_json::json!({ "reason": "the till is shut" });
    assert_eq!(site.post("/api/v1/rollouts/cart/3/reject", &reason).0, 200);
    let back = ended(&site, "shop", 3);
    assert_eq!(back["status"], "rolled_back", "{back:#}");
    assert_says(
        back["rollback_start"]["why"].as_str().unwrap(),
        &["cart/ro3 was rolled back", "the till is shut"],
    );
    for mut push in pushes {
        push.wait().unwrap();
    }
    for service in ["shop", "cart"] {
        let answer = site.ask(&format!("/{service}")).unwrap();
        assert_eq!(answer.0, 200);
    }
}

#[test]
fn a_rollback_outside_the_window_goes_in_by_the_strategy_and_a_bad_release_needs_force() {
    let site = Site::started();
    let shop = repository(
        &site,
        "shop",
        &format!("{CANARY}\n    rollback_window: {{ releases: 1 }}"),
    );
    for (number, version) in ["1.0", "1.1", "1.2"].iter().enumerate() {
        assert_says(
            &ship(&shop, version, "0"),
            &[&format!("#{} serves production", number + 1)],
        );
        ended(&site, "shop", number as u64 + 1);
    }
    let back = |words: &[&str]| {
        let all = [&["rollback", "--env", "production"], words].concat();
        said(&site.shipway(&all))
    };
    back(&["--release", "1", "--watch"]);
    let rollout = site.get("/api/v1/rollouts/shop/4").unwrap();
    assert_eq!(rollout["kind"], "rollback", "{rollout:#}");
    assert_eq!(rollout["pace"], "by_strategy", "{rollout:#}");
    assert_says(
        rollout["why"].as_str().unwrap(),
        &["#1 is outside the rollback window (the last 1 releases)"],
    );
    back(&["--release", "3", "--force", "--watch"]);
    let rollout = site.get("/api/v1/rollouts/shop/5").unwrap();
    assert_eq!(rollout["kind"], "rollback", "{rollout:#}");
    assert_eq!(rollout["pace"], "by_strategy", "{rollout:#}");
    assert_says(
        &back(&["--release", "1"]),
        &["#1 was rolled back in production before; use --force"],
    );
    back(&["--release", "1", "--force", "--watch"]);
    until("1.0 serves", || {
        site.ask("/shop/") == Some((200, "1.0".to_owned()))
    });
}
