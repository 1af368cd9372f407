//! What is wrong on purpose, or broken underneath: links that lead out, damaged artifacts, steps that deploy to nowhere.

use std::fs;

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const HEAD: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
";

const PRODUCTION: &str = "environments: { production: { strategy: rolling, drain: 1s } }\n";

fn shop(site: &Site, artifact: &str) -> Shop {
    let shop = site.shop();
    shop.write("shipway.yaml", &format!("{HEAD}{artifact}{PRODUCTION}"));
    shop
}

#[test]
fn a_tree_with_a_link_that_leads_out_is_refused_by_name() {
    let site = Site::started();
    let shop = shop(&site, "artifact: { source: . }\n");
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    std::os::unix::fs::symlink("../../../../../../etc", shop.path.join("config")).unwrap();
    let told = said(&shop.ship("1.1"));
    assert_says(
        &told,
        &[
            "the artifact can't be unpacked",
            "the link config → ../../../../../../etc points outside its folder",
        ],
    );
    assert_eq!(site.ended_rollout("production", 2)["status"], "rolled_back");
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}

#[test]
fn an_artifact_that_is_damaged_is_never_started() {
    let mut site = Site::started();
    let shop = shop(&site, "");
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
    // The bytes of 1.0 are changed where they are kept, and what was unpacked of them is gone.
    let release = &site.get("/api/v1/services/shop/releases").unwrap()["items"][1];
    assert_eq!(release["number"], 1, "{release:#}");
    let digest = release["artifact"].as_str().unwrap().to_owned();
    let hex = digest.trim_start_matches("sha256:");
    let blob = find(&site.data().join("blobs"), hex).expect("the blob");
    let mut permissions = fs::metadata(&blob).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&blob, permissions).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let back = site.shipway(&["rollback", "--env", "production", "--watch"]);
    let told = said(&back);
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())), "{told}");
    assert_ends(&back, 1, &["artifact", "#2 serves all traffic"]);
    site.stop();
    site.start();
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
}

/// The file below a folder whose path ends in these hexadecimal digits, however they are spread over folders.
fn find(folder: &std::path::Path, hex: &str) -> Option<std::path::PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return find(&path, hex);
        }
        let whole: String = path.to_string_lossy().replace('/', "");
        whole.ends_with(hex).then_some(path)
    })
}

const DEPLOYS: &str = "
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: \"shop.py\\nVERSION\\nMOOD\" }
      - uses: shipway/deploy@v1
        with: { environment: production }
";

#[test]
fn a_step_deploys_in_the_pushers_name() {
    let site = Site::started();
    let shop = shop(&site, "");
    shop.write(".github/workflows/cd.yml", DEPLOYS);
    let told = said(&shop.ship("1.0"));
    assert_says(&told, &["#1 serves production", "run r1 succeeded"]);
    let rollout = site.ended_rollout("production", 1);
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    assert_eq!(rollout["by"], "Ann <ann@example.com>");
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}

#[test]
fn a_step_that_deploys_to_nowhere_is_red_and_says_where_it_can() {
    let site = Site::started();
    let shop = shop(&site, "");
    shop.write(
        ".github/workflows/cd.yml",
        &DEPLOYS.replace("environment: production", "environment: prodaction"),
    );
    let told = said(&shop.ship("1.0"));
    assert_says(
        &told,
        &["run r1 failed", "not released: not successful: r1"],
    );
    assert_says(&told, &["prodaction", "production"]);
    let logs = site.shipway(&["logs", "r1"]);
    assert_ends(
        &logs,
        0,
        &["has no environment", "prodaction", "production"],
    );
    assert!(site.rollouts().is_empty());
}

#[test]
fn a_pusher_who_goes_away_stops_nothing() {
    let site = Site::started();
    let shop = shop(&site, "");
    shop.edit(
        ".github/workflows/cd.yml",
        "- run: python3",
        "- run: sleep 2\n      - run: python3",
    );
    shop.commit("1.0");
    let mut push = shop.push_begun("main");
    until("the run", || {
        site.get("/api/v1/runs/shop/1")
            .is_some_and(|run| run["status"] == "running")
    });
    push.kill().unwrap();
    push.wait().unwrap();
    assert_eq!(site.ended_rollout("production", 1)["status"], "promoted");
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}

#[test]
fn a_forced_push_of_an_older_commit_is_a_release_of_its_own() {
    let site = Site::started();
    let shop = shop(&site, "");
    shop.ship("1.0");
    shop.ship("1.1");
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
    let refused = shop.push("main~1:main");
    assert!(!refused.status.success());
    let told = said(&shop.push("+main~1:main"));
    assert_says(&told, &["#3 serves production"]);
    assert_silent_of(&told, &["not released"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}
