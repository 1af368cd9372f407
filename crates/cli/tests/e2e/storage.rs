//! What jobs leave is stored or they fail; and a log that lost its last events releases nothing of what it forgot.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says},
};

const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  production: { strategy: recreate, drain: 1s }
";

/// Needs more than twice the room of its artifact: for the file, its tar, and the tar's place among the artifacts.
const LARGE: &str = "
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: head -c 20000000 /dev/urandom > large
      - uses: actions/upload-artifact@v4
        with: { name: large, path: large }
";

/// A file system of its own for a data directory.
struct SmallDisk {
    mounted: tempfile::TempDir,
}

impl SmallDisk {
    /// None where this test may not mount.
    fn mount() -> Option<Self> {
        let mounted = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"])
            .arg(mounted.path())
            .stderr(Stdio::null())
            .status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Self { mounted });
        }
        println!("skipped, because no file system may be mounted here");
        None
    }

    /// Fills it but for so many MiB; gives the file that does.
    fn fill_up_to(&self, left_mib: u64) -> std::path::PathBuf {
        let ballast = self.mounted.path().join("ballast");
        let free = rustix::fs::statvfs(self.mounted.path()).unwrap();
        let free_mib = (free.f_bavail * free.f_frsize) >> 20;
        let size = (free_mib - left_mib) << 20;
        fs::write(&ballast, vec![0; usize::try_from(size).unwrap()]).unwrap();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.mounted.path())
            .status();
    }
}

/// A server whose data directory is on the disk.
fn site_on(disk: &SmallDisk, wait: &str) -> (Site, Shop) {
    let mut site = Site::new();
    site.flags = vec!["--storage-wait".to_owned(), wait.to_owned()];
    let data = disk.mounted.path().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(data, site.data()).unwrap();
    site.start();
    let shop = site.shop();
    shop.write(".github/workflows/cd.yml", LARGE);
    (site, shop)
}

fn run(site: &Site) -> Value {
    site.get("/api/v1/runs/shop/1").unwrap_or(Value::Null)
}

#[test]
fn an_artifact_waits_for_space_and_the_job_with_it() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let (site, shop) = site_on(&disk, "90s");
    let ballast = disk.fill_up_to(50);
    let push = shop.ship_begun("1.0");
    let waits = || {
        run(&site)["jobs"][0]["waits_for"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    until("the artifact to wait", || !waits().is_empty());
    assert_says(
        &waits(),
        &[
            "the artifact large can't be stored",
            "No space left",
            "retrying",
        ],
    );
    assert_eq!(run(&site)["status"], "running");
    let mut ready = ureq::get(site.url("/readyz"))
        .config()
        .http_status_as_error(false)
        .build()
        .call()
        .unwrap();
    assert_eq!(ready.status(), 503);
    let ready: Value = ready.body_mut().read_json().unwrap();
    let reason = ready["reasons"]["artifacts"].as_str().unwrap_or_default();
    assert_says(reason, &["the artifact large can't be stored"]);
    fs::remove_file(ballast).unwrap();
    let told = said(&push.wait_with_output().unwrap());
    assert_says(
        &told,
        &["the artifact large can't be stored", "run r1 succeeded"],
    );
    assert_eq!(run(&site)["artifacts"][0]["name"], "large");
    assert!(site.get("/readyz").is_some());
}

#[test]
fn an_artifact_that_finds_no_space_fails_its_job_which_can_be_run_again() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let (site, shop) = site_on(&disk, "1s");
    let ballast = disk.fill_up_to(50);
    let told = said(&shop.ship("1.0"));
    assert_says(
        &told,
        &["run r1 failed", "the artifact large could not be stored"],
    );
    let why = run(&site)["jobs"][0]["why"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_says(
        &why,
        &["the artifact large could not be stored", "No space left"],
    );
    fs::remove_file(ballast).unwrap();
    let again = site.shipway(&["retry", "r1", "--failed"]);
    assert!(again.status.success(), "{}", said(&again));
    until("the run to be green", || run(&site)["status"] == "success");
    assert_eq!(run(&site)["artifacts"][0]["name"], "large");
}

/// Of the bytes of a release, only what its own run has made is served.
fn ship(shop: &Shop, site: &Site, version: &str) -> String {
    let told = said(&shop.ship(version));
    let served = site.ask("/shop/");
    assert_eq!(
        served,
        Some((200, version.to_owned())),
        "{told}\n{}",
        site.log()
    );
    told
}

#[test]
fn a_log_that_lost_its_tail_releases_nothing_of_what_it_forgot() {
    let mut site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    ship(&shop, &site, "1.0");
    site.stop();
    let log = site.data().join("shipway.db");
    let copy = site.folder.path().join("copy.db");
    fs::copy(&log, &copy).unwrap();
    site.start();
    ship(&shop, &site, "2.0");
    site.kill();
    // The copy of the log is put back; r2 and #2 are forgotten, their files are not.
    forget_since(&log, &copy);
    shop.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let git = format!("--git-dir={}", site.data().join("git/shop.git").display());
    shop.git(&[&git, "update-ref", "refs/heads/main", "refs/heads/main~1"]);
    site.start();
    let told = ship(&shop, &site, "3.0");
    assert_says(&told, &["r2", "#2 serves production"]);
    let aside = site.data().join("set-aside");
    assert!(aside.join("run-shop-2.1/build/journal.jsonl").exists());
    assert!(aside.join("instances-shop.production.2.1").exists());
    let logged = site.log();
    assert_says(
        &logged,
        &["files of a run that is not in the log were moved aside"],
    );
}

fn forget_since(log: &Path, copy: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", log.display()));
    }
    fs::copy(copy, log).unwrap();
}

#[test]
fn a_used_data_directory_without_its_log_is_refused_until_a_new_log_is_wanted() {
    let mut site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    ship(&shop, &site, "1.0");
    site.stop();
    let log = site.data().join("shipway.db");
    fs::rename(&log, site.folder.path().join("lost.db")).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", log.display()));
    }
    let words = ["was used before", "1 services with runs", "--new-log"];
    for missing in ["is missing", "is empty"] {
        let refused = site.command().output().unwrap();
        assert_ends(&refused, 2, &words);
        assert_says(&said(&refused), &[missing]);
        fs::write(&log, "").unwrap();
    }
    site.flags = vec!["--new-log".to_owned()];
    site.start();
    ship(&shop, &site, "2.0");
    let run: Value = site.get("/api/v1/runs/shop/1").unwrap();
    assert_eq!(run["status"], "success", "numbers begin anew, and jobs ran");
    assert_says(&site.log(), &["starting with an empty event log"]);
}

#[test]
fn a_damaged_artifact_is_replaced_when_the_job_runs_again() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    ship(&shop, &site, "1.0");
    let digest = run(&site)["artifacts"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let hex = digest.trim_start_matches("sha256:");
    let blob = site
        .data()
        .join("blobs/sha256")
        .join(&hex[..2])
        .join(&hex[2..]);
    let right = fs::read(&blob).unwrap();
    fs::write(&blob, "wrong").unwrap();
    let again = site.shipway(&["retry", "r1"]);
    assert!(again.status.success(), "{}", said(&again));
    until("the right bytes to be there", || {
        fs::read(&blob).unwrap() == right
    });
}
