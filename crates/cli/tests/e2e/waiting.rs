//! What runs and jobs wait for: their turn in a concurrency group, people who approve; and the secrets that come only then.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Output};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

/// A repository whose pushes run this workflow, and are released nowhere.
fn repository(site: &Site, workflow: &str) -> Shop {
    let shop = site.shop();
    shop.write(".github/workflows/cd.yml", workflow);
    shop
}

fn run(site: &Site, number: u32) -> Value {
    site.get(&format!("/api/v1/runs/shop/{number}"))
        .unwrap_or(Value::Null)
}

fn is(site: &Site, number: u32, status: &str) -> bool {
    run(site, number)["status"] == status
}

/// A job of a run, by its key.
fn job(site: &Site, number: u32, key: &str) -> Value {
    let run = run(site, number);
    let jobs = run["jobs"].as_array().cloned().unwrap_or_default();
    jobs.into_iter()
        .find(|job| job["key"] == key)
        .unwrap_or(Value::Null)
}

fn log(site: &Site, run: &str) -> String {
    said(&site.shipway(&["logs", run]))
}

/// Takes as long as the file `go` isn't there.
fn waits_for(site: &Site) -> (PathBuf, String) {
    let go = site.folder.path().join("go");
    let step = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    (go, step)
}

#[test]
fn a_newer_push_cancels_the_run_in_progress_and_takes_its_place() {
    let site = Site::started();
    let (_, step) = waits_for(&site);
    let shop = repository(
        &site,
        &format!(
            "on: push
concurrency: {{ group: 'ci-${{{{ github.ref }}}}', cancel-in-progress: true }}
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - if: hashFiles('quick') == ''
        run: {step}
      - run: echo done
"
        ),
    );
    let first = shop.ship_begun("1.0");
    until("the first run to be under way", || {
        job(&site, 1, "a")["status"] == "running"
    });
    shop.edit(
        ".github/workflows/cd.yml",
        "        run: until",
        "        run: exit 0; until",
    );
    let second = said(&shop.ship("1.1"));
    assert_says(
        &second,
        &[
            "waiting for the concurrency group, held by r1",
            "run r2 succeeded",
        ],
    );
    assert_says(
        &said(&first.wait_with_output().unwrap()),
        &["cancelling: r2 is in the same concurrency group, with `cancel-in-progress`"],
    );
    let cancelled = run(&site, 1);
    assert_eq!(cancelled["status"], "cancelled", "{cancelled:#}");
    assert!(is(&site, 2, "success"));
}

#[test]
fn one_waits_its_place_is_taken_and_a_server_that_is_killed_forgets_neither() {
    let mut site = Site::started();
    let (go, step) = waits_for(&site);
    let shop = repository(
        &site,
        &format!(
            "on: push
concurrency: ci
jobs:
  a: {{ runs-on: linux, steps: [{{ run: '{step}' }}] }}
"
        ),
    );
    let pushes = vec![shop.ship_begun("1.0")];
    until("the first run to be under way", || is(&site, 1, "running"));
    let mut pushes = pushes;
    pushes.push(shop.ship_begun("1.1"));
    until("the second to wait", || {
        let run = run(&site, 2);
        run["waits_for"] == "waiting for the concurrency group `ci`, held by r1"
    });
    assert_eq!(run(&site, 2)["status"], "waiting");
    site.kill();
    site.start();
    pushes.push(shop.ship_begun("1.2"));
    until("the second to lose its place", || is(&site, 2, "cancelled"));
    assert_says(
        run(&site, 2)["why"].as_str().unwrap(),
        &["r3 is newer and has taken its place"],
    );
    until("the third to wait", || is(&site, 3, "waiting"));
    site.kill();
    fs::write(go, "").unwrap();
    site.start();
    until("the third to end", || is(&site, 3, "success"));
    assert!(is(&site, 1, "success"));
    for push in pushes {
        push.wait_with_output().unwrap();
    }
}

#[test]
fn jobs_of_a_queue_of_all_go_one_after_the_other() {
    let site = Site::started();
    let trace = site.folder.path().join("trace");
    let shop = repository(
        &site,
        &format!(
            "on: push
jobs:
  a:
    runs-on: linux
    strategy: {{ matrix: {{ n: [1, 2, 3, 4] }} }}
    concurrency: {{ group: DEPLOY, queue: max }}
    steps: [{{ run: 'echo in >> {trace}; sleep 0.1; echo out >> {trace}' }}]
  b:
    runs-on: linux
    concurrency: {{ group: deploy, queue: max }}
    steps: [{{ run: 'echo in >> {trace}; sleep 0.1; echo out >> {trace}' }}]
",
            trace = trace.display()
        ),
    );
    assert_says(&said(&shop.ship("1.0")), &["run r1 succeeded"]);
    let trace = fs::read_to_string(trace).unwrap();
    assert_eq!(trace, "in\nout\n".repeat(5));
}

