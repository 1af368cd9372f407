//! Every strategy with every kind of release, under steady traffic: no request is lost on the way in or on the way back, and a
//! release that is not fit never has a user.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::{
    load::{Load, assert_all_good},
    shop::Shop,
    site::{Site, said, until},
};

pub const RECREATE: &str = "recreate";
pub const ROLLING: &str = "{ rolling: { max_surge: 1, max_unavailable: 0 } }";
pub const BLUE_GREEN: &str = "{ blue-green: { keep: 4s } }";
pub const CANARY: &str =
    "{ canary: { steps: [{ weight: 20, hold: 1s }, { weight: 60, hold: 500ms }] } }";

/// One environment, so that a release is there soon; not being ready is noticed soon too.
pub fn config(strategy: &str) -> String {
    format!(
        "
service: shop
run:
  command: exec python3 shop.py
  health: {{ http: /ready, interval: 100ms, timeout: 2s }}
environments:
  production:
    instances: 2
    strategy: {strategy}
    smoke: [{{ get: /smoke, expect: {{ status: 200 }} }}]
    analysis: [{{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }}]
    progress_deadline: 12s
"
    )
}

/// More of the service: a smoke test that fails in the mood `unfit`, an answer that takes three seconds, a connection that is
/// switched to lines which come back with the version.
const MORE: &str = r#"
        if self.path == "/smoke":
            code = 500 if mood == "unfit" else 200
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b"3\r\n%s\r\n" % version.encode())
                time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")
            return
        if self.path == "/socket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            for line in self.rfile:
                self.wfile.write(version.encode() + b" " + line)
            self.close_connection = True
            return
        if self.path.startswith("/slow"):"#;

/// A site where 1.0 serves by `strategy`.
pub fn serving(strategy: &str) -> (Site, Shop) {
    let site = Site::started();
    let shop = site.shop();
    shop.edit(
        "shop.py",
        "\n        if self.path.startswith(\"/slow\"):",
        MORE,
    );
    shop.write("shipway.yaml", &config(strategy));
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("#1 serves production"), "{told}");
    (site, shop)
}

pub fn load(site: &Site) -> Load {
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    until("the load to be steady", || load.of("1.0") > 20);
    load
}

/// Ships a version in a mood; what the push said.
pub fn ship(shop: &Shop, version: &str, mood: &str) -> String {
    shop.write("MOOD", &format!("{mood}\n"));
    said(&shop.ship(version))
}

/// The only environment, as the API tells it.
pub fn production(site: &Site) -> Value {
    let page = site.get("/api/v1/environments").unwrap();
    let mut places = page["items"].as_array().unwrap().iter();
    let found = places.find(|place| place["environment"] == "production");
    found.unwrap().clone()
}

/// The processes that are where a release's instances are.
pub fn running(site: &Site, release: u64) -> usize {
    let folder = format!("instances/shop.production.{release}/");
    let inside = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd"))
            .is_ok_and(|cwd| cwd.to_string_lossy().contains(&folder))
    };
    site.processes().iter().filter(|pid| inside(pid)).count()
}

/// Asserts that a release has all traffic, and its instances are all there are.
pub fn assert_serves_alone(site: &Site, release: u64, instances: usize) {
    let place = production(site);
    assert_eq!(place["stable"]["number"], release, "{place:#}");
    let shares = place["split"].as_array().unwrap();
    assert_eq!(shares.len(), 1, "{place:#}");
    assert_eq!(shares[0][0], release, "{place:#}");
    let all = place["instances"].as_array().unwrap();
    assert_eq!(all.len(), instances, "{place:#}");
    for other in (1..6).filter(|other| *other != release) {
        assert_eq!(running(site, other), 0, "#{other} still runs");
    }
    assert_eq!(running(site, release), instances);
}

fn assert_never_answered(counts: &BTreeMap<String, u64>, version: &str) {
    let by_it = counts.keys().find(|answer| answer.ends_with(version));
    assert_eq!(by_it, None, "{counts:?}");
}

/// A good release takes over, and every request is answered.
fn a_good_release(strategy: &str) {
    let (site, shop) = serving(strategy);
    let load = load(&site);
    let told = ship(&shop, "1.1", "good");
    assert!(told.contains("#2 serves production"), "{told}");
    until("all traffic on 1.1", || load.of("1.1") > 50);
    assert_all_good(&load.stop());
    site.ended_rollout("production", 2);
    assert_serves_alone(&site, 2, 2);
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
}

