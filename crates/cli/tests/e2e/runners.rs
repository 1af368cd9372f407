//! Which jobs this machine can run, and that nothing counts as done that was left out.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::{
    site::{Site, said, shipway_in, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

fn shipway(folder: &Path, words: &[&str]) -> Output {
    shipway_in(folder, words).output().unwrap()
}

fn with_workflow(text: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap();
    fs::create_dir_all(folder.path().join(".github/workflows")).unwrap();
    fs::write(folder.path().join(".github/workflows/ci.yml"), text).unwrap();
    folder
}

const SYSTEMS: &str = "on: push
jobs:
  unit:
    strategy: { matrix: { os: [ubuntu-latest, windows-2025, macos-15, gpu-host] } }
    runs-on: ${{ matrix.os }}
    steps: [{ run: 'echo \"ran on ${{ matrix.os }}\"' }]
  publish:
    needs: unit
    runs-on: ubuntu-latest
    steps: [{ run: echo published }]
  tidy:
    needs: unit
    if: always()
    runs-on: ubuntu-latest
    steps: [{ run: 'echo \"unit was ${{ needs.unit.result }}\"' }]
";

#[test]
fn jobs_for_other_machines_are_left_out_and_the_run_is_incomplete() {
    let folder = with_workflow(SYSTEMS);
    let ran = shipway(folder.path(), &["run"]);
    assert_ends(
        &ran,
        5,
        &[
            "ran on ubuntu-latest",
            "unit (windows-2025): left out: no runner here has the label `windows-2025`: this machine runs Linux",
            "unit (macos-15): left out",
            "--label gpu-host",
            "unit was skipped",
            "publish: `unit`, which it needs, could not be run completely on this machine",
            "incomplete",
        ],
    );
    assert_silent_of(
        &said(&ran),
        &["ran on windows", "ran on gpu", "▸ Run echo published"],
    );
    let ran = shipway(folder.path(), &["run", "--json"]);
    let last: Value = String::from_utf8_lossy(&ran.stdout)
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap();
    assert_eq!(last["run"]["conclusion"], "incomplete");
    let jobs = last["run"]["jobs"].as_array().unwrap();
    let status =
        |name: &str| jobs.iter().find(|job| job["name"] == name).unwrap()["status"].clone();
    assert_eq!(status("unit (gpu-host)"), "incomplete");
    assert_eq!(status("publish"), "skipped");

    // What was asked for is all there is.
    let ran = shipway(folder.path(), &["run", "--matrix", "os:ubuntu-latest"]);
    assert_ends(&ran, 0, &["published", "success"]);
    // A machine may have more labels.
    let mut words = vec!["run", "--label", "gpu-*", "--label", "windows-2025"];
    words.extend(["--label", "macos-15"]);
    let ran = shipway(folder.path(), &words);
    assert_ends(
        &ran,
        0,
        &["ran on gpu-host", "ran on windows-2025", "published"],
    );
}

#[test]
fn what_would_be_left_out_is_said_before_the_run() {
    let folder = with_workflow(SYSTEMS);
    let planned = shipway(folder.path(), &["run", "--dry-run"]);
    assert_ends(
        &planned,
        0,
        &["left out: gpu-host: no runner here has the label"],
    );
    let checked = shipway(folder.path(), &["check"]);
    assert_ends(
        &checked,
        0,
        &["[runner-label]", "`unit (macos-15)`", "3 warnings"],
    );
    let checked = shipway(folder.path(), &["check", "--label", "gpu-host"]);
    assert_ends(&checked, 0, &["2 warnings"]);
}

#[test]
fn a_matrix_filter_that_matches_nothing_is_an_error_that_lists_the_cells() {
    let folder = with_workflow(SYSTEMS);
    for words in [&["run"][..], &["run", "--dry-run"]] {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .chain(["--matrix", "os:solaris"])
            .collect();
        let ran = shipway(folder.path(), &words);
        assert_ends(
            &ran,
            2,
            &[
                "no matrix combination matches --matrix os:solaris",
                "unit (gpu-host)",
            ],
        );
    }
    let computed = "on: push\njobs:\n  a:\n    strategy: { matrix: '${{ fromJSON(''{\"n\": [1, 2]}'') }}' }\n    runs-on: linux\n    steps: [{ run: echo ran }]\n";
    let folder = with_workflow(computed);
    let ran = shipway(folder.path(), &["run", "--matrix", "n:3"]);
    assert_ends(
        &ran,
        2,
        &["no matrix combination matches --matrix n:3", "a (1); a (2)"],
    );
}

#[test]
fn on_a_server_a_job_for_another_machine_fails_with_the_reason_and_nothing_is_released() {
    let site = Site::started();
    let shop = site.shop();
    shop.edit(
        ".github/workflows/cd.yml",
        "runs-on: ubuntu-latest",
        "runs-on: [self-hosted, windows-2025]",
    );
    shop.ship("1");
    let run = || site.get("/api/v1/runs/shop/1").unwrap_or_default();
    until("the end of the run", || !run()["conclusion"].is_null());
    assert_eq!(run()["conclusion"], "failure");
    let why = run()["why"].to_string();
    assert_says(&why, &["no runner here has the label `windows-2025`"]);
    assert!(site.rollouts().is_empty());
}

#[test]
fn check_compares_the_files_of_a_repository() {
    let folder = with_workflow(
        "on: push
jobs:
  call: { uses: ./.github/workflows/build.yml, with: { level: 3 } }
  use:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - { id: pack, uses: ./pack, with: { folder: x, depth: 2 } }
      - run: echo ${{ steps.pack.outputs.nothing }}
",
    );
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        ".github/workflows/build.yml",
        "on: { workflow_call: { inputs: { target: { type: string, required: true } } } }\njobs: { a: { runs-on: ubuntu-latest, steps: [{ run: make }] } }\n",
    );
    write(
        "pack/action.yml",
        "name: pack\ndescription: packs\ninputs: { folder: { description: x, required: true } }\nruns: { using: composite, steps: [{ shell: sh, run: make }] }\n",
    );
    write(
        "shipway.yaml",
        "service: shop\nartifact: bundle\nrun: { command: exec ./shop, health: { http: / } }\nenvironments: { production: { strategy: recreate } }\n",
    );
    assert_ends(
        &shipway(folder.path(), &["check"]),
        2,
        &[
            "must give the input `target`",
            "has no input `level`",
            "the action ./pack has no input `depth`",
            "the action ./pack has no output `nothing`",
            "no workflow uploads the artifact `bundle`, so a push releases nothing",
            "uses: actions/upload-artifact@v4",
        ],
    );
    // Uploaded by the action that a workflow uses.
    write(
        "pack/action.yml",
        "name: pack\ndescription: packs\ninputs: { folder: { description: x, required: true }, depth: { description: x } }\noutputs: { nothing: { description: x, value: x } }\nruns: { using: composite, steps: [{ uses: actions/upload-artifact@v4, with: { name: bundle, path: x } }] }\n",
    );
    write(
        ".github/workflows/build.yml",
        "on: { workflow_call: { inputs: { level: { type: number } } } }\njobs: { a: { runs-on: ubuntu-latest, steps: [{ run: make }] } }\n",
    );
    let checked = shipway(folder.path(), &["check"]);
    assert_ends(&checked, 0, &["0 errors, 0 warnings"]);
}