const GATED: &str = "
name: cd
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps: [{ run: 'echo \"build sees [${{ secrets.KEY }}] [${{ secrets.COMMON }}]\" | rev' }]
  deploy:
    needs: build
    runs-on: ubuntu-latest
    environment: { name: production, url: 'https://example.com/${{ steps.at.outputs.version }}' }
    steps:
      - id: at
        run: |
          echo version=7 >> \"$GITHUB_OUTPUT\"
          echo \"deploy has ${{ secrets.KEY }}\"
          printf '%s' \"${{ secrets.KEY }}\" > \"$GITHUB_WORKSPACE/../seen\"
          echo \"and [${{ secrets.COMMON }}]\" | rev
";

const CONFIG: &str = "
service: shop
run: { command: exec python3 shop.py }
environments:
  production: { approvals: { from: [alice, '@platform'] } }
";

/// A server with secrets, and a push whose job is waiting for approval.
fn gated() -> (Site, Shop, String) {
    let mut site = Site::new();
    let secrets = site.folder.path().join("secrets");
    fs::write(
        &secrets,
        "COMMON=dleh\nKEY=everywhere\n[production]\nKEY=the-late-one-4711\n",
    )
    .unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    site.flags = vec!["--secrets".to_owned(), secrets.display().to_string()];
    site.start();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    shop.write(".github/workflows/cd.yml", GATED);
    let told = said(&shop.ship("1.0"));
    (site, shop, told)
}

fn as_user(site: &Site, name: &str, words: &[&str]) -> Output {
    let words: Vec<&str> = words.iter().copied().chain(["--as", name]).collect();
    site.shipway(&words)
}

#[test]
fn a_job_waits_for_approval_and_gets_the_secrets_of_its_environment_only_then() {
    let (mut site, _shop, told) = gated();
    let asked =
        "waiting for approval by alice or @platform to deploy to production: shipway approve r1";
    assert_says(&told, &[asked]);
    assert_says(
        &said(&site.shipway(&["status"])),
        &["shop/r1 deploy", asked],
    );
    let inbox = site.get("/api/v1/approvals").unwrap();
    assert_eq!(inbox["items"][0]["job"], "deploy", "{inbox:#}");
    assert_eq!(job(&site, 1, "deploy")["status"], "waiting");
    assert!(!site.data().join("runs/shop/1/deploy").exists());

    let refused = as_user(&site, "mallory", &["approve", "r1"]);
    assert_ends(&refused, 3, &["mallory may not approve or reject", "alice"]);
    site.kill();
    site.start();
    assert_eq!(job(&site, 1, "deploy")["status"], "waiting");
    let approved = as_user(&site, "alice", &["approve", "r1"]);
    assert_ends(&approved, 0, &["shop/r1 deploy"]);
    until("the run to end", || is(&site, 1, "success"));

    let deploy = job(&site, 1, "deploy");
    assert_eq!(deploy["environment_url"], "https://example.com/7");
    let log = log(&site, "r1");
    assert_says(
        &log,
        &[
            "deploy has ***",
            "]held[ ]erehwyreve[ sees dliub",
            "]held[ dna",
        ],
    );
    assert_silent_of(&log, &["the-late-one", "4711"]);
    let seen = site.data().join("runs/shop/1/deploy/seen");
    assert_eq!(fs::read_to_string(seen).unwrap(), "the-late-one-4711");
    let late = as_user(&site, "alice", &["approve", "r1"]);
    assert_ends(&late, 1, &["no job of shop/r1 is waiting for approval"]);
    // Nowhere in what the server keeps: what it was told is in its file of secrets alone.
    let database = fs::read(site.data().join("shipway.db")).unwrap();
    assert!(!database.windows(17).any(|it| it == b"the-late-one-4711"));
}

#[test]
fn a_job_that_is_rejected_fails_with_the_reason() {
    let (site, _shop, _) = gated();
    let path = "/api/v1/runs/shop/1/jobs/build/reject";
    let (status, problem) = site.post(path, &serde_json::json!({}));
    assert_eq!(status, 409, "{problem:#}");
    let rejected = as_user(
        &site,
        "alice",
        &["reject", "r1", "--reason", "not on a Friday"],
    );
    assert_ends(&rejected, 0, &["rejected by alice: not on a Friday"]);
    until("the run to end", || is(&site, 1, "failure"));
    assert!(!site.data().join("runs/shop/1/deploy").exists());
}