/// Releases that never become ready or fail their smoke test never have a user; nobody notices them.
fn an_unfit_release(strategy: &str) {
    let (site, shop) = serving(strategy);
    let load = load(&site);
    for (number, version, mood) in [(2, "1.1", "unfit"), (3, "1.2", "never-ready")] {
        let told = ship(&shop, version, mood);
        assert!(!told.contains("serves production"), "{told}");
        let rollout = site.ended_rollout("production", number);
        assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
        assert_serves_alone(&site, 1, 2);
    }
    let counts = load.stop();
    assert_all_good(&counts);
    assert_never_answered(&counts, "1.1");
    assert_never_answered(&counts, "1.2");
}

/// A release whose answers are bad comes back; only its own answers were bad, and then nobody gets them any more.
fn a_release_with_bad_answers(strategy: &str) {
    let (site, shop) = serving(strategy);
    let load = load(&site);
    // Starting takes a while, so that the batches of a rolling rollout are judged too.
    shop.edit("shipway.yaml", "exec python3", "sleep 3 && exec python3");
    shop.edit("shipway.yaml", "deadline: 12s", "deadline: 1m");
    ship(&shop, "1.1", "bad");
    let rollout = site.ended_rollout("production", 2);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    let why = rollout["rollback_start"]["why"].as_str().unwrap();
    assert!(why.contains("error rate"), "{why}");
    assert_serves_alone(&site, 1, 2);
    let (bad, good) = (load.of("1.1"), load.of("1.0"));
    until("traffic on 1.0", || load.of("1.0") > good + 50);
    assert_eq!(load.of("1.1"), bad, "1.1 answers after the rollback");
    let counts = load.stop();
    let answers: Vec<_> = counts.keys().map(String::as_str).collect();
    assert_eq!(answers, ["200 1.0", "500 1.1"], "{counts:?}");
}

#[test]
fn recreate_loses_no_request() {
    a_good_release(RECREATE);
}

#[test]
fn recreate_with_an_unfit_release_comes_back() {
    an_unfit_release(RECREATE);
}

#[test]
fn recreate_keeps_stable_when_the_artifact_of_the_new_release_is_gone() {
    let (site, shop) = serving(RECREATE);
    let load = load(&site);
    let waits = "strategy: recreate\n    approvals: { count: 1 }";
    shop.edit("shipway.yaml", "strategy: recreate", waits);
    let push = shop.ship_begun("1.1");
    let status = || site.get("/api/v1/rollouts/shop/2").unwrap_or_default()["status"].clone();
    until("the gate", || status() == "waiting");
    fs::remove_dir_all(site.data().join("blobs/sha256")).unwrap();
    assert!(site.shipway(&["approve", "ro2"]).status.success());
    let rollout = site.ended_rollout("production", 2);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    let told = said(&push.wait_with_output().unwrap());
    assert!(told.contains("artifact"), "{told}");
    assert_serves_alone(&site, 1, 2);
    assert_all_good(&load.stop());
}

#[test]
fn rolling_loses_no_request() {
    a_good_release(ROLLING);
}

#[test]
fn rolling_with_an_unfit_release_comes_back() {
    an_unfit_release(ROLLING);
}

#[test]
fn rolling_with_bad_answers_comes_back() {
    a_release_with_bad_answers(ROLLING);
}

#[test]
fn blue_green_loses_no_request() {
    a_good_release(BLUE_GREEN);
}

#[test]
fn blue_green_with_an_unfit_release_comes_back() {
    an_unfit_release(BLUE_GREEN);
}

#[test]
fn blue_green_with_bad_answers_comes_back_while_the_old_set_is_warm() {
    a_release_with_bad_answers(BLUE_GREEN);
}

#[test]
fn canary_loses_no_request() {
    a_good_release(CANARY);
}

#[test]
fn canary_with_an_unfit_release_comes_back() {
    an_unfit_release(CANARY);
}

#[test]
fn canary_with_bad_answers_comes_back() {
    a_release_with_bad_answers(CANARY);
}
