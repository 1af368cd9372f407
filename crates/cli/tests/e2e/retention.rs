//! Old artifacts, logs and workspaces: what is removed, and what stays whatever happens.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::json;

use crate::{
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const CONFIG: &str = "
service: shop
artifact: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments: { production: { path: /shop, strategy: recreate, drain: 1s } }
";

/// Retains nothing that no service needs.
fn site_with_short_rule() -> Site {
    let mut site = Site::new();
    let rule = ["--keep-for", "1s", "--keep-releases", "1"];
    site.flags = rule.map(str::to_owned).to_vec();
    site.start();
    site
}

/// The sizes of all files below a folder.
fn sizes(folder: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path().is_dir() {
            true => found.extend(sizes(&entry.path())),
            false => found.extend(entry.metadata().map(|it| it.len())),
        }
    }
    found
}

#[test]
fn an_old_release_is_removed_and_refused_and_those_that_can_be_rolled_back_to_stay() {
    let site = site_with_short_rule();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    let workflow = ".github/workflows/cd.yml";
    let large =
        "      - run: head -c 2000000 /dev/urandom > large\n      - uses: actions/upload-artifact";
    shop.edit(workflow, "      - uses: actions/upload-artifact", large);
    shop.edit(workflow, "\\nMOOD\"", "\\nMOOD\\nlarge\"");
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop.write("MOOD", "exits\n");
    assert_silent_of(&said(&shop.ship("1.1")), &["#2 serves"]);
    shop.write("MOOD", "good\n");
    for (version, serves) in [
        ("2.0", "#3 serves production"),
        ("3.0", "#4 serves production"),
    ] {
        assert_says(&said(&shop.ship(version)), &[serves]);
    }
    let blobs = site.data().join("blobs/sha256");
    assert_eq!(sizes(&blobs).len(), 4);
    let used = || -> u64 {
        let folders = ["blobs", "runs"].map(|name| sizes(&site.data().join(name)));
        folders.iter().flatten().sum()
    };
    let before = used();
    let mut shown = String::new();
    until("the grace period to be over", || {
        let dry = site.shipway(&["admin", "prune", "--dry-run"]);
        shown = said(&dry);
        shown.contains("would remove 1 artifact") && shown.contains("4 runs")
    });
    assert_says(&shown, &["4 runs", "shop/r1, shop/r2", "shop #2"]);
    assert_silent_of(&shown, &["#1", "#3", "#4"]);
    assert_eq!(sizes(&blobs).len(), 4, "a dry run changes nothing");
    assert!(site.data().join("runs/shop/1").exists());

    let pruned = site.shipway(&["admin", "prune"]);
    let words = ["removed 1 artifact", "removed 4 runs", "shop #2"];
    assert_ends(&pruned, 0, &words);
    assert_eq!(sizes(&blobs).len(), 3);
    assert!(!site.data().join("runs/shop/1").exists());
    let after = used();
    assert!(after + 2_000_000 < before, "{before} to {after}");
    assert_ends(
        &site.shipway(&["admin", "prune"]),
        0,
        &["removed 0 artifacts"],
    );

    let refused = site.shipway(&["deploy", "--release", "2"]);
    let words = [
        "release #2 can't be deployed",
        "retention rule",
        "git commit",
    ];
    assert_ends(&refused, 1, &words);
    let (status, _) = site.post("/api/v1/services/shop/deploys", &json!({ "release": 2 }));
    assert_eq!(status, 409);
    let releases = site.get("/api/v1/services/shop/releases").unwrap();
    let is_removed = |index: usize| releases["items"][index]["is_artifact_removed"].clone();
    assert_eq!(is_removed(2), true, "{releases}");
    assert!(is_removed(3).is_null(), "{releases}");
    let page = ureq::get(site.url("/services/shop"))
        .call()
        .unwrap()
        .into_body()
        .read_to_string();
    assert_says(&page.unwrap(), &["the artifact was removed"]);

    let rerun = "/api/v1/runs/shop/2/rerun";
    let (status, refused) = site.post(rerun, &json!({ "job": "build" }));
    assert_eq!(status, 409, "{refused}");
    let words = ["artifact shop was removed", "shipway retry shop/r2"];
    assert_says(&refused.to_string(), &words);
    let (status, run) = site.post(rerun, &json!({}));
    assert_eq!(status, 200, "{run}");
    until("the run to have its artifact again", || {
        let run = site.get("/api/v1/runs/shop/2").unwrap();
        run["status"] == "success" && run["attempt"] == 2
    });

    let rollback = ["rollback", "--env", "production", "--watch"];
    assert_ends(&site.shipway(&rollback), 0, &[]);
    assert_eq!(site.ask("/shop").unwrap().1, "2.0");
    let first = ["deploy", "--release", "1", "--env", "production", "--watch"];
    assert_ends(&site.shipway(&first), 0, &[]);
    assert_eq!(site.ask("/shop").unwrap().1, "1.0");
    let log = site.shipway(&["logs", "shop/r1"]);
    assert_says(&said(&log), &["the retention rule has removed it"]);
    let listed = std::process::Command::new("git")
        .args(["ls-remote", &site.url("/git/shop")])
        .output()
        .unwrap();
    assert_says(&said(&listed), &["refs/heads/main"]);
    assert_silent_of(&said(&listed), &["refs/shipway"]);
    let packed = fs::read_dir(site.data().join("git/shop.git/refs/shipway/retained"));
    assert!(
        packed.is_ok_and(|mut refs| refs.next().is_some())
            || fs::read_to_string(site.data().join("git/shop.git/packed-refs"))
                .unwrap()
                .contains("refs/shipway/retained")
    );
}

#[test]
fn a_server_that_is_killed_while_it_removes_files_removes_the_rest_after_its_restart() {
    let mut site = site_with_short_rule();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    site.kill();
    let blobs = site.data().join("blobs/sha256");
    for number in 0..20_000 {
        let folder = blobs.join(format!("{:02x}", number % 256));
        fs::create_dir_all(&folder).unwrap();
        let file = fs::File::create(folder.join(format!("{number:062x}"))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    for entry in fs::read_dir(&blobs).unwrap().flatten() {
        let old = SystemTime::now() - Duration::from_secs(3_600);
        for file in fs::read_dir(entry.path()).unwrap().flatten() {
            fs::File::open(file.path())
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
    }
    assert_eq!(sizes(&blobs).len(), 20_001);
    let mut command = site.command();
    let log = fs::File::create(site.folder.path().join("killed.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mut killed = command.spawn().unwrap();
    until("the first file to be removed", || {
        sizes(&blobs).len() < 20_001
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    println!("{} files were left by the kill", sizes(&blobs).len());

    site.start();
    until("the start to remove the rest", || sizes(&blobs).len() == 1);
    until("the removal to be logged", || {
        site.log().contains("old files were removed")
    });
    let again = ["deploy", "--release", "1", "--force", "--watch"];
    assert_ends(&site.shipway(&again), 0, &[]);
    assert_eq!(site.ask("/shop").unwrap().1, "1.0");
}
