//! Services that don't behave: they leave, never get ready, die, or don't listen. What served goes on serving.

use std::time::{Duration, Instant};

use crate::{
    load::{Load, assert_all_good},
    shop::Shop,
    site::{Site, processes_with, said, until},
    words::assert_says,
};

/// Production alone, two instances, quick to give up.
const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
  grace: 500ms
environments:
  production:
    instances: 2
    strategy: rolling
    progress_deadline: 15s
    drain: 1s
";

/// A release 1.0 that serves.
fn serving(site: &Site) -> Shop {
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    let told = said(&shop.ship("1.0"));
    assert_says(&told, &["#1 serves production"]);
    shop
}

/// A push in a mood that can't be shipped: nobody notices, and the message says these words.
fn assert_nobody_notices(mood: &str, words: &[&str]) {
    let site = Site::started();
    let shop = serving(&site);
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    shop.write("MOOD", mood);
    let told = said(&shop.ship("1.1"));
    assert_says(&told, words);
    let rollout = site.ended_rollout("production", 2);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    let counts = load.stop();
    assert_all_good(&counts);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["200 1.0"], "{counts:?}");
    let status = said(&site.shipway(&["status"]));
    assert_says(&status, &["#1", "2/2 ready"]);
    let history = said(&site.shipway(&["history"]));
    assert_says(&history, &["rolled back"]);
    assert_says(&history, words);
}

#[test]
fn a_command_that_ends_at_once_fails_with_its_last_words() {
    assert_nobody_notices("exits", &["the shop: no stock, leaving", "exit code 1"]);
}

#[test]
fn a_command_that_never_gets_ready_fails_at_its_deadline() {
    assert_nobody_notices("never-ready", &["not ready within 15 s", "/ready", "503"]);
}

#[test]
fn a_command_that_is_not_there_fails_with_what_the_shell_says() {
    let site = Site::started();
    let shop = serving(&site);
    shop.edit("shipway.yaml", "exec python3 shop.py", "./nowhere");
    let told = said(&shop.ship("1.1"));
    assert_says(&told, &["nowhere", "not found", "127"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}

#[test]
fn an_instance_that_dies_is_started_again_while_the_other_serves() {
    let site = Site::started();
    let _shop = serving(&site);
    let before = instances(&site);
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    // The instance's own answer to this is its death: the proxy says 502, or asks the other one.
    let _ = site.ask("/shop/exit");
    until("another process in its place", || {
        let now = instances(&site);
        now.len() == 2 && now != before
    });
    // What the dying one was answering just then is lost; nothing after it.
    let counts = load.stop();
    let good = counts["200 1.0"];
    assert!(counts.values().sum::<u64>() - good <= 4, "{counts:?}");
    until("both are ready", || {
        said(&site.shipway(&["status"])).contains("2/2 ready")
    });
}

#[test]
fn a_service_that_ignores_sigterm_is_killed_after_its_grace() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    shop.write("MOOD", "deaf");
    // A child of its own, in the same group.
    shop.edit(
        "shipway.yaml",
        "exec python3 shop.py",
        "sleep 987654 & exec python3 shop.py",
    );
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let folder = site.data().join("instances").to_string_lossy().into_owned();
    assert_eq!(children(&folder), 2);
    shop.write("MOOD", "good");
    shop.edit("shipway.yaml", "sleep 987654 & ", "");
    let begun = Instant::now();
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
    until("the deaf ones and their children to be gone", || {
        children(&folder) == 0 && instances(&site).len() == 2
    });
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
}

/// The sleeping children of instances below this folder.
fn children(folder: &str) -> usize {
    let inside = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/cwd"))
            .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(folder))
    };
    processes_with(&["sleep", "987654"])
        .iter()
        .filter(|pid| inside(pid))
        .count()
}

/// The processes of the shop's instances.
fn instances(site: &Site) -> Vec<u32> {
    let shops = processes_with(&["python3", "shop.py"]);
    let mine = site.processes();
    let mut found: Vec<_> = shops.into_iter().filter(|pid| mine.contains(pid)).collect();
    found.sort_unstable();
    found
}
