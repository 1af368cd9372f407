//! What works without a server: `init`, `check`, `schema`, `run`, `eval`; and what the other commands say when there is none.

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::{
    site::{said, shipway_in},
    words::{assert_ends, assert_says, assert_silent_of},
};

/// A command in a folder, with nothing of the caller's surroundings.
fn shipway(folder: &Path, words: &[&str]) -> Output {
    shipway_in(folder, words)
        .env("TOLD", "by the environment")
        .output()
        .unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap()
}

/// A folder with this workflow.
fn with_workflow(text: &str) -> tempfile::TempDir {
    let folder = folder();
    fs::create_dir_all(folder.path().join(".github/workflows")).unwrap();
    fs::write(folder.path().join(".github/workflows/ci.yml"), text).unwrap();
    folder
}

/// A workflow of one step.
fn one_step(step: &str) -> String {
    format!("on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - {step}\n")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[test]
fn init_writes_what_check_finds_good_and_nothing_twice() {
    let folder = folder();
    fs::write(
        folder.path().join("package.json"),
        r#"{"name":"cart","scripts":{"start":"node ."}}"#,
    )
    .unwrap();
    let begun = shipway(folder.path(), &["init"]);
    assert_ends(&begun, 0, &["shipway.yaml"]);
    let checked = shipway(folder.path(), &["check"]);
    assert_ends(&checked, 0, &["0 errors"]);
    let written = fs::read_to_string(folder.path().join("shipway.yaml")).unwrap();
    assert!(
        written.contains("the default rules judge"),
        "releases are judged from the first day on: {written}"
    );
    let found = json(&shipway(folder.path(), &["check", "--json"]));
    assert_eq!(found, serde_json::json!([]));
    let again = shipway(folder.path(), &["init"]);
    assert_ends(&again, 2, &["shipway.yaml", "--force"]);
    assert_ends(
        &shipway(folder.path(), &["init", "--force"]),
        0,
        &["shipway.yaml"],
    );
}

#[test]
fn check_says_when_a_push_would_release_or_start_nothing() {
    let folder = with_workflow(
        "on: { push: { branches: [trunk] } }\njobs: { a: { runs-on: ubuntu-latest, steps: [{ uses: actions/upload-artifact@v4, with: { name: till, path: . } }] } }\n",
    );
    let workflow = folder.path().join(".github/workflows/ci.yml");
    let check = |artifact: &str| {
        let config = format!(
            "service: till\nartifact: {artifact}\nrun: {{ command: exec ./till.sh }}\nenvironments: {{ production: {{ strategy: recreate }} }}\n"
        );
        fs::write(folder.path().join("shipway.yaml"), config).unwrap();
        said(&shipway(folder.path(), &["check"]))
    };
    assert_says(
        &check("till"),
        &[
            "no workflow that a push of main starts uploads the artifact `till`",
            "branches: [main]",
        ],
    );
    assert_says(
        &check("other"),
        &["no workflow uploads the artifact `other`, so a push releases nothing"],
    );
    assert_says(
        &check("{ source: . }"),
        &["./till.sh, which is not in the repository"],
    );
    fs::write(folder.path().join("till.sh"), "#!/bin/sh\n").unwrap();
    assert_says(
        &check("{ source: . }"),
        &["./till.sh, which can't be executed", "chmod +x till.sh"],
    );
    fs::remove_file(workflow).unwrap();
    assert_says(
        &check("till"),
        &[
            "no workflow uploads the artifact `till`",
            "artifact: { source: . }",
        ],
    );
}

#[test]
fn check_without_a_file_says_what_writes_one() {
    let folder = folder();
    let checked = shipway(folder.path(), &["check"]);
    assert_ends(
        &checked,
        2,
        &["no shipway.yaml and no workflow", "shipway init"],
    );
    let checked = shipway(folder.path(), &["check", "nowhere"]);
    assert_ends(&checked, 2, &["nowhere", "No such file"]);
}

#[test]
fn check_as_json_gives_each_mistake_its_place() {
    let folder = with_workflow(
        "on: push\njobs:\n  a:\n    runs_on: ubuntu-latest\n    steps: [{ run: true }]\n",
    );
    let checked = shipway(folder.path(), &["check", "--json"]);
    assert_eq!(checked.status.code(), Some(2));
    let found = json(&checked);
    assert_eq!(found[0]["line"], 4, "{found:#}");
    assert_eq!(found[0]["code"], "unknown-key");
    assert_eq!(found[0]["help"], "did you mean `runs-on`?");
}

#[test]
fn the_schema_is_one_that_editors_read() {
    let schema = json(&shipway(&std::env::temp_dir(), &["schema"]));
    assert!(schema["$schema"].is_string(), "{schema:#}");
    assert!(schema["properties"]["environments"].is_object());
}

const GREEN_AND_RED: &str = "
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    strategy: { matrix: { size: [small, large] } }
    steps:
      - name: Build it
        run: echo \"building ${{ matrix.size }}\"
  secret:
    runs-on: ubuntu-latest
    steps:
      - run: echo \"the key is ${{ secrets.KEY }} and ${{ secrets.TOLD }}\"
  red:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - name: Break it
        run: echo 'about to break'; exit 7
      - name: Never
        run: echo 'never seen'
  after:
    needs: red
    runs-on: ubuntu-latest
    steps: [{ run: echo 'never run' }]
";

#[test]
fn a_run_shows_its_output_and_ends_as_its_jobs_do() {
    let folder = with_workflow(GREEN_AND_RED);
    let ran = shipway(folder.path(), &["run"]);
    assert_ends(
        &ran,
        1,
        &[
            "building small",
            "building large",
            "about to break",
            "exit code 7",
            "The last lines of red",
        ],
    );
    assert_silent_of(&said(&ran), &["never seen\n", "never run\n"]);
}

#[test]
fn a_run_of_one_job_runs_it_and_those_it_needs() {
    let folder = with_workflow(GREEN_AND_RED);
    let ran = shipway(folder.path(), &["run", "--job", "build"]);
    assert_ends(&ran, 0, &["building small", "building large"]);
    assert_silent_of(&said(&ran), &["about to break", "the key is"]);
    let ran = shipway(
        folder.path(),
        &["run", "--job", "build", "--matrix", "size:large"],
    );
    assert_ends(&ran, 0, &["building large"]);
    assert_silent_of(&said(&ran), &["building small"]);
    let ran = shipway(folder.path(), &["run", "--job", "biuld"]);
    assert_ends(&ran, 2, &["biuld", "did you mean", "build"]);
}

#[test]
fn secrets_never_reach_the_terminal() {
    let folder = with_workflow(GREEN_AND_RED);
    let words = [
        "run",
        "--job",
        "secret",
        "--secret",
        "KEY=hunter22",
        "--secret",
        "TOLD",
    ];
    let ran = shipway(folder.path(), &words);
    assert_ends(&ran, 0, &["the key is *** and ***"]);
    assert_silent_of(&said(&ran), &["hunter22", "by the environment"]);
    let ran = shipway(folder.path(), &["run", "--secret", "NOWHERE"]);
    assert_ends(&ran, 2, &["NOWHERE", "environment"]);
}

#[test]
fn a_run_as_json_is_a_line_for_each_fact() {
    let folder = with_workflow(GREEN_AND_RED);
    let ran = shipway(folder.path(), &["run", "--json"]);
    assert_eq!(ran.status.code(), Some(1), "{}", said(&ran));
    let lines: Vec<Value> = String::from_utf8(ran.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["run"]["conclusion"], "failure", "{last:#}");
    assert_eq!(last["run"]["jobs"].as_array().unwrap().len(), 5, "{last:#}");
}

#[test]
fn a_run_of_a_workflow_with_mistakes_shows_them_all() {
    let folder = with_workflow(
        "on: push\njobs:\n  a: { needs: b, runs-on: linux, steps: [{ run: true }] }\n  b: { needs: a, runs-on: linux, steps: [{ run: true }] }\n",
    );
    let ran = shipway(folder.path(), &["run"]);
    assert_ends(
        &ran,
        2,
        &["wait for each other", "remove one of these `needs`"],
    );
    let ran = shipway(folder.path(), &["run", "ci.yml"]);
    assert_ends(&ran, 2, &[".github/workflows/ci.yml has errors"]);
    let ran = shipway(folder.path(), &["run", "nowhere.yml"]);
    assert_ends(&ran, 2, &["nowhere.yml"]);
}

#[test]
fn a_working_directory_that_is_not_there_is_named() {
    let folder = with_workflow(&one_step("{ run: pwd, working-directory: not/here }"));
    let ran = shipway(folder.path(), &["run"]);
    assert_ends(&ran, 1, &["not/here", "does not exist"]);
}

#[test]
fn an_artifact_of_files_outside_the_workspace_is_refused() {
    let upload =
        "{ uses: actions/upload-artifact@v4, with: { name: x, path: ../../../etc/hostname } }";
    let folder = with_workflow(&one_step(upload));
    let ran = shipway(folder.path(), &["run"]);
    assert_ends(
        &ran,
        1,
        &["../../../etc/hostname", "is outside the workspace"],
    );
}

#[test]
fn an_artifact_of_nothing_is_an_error_where_the_step_says_so() {
    let folder = with_workflow(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/upload-artifact@v4\n        with: { name: x, path: dist/, if-no-files-found: error }\n",
    );
    let ran = shipway(folder.path(), &["run"]);
    assert_ends(&ran, 1, &["dist/", "no files were found"]);
}

#[test]
fn every_command_of_the_server_says_how_to_start_one() {
    let folder = folder();
    for words in [
        &["status"][..],
        &["deploy", "shop"],
        &["plan", "shop", "--env", "production"],
        &["history"],
        &["logs", "r1"],
        &["watch", "ro1"],
        &["approve", "ro1"],
        &["reject", "ro1"],
        &["pause", "ro1"],
        &["resume", "ro1"],
        &["promote", "ro1"],
        &["abort", "ro1"],
        &["retry", "ro1"],
        &["rollback", "shop", "--env", "production"],
        &["dispatch"],
        &["cancel", "r1"],
    ] {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .chain(["--server", "http://127.0.0.1:9"])
            .collect();
        let answered = shipway(folder.path(), &words);
        assert_ends(
            &answered,
            4,
            &[
                "no server answers at http://127.0.0.1:9",
                "help: start one with `shipway server`",
            ],
        );
    }
}

#[test]
fn what_the_command_line_does_not_know_is_a_usage_error() {
    let folder = folder();
    assert_ends(&shipway(folder.path(), &["deplo"]), 2, &["deplo", "deploy"]);
    assert_ends(
        &shipway(folder.path(), &["deploy", "--too", "production"]),
        2,
        &["--too"],
    );
    assert_ends(
        &shipway(folder.path(), &["rollback", "shop"]),
        2,
        &["--env"],
    );
    assert_ends(
        &shipway(folder.path(), &[]),
        0,
        &["shipway demo", "shipway init", "shipway server"],
    );
}

#[test]
fn an_expression_is_evaluated_and_a_broken_one_told() {
    let folder = folder();
    assert_ends(
        &shipway(folder.path(), &["eval", "format('{0}-{1}', 'a', 1 == 1)"]),
        0,
        &["a-true"],
    );
    let value = json(&shipway(
        folder.path(),
        &["eval", "--json", "fromJSON('[1,2]')[1]"],
    ));
    assert_eq!(value["value"], 2, "{value}");
    let broken = shipway(folder.path(), &["eval", "format("]);
    let told = said(&broken);
    assert_ne!(broken.status.code(), Some(0), "{told}");
    assert_says(&told, &["format(", "found the end"]);
}

#[test]
fn run_says_which_secrets_nobody_has_given() {
    let folder = with_workflow(&one_step(
        "run: echo \"[${{ secrets.DEPLOY_KEY }}] ${{ secrets.token }} ${{ secrets.GITHUB_TOKEN && 1 }}\"",
    ));
    let ran = shipway(folder.path(), &["run", "--secret", "TOKEN=hunter2"]);
    assert_ends(
        &ran,
        0,
        &[
            "secrets that were not given are empty: DEPLOY_KEY (set one with --secret DEPLOY_KEY)",
            "[] ***",
        ],
    );
    let ran = shipway(
        folder.path(),
        &["run", "--secret", "TOKEN=x", "--secret", "deploy_key=y"],
    );
    assert_ends(&ran, 0, &[]);
    assert_silent_of(&said(&ran), &["not given"]);
}
