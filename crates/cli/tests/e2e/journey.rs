//! The way of a commit: pushed, built once, through staging and step by step into production; back again when it is bad.

use serde_json::Value;

use crate::{
    load::{Load, assert_all_good},
    site::{Site, said, until},
};

#[test]
fn a_push_ends_in_production_and_a_bad_one_comes_back() {
    let site = Site::started();
    let shop = site.shop();
    let pushed = shop.ship("1.0");
    let told = said(&pushed);
    assert!(pushed.status.success(), "{told}");
    for line in [
        "remote: run r1",
        "#1 serves staging",
        "#1 serves production",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));

    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    let told = said(&shop.ship("1.1"));
    assert!(told.contains("#2 serves production"), "{told}");
    assert_commits_are_recorded(&site);
    until("all traffic on 1.1", || load.of("1.1") > 50);
    let counts = load.stop();
    assert_all_good(&counts);
    assert!(counts.contains_key("200 1.0"), "{counts:?}");

    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    shop.write("MOOD", "bad\n");
    let told = said(&shop.ship("1.2"));
    assert!(told.contains("error rate"), "{told}");
    let rollout = site.ended_rollout("production", 3);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    let counts = load.stop();
    let other_than_the_release =
        |answer: &&String| !["200 1.1", "500 1.2"].contains(&answer.as_str());
    assert_eq!(
        counts.keys().find(other_than_the_release),
        None,
        "{counts:?}"
    );
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));

    let history = said(&site.shipway(&["history", "shop"]));
    for word in ["#1", "#2", "#3", "rolled back"] {
        assert!(history.contains(word), "{word:?} is not in\n{history}");
    }
}

/// The log has the commits of both pushes, and their lead times are counted.
fn assert_commits_are_recorded(site: &Site) {
    let log = rusqlite::Connection::open(site.data().join("shipway.db")).unwrap();
    let sql = "SELECT json_extract(body, '$.body.pushed.push') FROM events WHERE json_extract(body, '$.body.pushed') IS NOT NULL ORDER BY position";
    let mut pushes = log.prepare(sql).unwrap();
    let pushes = pushes.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let pushes: Vec<Value> = pushes
        .map(|push| serde_json::from_str(&push.unwrap()).unwrap())
        .collect();
    assert_eq!(pushes.len(), 2);
    for push in &pushes {
        let newest = &push["commits"][0];
        assert_eq!(newest["id"], push["commit"]["id"], "{push:#}");
        assert!(newest["authored_at"].is_string(), "{push:#}");
        assert_eq!(push["commits_omitted"], Value::Null);
    }
    // The second push brought one commit.
    assert_eq!(pushes[1]["commits"].as_array().unwrap().len(), 1);
    let address = "/api/v1/delivery?service=shop&environment=production";
    until("both deployments are counted", || {
        let page = site.get(address).unwrap();
        let days = page["items"].as_array().unwrap();
        let sum = |count: &dyn Fn(&Value) -> u64| days.iter().map(count).sum::<u64>();
        let deployments = sum(&|day| day["deployments"].as_u64().unwrap());
        let commits = sum(&|day| {
            let buckets = day["lead_time"].as_array().unwrap();
            buckets
                .iter()
                .map(|it| it["commits"].as_u64().unwrap())
                .sum()
        });
        (deployments, commits) == (2, 2)
    });
}
