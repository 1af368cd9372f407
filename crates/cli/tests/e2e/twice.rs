//! What comes twice or at once: pushes, each of which is told what became of it, and requests that are said again.

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::assert_says,
};

const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments: { production: { strategy: rolling, drain: 1s } }
";

/// Another clone of the shop, as of now.
fn cloned(site: &Site, name: &str) -> Shop {
    let folder = site.folder.path().join(name);
    Shop::clone_of(&folder, &site.url("/git/shop"))
}

#[test]
fn of_two_pushes_from_one_commit_one_is_told_to_fetch() {
    let site = Site::started();
    let ann = site.shop();
    ann.write("shipway.yaml", CONFIG);
    assert_says(&said(&ann.ship("1.0")), &["#1 serves production"]);
    let bob = cloned(&site, "bob");
    ann.commit("1.1-ann");
    bob.commit("1.1-bob");
    let (one, other) = (ann.push_begun("main"), bob.push_begun("main"));
    let (one, other) = (
        one.wait_with_output().unwrap(),
        other.wait_with_output().unwrap(),
    );
    let (won, lost, version) = if one.status.success() {
        (one, other, "1.1-ann")
    } else {
        (other, one, "1.1-bob")
    };
    assert_says(&said(&won), &["#2 serves production"]);
    assert!(!lost.status.success(), "{}", said(&lost));
    assert_says(&said(&lost), &["rejected"]);
    assert_eq!(site.ask("/shop/"), Some((200, version.to_owned())));
    assert_eq!(site.rollouts().len(), 2);
}

#[test]
fn of_pushes_one_after_the_other_the_newest_ends_in_production() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    // The first is slower to build: it must not come after the second.
    let workflow = ".github/workflows/cd.yml";
    shop.edit(
        workflow,
        "- run: python3",
        "- run: sleep 4\n      - run: python3",
    );
    shop.commit("1.1");
    let slow = shop.push_begun("main");
    until("the slow run", || {
        site.get("/api/v1/runs?service=shop&live=true")
            .is_some_and(|page| page["items"].as_array().is_some_and(|runs| runs.len() == 1))
    });
    shop.edit(workflow, "- run: sleep 4\n      ", "");
    let quick = said(&shop.ship("1.2"));
    assert_says(&quick, &["serves production"]);
    let slow = said(&slow.wait_with_output().unwrap());
    assert_says(&slow, &["is not deployed to production", "a newer push"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.2".to_owned())));
    assert_eq!(site.rollouts().len(), 2, "{:#?}", site.rollouts());
}

#[test]
fn a_request_said_again_with_its_key_is_answered_again_and_done_once() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let dispatch = |key: &str, body: &str| {
        let body = serde_json::json!({ "workflow": ".github/workflows/cd.yml", "ref": body });
        site.post_once("/api/v1/services/shop/runs", key, &body)
    };
    let (status, first) = dispatch("k1", "main");
    assert_eq!(status, 202, "{first}");
    assert_eq!(dispatch("k1", "main"), (202, first.clone()));
    let (_, second) = dispatch("k2", "main");
    assert_ne!(first["run"], second["run"]);
    let (status, problem) = dispatch("k1", "other");
    assert_eq!(status, 422, "{problem}");
    let page = site.get("/api/v1/runs?service=shop").unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
}
