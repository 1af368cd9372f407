//! Jobs whose workers share no disk with the server: they have an empty folder, their spec, an address and a token.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
};

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{Site, until},
};

/// Starts a server; each worker gets an empty folder below the returned path.
fn site() -> (Site, PathBuf) {
    let mut site = Site::new();
    let elsewhere = site.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    site.flags = vec![
        "--jobs-in-empty-folders".to_owned(),
        elsewhere.display().to_string(),
    ];
    site.start();
    (site, elsewhere)
}

/// Pushes a workflow to a branch that isn't deployed.
fn push_workflow(site: &Site, text: &str) -> (Shop, Child) {
    let shop = site.shop();
    shop.commit("0.9");
    shop.write(".github/workflows/cd.yml", text);
    shop.commit("1.0");
    let push = shop.push_begun("main:work");
    (shop, push)
}

fn run(site: &Site) -> Value {
    site.get("/api/v1/runs/shop/1").unwrap_or_default()
}

fn log(site: &Site, job: &str) -> String {
    let path = site.url(&format!("/api/v1/runs/shop/1/jobs/{job}/log"));
    match ureq::get(path).call() {
        Ok(mut answer) => answer.body_mut().read_to_string().unwrap_or_default(),
        Err(_) => String::new(),
    }
}

fn await_end(site: &Site) -> Value {
    until("the end of the run", || !run(site)["finished_at"].is_null());
    run(site)
}

/// The log in the folder of the only worker.
fn worker_log(elsewhere: &Path) -> String {
    let mut folders = fs::read_dir(elsewhere).unwrap().flatten();
    let folder = folders.next().map(|entry| entry.path());
    let log = folder.and_then(|folder| fs::read_to_string(folder.join("log")).ok());
    log.unwrap_or_default()
}

const BUILD_AND_CHECK: &str = "
on: push
jobs:
  build:
    runs-on: linux
    steps:
      - uses: actions/checkout@v4
      - run: echo \"version $(cat VERSION), $(git rev-list --count HEAD) commits, in $PWD\"
      - run: cat .git/objects/info/alternates
      - run: echo '# Built elsewhere' >> $GITHUB_STEP_SUMMARY
      - run: mkdir dist && head -c 3000000 /dev/urandom > dist/big && sha256sum < dist/big > dist/sum
      - uses: actions/upload-artifact@v4
        with: { name: dist, path: dist }
      - run: for i in $(seq 60); do echo line $i; sleep 0.05; done; until [ -e END ]; do sleep 0.05; done
  check:
    needs: build
    runs-on: linux
    steps:
      - uses: actions/download-artifact@v4
        with: { name: dist }
      - run: test \"$(sha256sum < big)\" = \"$(cat sum)\" && echo the same bytes
";

#[test]
fn a_worker_without_a_shared_disk_fetches_its_inputs_and_its_records_outlive_a_killed_server() {
    let (mut site, elsewhere) = site();
    let end = site.folder.path().join("end");
    let text = BUILD_AND_CHECK.replace("END", &end.display().to_string());
    let (_shop, mut push) = push_workflow(&site, &text);
    until("some lines", || log(&site, "build").contains(" line 20"));
    site.kill();
    // The job goes on without a server.
    until("the last line", || {
        worker_log(&elsewhere).contains(" line 60\n")
    });
    fs::write(&end, "").unwrap();
    site.start();
    let ended = await_end(&site);
    push.wait().unwrap();
    let built = log(&site, "build");
    assert_eq!(ended["status"], "success", "{:#}\n{built}", ended["why"]);
    for number in 1..=60 {
        let line = format!(" line {number}\n");
        assert_eq!(built.matches(&line).count(), 1, "{line}{built}");
    }
    let place = format!("version 1.0, 2 commits, in {}", elsewhere.display());
    assert!(built.contains(&place), "{built}");
    // The objects are the worker's own, not the server's.
    assert!(
        !built.contains(&site.data().display().to_string()),
        "{built}"
    );
    assert!(log(&site, "check").contains("the same bytes"));
    assert_eq!(ended["jobs"][0]["summary"], "# Built elsewhere");
    assert_eq!(ended["artifacts"][0]["name"], "dist");
}

const SLEEPS: &str = "
on: push
jobs:
  build:
    runs-on: linux
    steps:
      - run: echo asleep; sleep 600
      - if: always()
        run: echo cleaned up
";

#[test]
fn a_job_elsewhere_is_cancelled_and_cleans_up() {
    let (site, elsewhere) = site();
    let (_shop, mut push) = push_workflow(&site, SLEEPS);
    until("the step to begin", || {
        log(&site, "build").contains("asleep")
    });
    let (status, _) = site.post("/api/v1/runs/shop/1/cancel", &json!({}));
    assert_eq!(status, 200);
    let ended = await_end(&site);
    push.wait().unwrap();
    assert_eq!(ended["status"], "cancelled");
    until("the worker to leave nothing", || {
        fs::read_dir(&elsewhere).unwrap().next().is_none()
    });
    let text = log(&site, "build");
    assert!(text.contains("cleaned up"), "{text}");
}
