//! Workflows that call workflows, as they are pushed and as they are run here.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::Value;

use crate::{
    site::{SHIPWAY, Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const CALLER: &str = "
name: cd
run-name: Ship ${{ github.ref_name }}
on: push
env: { OUTER: outer }
jobs:
  version:
    runs-on: ubuntu-latest
    outputs: { v: \"${{ steps.v.outputs.v }}\" }
    steps: [{ id: v, run: echo v=1.2 >> \"$GITHUB_OUTPUT\" }]
  build:
    needs: version
    uses: ./.github/workflows/build.yml
    with: { version: \"${{ needs.version.outputs.v }}\", loud: true }
    secrets: inherit
  report:
    needs: build
    runs-on: ubuntu-latest
    steps: [{ run: \"test '${{ needs.build.outputs.what }}' = 'shop-1.2'\" }]
";

const BUILD: &str = "
on:
  workflow_call:
    inputs: { version: { type: string, required: true }, loud: { type: boolean } }
    outputs: { what: { value: \"${{ jobs.pack.outputs.what }}\" } }
    secrets: { KEY: { required: true } }
env: { INNER: inner }
jobs:
  pack:
    runs-on: ubuntu-latest
    outputs: { what: \"${{ steps.w.outputs.what }}\" }
    steps:
      - uses: actions/checkout@v4
      - run: echo \"key ${{ secrets.KEY }} loud=${{ inputs.loud }} [$OUTER] [$INNER] of $GITHUB_JOB\"
      - { id: w, run: \"echo what=shop-${{ inputs.version }} >> $GITHUB_OUTPUT\" }
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: \"shop.py\\nVERSION\\nMOOD\" }
  check:
    needs: pack
    uses: ./.github/workflows/check.yml
";

const CHECK: &str = "
on: workflow_call
jobs:
  lint:
    runs-on: ubuntu-latest
    strategy: { matrix: { tool: [a, b] } }
    steps: [{ run: 'echo ${{ matrix.tool }}' }]
";

fn with_secrets(site: &mut Site) {
    let secrets = site.folder.path().join("secrets");
    fs::write(&secrets, "KEY=hunter2hunter2\n").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let path = secrets.to_string_lossy().into_owned();
    site.flags.extend(["--secrets".to_owned(), path]);
}

fn write_workflows(folder: &Path) {
    for (name, text) in [("cd", CALLER), ("build", BUILD), ("check", CHECK)] {
        fs::write(folder.join(format!(".github/workflows/{name}.yml")), text).unwrap();
    }
}

fn jobs(run: &Value) -> Vec<String> {
    let jobs = run["jobs"].as_array().cloned().unwrap_or_default();
    let shown = |job: &Value| format!("{} {}", job["name"], job["status"]).replace('"', "");
    jobs.iter().map(shown).collect()
}

#[test]
fn a_pushed_workflow_calls_others_and_is_released() {
    let mut site = Site::new();
    with_secrets(&mut site);
    site.start();
    let shop = site.shop();
    write_workflows(&shop.path);
    let pushed = shop.ship("1.2");
    assert_ends(
        &pushed,
        0,
        &["✓ build~check~lint.2", "#1 serves production"],
    );
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    assert_eq!(
        jobs(&run),
        [
            "version success",
            "build success",
            "build / pack success",
            "build / check success",
            "build / check / lint (a) success",
            "build / check / lint (b) success",
            "report success",
        ],
        "{run:#}"
    );
    assert_eq!(run["title"], "Ship main", "{run:#}");
    let log = site.shipway(&["logs", "r1", "--job", "build~pack"]);
    assert_says(&said(&log), &["key *** loud=true [] [inner] of pack"]);
    assert_silent_of(&said(&log), &["hunter2"]);
    let page = ureq_text(&site, "/runs/shop/1");
    assert_says(&page, &["build / check / lint (b)", "<h1><bdi>Ship main"]);
    assert_says(&ureq_text(&site, "/services/shop"), &["Ship main"]);
    let watched = said(&site.shipway(&["watch", "r1"]));
    assert_says(&watched, &["shop/r1: Ship main"]);
}

fn ureq_text(site: &Site, path: &str) -> String {
    let mut answer = ureq::get(site.url(path)).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

#[test]
fn a_call_of_what_is_not_there_fails_the_run_and_says_where() {
    let site = Site::started();
    let shop = site.shop();
    write_workflows(&shop.path);
    fs::remove_file(shop.path.join(".github/workflows/check.yml")).unwrap();
    let pushed = shop.ship("1.2");
    let why = ".github/workflows/build.yml:20:11: error: .github/workflows/check.yml can't be called: it is not in the commit";
    assert_says(&said(&pushed), &[why]);
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    assert_eq!(
        (&run["status"], &run["why"]),
        (&"failure".into(), &why.into())
    );
}

#[test]
fn workflows_are_called_without_a_server_too() {
    let folder = tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap();
    fs::create_dir_all(folder.path().join(".github/workflows")).unwrap();
    write_workflows(folder.path());
    for name in ["shop.py", "VERSION", "MOOD"] {
        fs::write(folder.path().join(name), "1\n").unwrap();
    }
    let run = |words: &[&str]| {
        let mut command = Command::new(SHIPWAY);
        command
            .current_dir(folder.path())
            .args(["run", "cd.yml"])
            .args(words);
        command.env_remove("SHIPWAY_URL").output().unwrap()
    };
    let done = run(&["--secret", "KEY=hunter2hunter2"]);
    assert_ends(
        &done,
        0,
        &[
            "key *** loud=true [] [inner] of pack",
            "✓ build / check / lint (a)",
            "✓ report",
            "cd · Ship main: success",
        ],
    );
    assert_silent_of(&said(&done), &["hunter2"]);
}

/// Gets what another run has stored; the name of the service stands for `owner/repo` as well.
const FETCH: &str = "
on: { workflow_dispatch: { inputs: { run: { type: number } } } }
run-name: Fetch of r${{ inputs.run }}
jobs:
  fetch:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/download-artifact@v4
        with: { name: shop, run-id: \"${{ inputs.run }}\", github-token: \"${{ github.token }}\", path: got }
      - run: echo \"got $(cat got/VERSION) on $GITHUB_REF\"
";

#[test]
fn a_run_by_hand_of_a_tag_gets_what_another_run_has_stored() {
    let site = Site::started();
    let shop = site.shop();
    shop.write(".github/workflows/fetch.yml", FETCH);
    shop.ship("1.0");
    shop.git(&["tag", "v1"]);
    assert!(shop.push("v1").status.success());
    let by_hand = |run: &str| {
        let input = format!("run={run}");
        let words = ["dispatch", "fetch.yml", "--ref", "v1", "--input", &input];
        assert_ends(&site.shipway(&words), 0, &["started"]);
    };
    by_hand("1");
    let of = |number: u32| site.get(&format!("/api/v1/runs/shop/{number}")).unwrap();
    until("the end of r2", || !of(2)["conclusion"].is_null());
    let log = said(&site.shipway(&["logs", "r2"]));
    assert_eq!(of(2)["conclusion"], "success", "{log}");
    assert_says(&log, &["got 1.0 on refs/tags/v1"]);
    assert_eq!(of(2)["title"], "Fetch of r1");
    by_hand("77");
    until("the end of r3", || !of(3)["conclusion"].is_null());
    let log = said(&site.shipway(&["logs", "r3"]));
    assert_eq!(of(3)["conclusion"], "failure", "{log}");
    assert_says(&log, &["no such run: shop/r77"]);
}

const FLAKY: &str = "
name: cd
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs: { v: \"${{ steps.v.outputs.v }}\" }
    steps:
      - uses: actions/checkout@v4
      - { id: v, run: echo v=built-in-$GITHUB_RUN_ATTEMPT >> \"$GITHUB_OUTPUT\" }
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: \"shop.py\\nVERSION\\nMOOD\" }
  test:
    needs: build
    runs-on: ubuntu-latest
    steps: [{ run: \"echo of ${{ needs.build.outputs.v }} in ${{ github.run_attempt }}; test -e SWITCH\" }]
";

#[test]
fn failed_jobs_run_again_and_what_is_green_then_is_released() {
    let site = Site::started();
    let shop = site.shop();
    let switch = site.folder.path().join("switch");
    let flaky = FLAKY.replace("SWITCH", &switch.to_string_lossy());
    shop.write(".github/workflows/cd.yml", &flaky);
    let pushed = shop.ship("1.0");
    assert_says(&said(&pushed), &["not released: not successful: r1"]);
    assert_ends(
        &site.shipway(&["retry", "r1", "--job", "nope"]),
        1,
        &["no job nope"],
    );
    fs::write(&switch, "").unwrap();
    let again = site.shipway(&["retry", "r1", "--failed"]);
    assert_ends(&again, 0, &["re-running shop/r1 as attempt 2"]);
    let rollout = site.ended_rollout("production", 1);
    assert_eq!(rollout["release"], 1, "{rollout:#}");
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    assert_eq!(jobs(&run), ["build success", "test success"], "{run:#}");
    assert_eq!(run["attempt"], 2, "{run:#}");
    let why = run["jobs"][1]["earlier"][0]["why"].as_str().unwrap();
    assert_says(why, &["exit code 1"]);
    let log = |attempt: &str| {
        let path = format!("/api/v1/runs/shop/1/jobs/test/log{attempt}");
        ureq_text(&site, &path)
    };
    assert_says(&log(""), &["of built-in-1 in 2"]);
    assert_says(&log("?attempt=1"), &["of built-in-1 in 1"]);
    let none = site.shipway(&["retry", "r1", "--failed"]);
    assert_ends(&none, 1, &["no job of shop/r1 failed"]);
}

#[test]
fn a_job_whose_worker_is_lost_begins_anew() {
    let site = Site::started();
    let shop = site.shop();
    let mark = site.folder.path().join("mark");
    let text = format!(
        "on: push\njobs:\n  a:\n    runs-on: linux\n    retry: {{ max: 1, when: worker-lost }}\n    steps:\n      - run: if test -e {0}; then echo anew; else touch {0}; kill -9 $PPID; sleep 60; fi\n",
        mark.display()
    );
    shop.write(".github/workflows/cd.yml", &text);
    let pushed = said(&shop.ship("1.0"));
    assert_says(
        &pushed,
        &["a starts again: worker lost", "✓ all jobs succeeded"],
    );
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    assert_eq!(jobs(&run), ["a success"], "{run:#}");
    assert_says(&said(&site.shipway(&["logs", "r1"])), &["anew"]);
}
