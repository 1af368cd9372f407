//! Environments and services that are deleted: what stops, what is freed, what stays.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, said, until},
    words::{assert_ends, assert_says},
};

const CONFIG: &str = "
service: shop
artifact: { source: . }
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  staging: { strategy: recreate, drain: 1s, port: STAGING }
  production:
    instances: 2
    drain: 1s
    path: /shop
    strategy: { canary: { steps: [{ weight: 50, hold: 10m }] } }
";

/// A shop that serves 1.0 in both environments.
fn serving(site: &Site) -> Shop {
    let shop = site.shop();
    let port = crate::site::free_address();
    let port = port.rsplit(':').next().unwrap();
    shop.write("shipway.yaml", &CONFIG.replace("STAGING", port));
    std::fs::remove_file(shop.path.join(".github/workflows/cd.yml")).unwrap();
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop
}

fn delete(site: &Site, path: &str) -> u16 {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::from(agent.build());
    let request = agent.delete(site.url(path)).force_send_body();
    let answer = request.send_json(json!({ "reason": "moved" })).unwrap();
    answer.status().as_u16()
}

#[test]
fn an_environment_is_deleted_after_its_name_was_typed_also_by_a_server_that_is_killed_meanwhile() {
    let mut site = Site::started();
    let shop = serving(&site);
    let typed = |name: &str| {
        let mut command = Command::new(SHIPWAY);
        command
            .args(["delete", "shop", "--env", "staging"])
            .env("SHIPWAY_URL", site.url(""))
            .env_remove("SHIPWAY_TOKEN")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = command.spawn().unwrap();
        let mut stdin = running.stdin.take().unwrap();
        writeln!(stdin, "{name}").unwrap();
        drop(stdin);
        running.wait_with_output().unwrap()
    };
    let told = ["This deletes environment staging of shop", "--yes"];
    assert_ends(&typed("shop"), 2, &told);
    assert_eq!(site.instances("staging").len(), 1);
    assert_ends(&typed("staging"), 0, &["deleted: environment staging"]);
    assert_eq!(site.instances("staging"), [""; 0]);
    assert_eq!(site.place("staging"), Value::Null);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));

    let production = "/api/v1/services/shop/environments/production";
    assert_eq!(delete(&site, production), 202);
    site.kill();
    site.start();
    until("the deletion to end", || {
        site.place("production") == Value::Null
    });
    until("the instances to be gone", || {
        site.instances("production").is_empty()
    });
    let claims = site.get("/api/v1/addresses").unwrap_or_default();
    assert!(!claims.to_string().contains("\"/shop\""), "{claims}");
    assert_eq!(delete(&site, production), 400);

    // The configuration still names them: the next release makes them anew.
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
}

#[test]
fn a_service_is_deleted_when_nothing_of_it_is_in_progress_and_its_log_stays() {
    let site = Site::started();
    let shop = serving(&site);
    assert_says(&said(&shop.ship("1.1")), &["holding for 10 min"]);
    let refused = site.shipway_in(&shop.path, &["delete", "--yes"]);
    let told = ["rollout shop/ro4 is in progress", "shipway abort shop/ro4"];
    assert_ends(&refused, 1, &told);
    assert_ends(&site.shipway(&["abort", "shop/ro4"]), 0, &[]);
    site.ended_rollout("production", 2);
    let deleted = site.shipway_in(&shop.path, &["delete", "--yes", "--reason", "no customers"]);
    assert_ends(&deleted, 0, &["deleted: service shop"]);
    assert_ends(&site.shipway(&["status"]), 0, &["no services yet"]);
    assert_eq!(site.ask("/shop/").map(|(status, _)| status), Some(404));
    assert_eq!(site.rollouts().len(), 4, "history stays");
    assert!(!site.data().join("git/shop.git").exists());

    // The same commit, pushed again: the service is there again, and numbers continue.
    assert_says(&said(&shop.push("main")), &["#3 serves production"]);
    assert_ends(&site.shipway(&["status"]), 0, &["shop", "#3"]);
}

/// All entries of a list, read by pages of one: this field of each.
fn walk(site: &Site, path: &str, field: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("{path}?limit=1{cursor}")).unwrap();
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{page}");
        found.push(items[0][field].as_str().unwrap().to_owned());
        if page["next"].is_null() {
            return found;
        }
        cursor = format!("&cursor={}", page["next"]);
    }
}

#[test]
fn lists_of_environments_and_addresses_are_walked_page_by_page_and_lose_a_deleted_environment() {
    let site = Site::started();
    serving(&site);
    let environments = |site: &Site| walk(site, "/api/v1/environments", "environment");
    assert_eq!(environments(&site), ["staging", "production"]);
    let owners = |site: &Site| -> BTreeSet<String> {
        let owners = walk(site, "/api/v1/addresses", "environment");
        owners.into_iter().collect()
    };
    let both = ["production", "staging"].map(str::to_owned);
    assert_eq!(owners(&site), both.into());
    let first = site.get("/api/v1/addresses?limit=1").unwrap();
    let ports = first["reserved_ports"].as_object().unwrap();
    assert_eq!(ports.len(), 2, "on every page: {first}");

    let staging = "/api/v1/services/shop/environments/staging";
    assert_eq!(delete(&site, staging), 202);
    until("the environment to be gone", || {
        environments(&site) == ["production"]
    });
    until("its addresses to be gone", || owners(&site).len() == 1);
    let of_none = site.get("/api/v1/environments?service=till").unwrap();
    assert_eq!(of_none["items"], json!([]));
    let of_shop = site.get("/api/v1/environments?service=shop").unwrap();
    assert_eq!(of_shop["items"][0]["environment"], "production");
}
