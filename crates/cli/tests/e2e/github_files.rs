//! Files as GitHub takes them today, through the real binary: repositories, events, actions of the own commit, syntax.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use crate::{
    site::shipway_in,
    words::{assert_ends, assert_silent_of},
};

/// A git repository with these files, committed on the branch `trunk`.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("shipway-e2e-").tempdir();
        let repository = Self(folder.unwrap());
        for (name, text) in files {
            let path = repository.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        repository.git(&["init", "--quiet", "--initial-branch=trunk"]);
        repository.git(&["add", "--all"]);
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
        repository.git(&[&identity[..], &["commit", "--quiet", "--message=first"]].concat());
        repository
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        let status = git.args(arguments).current_dir(self.0.path()).status();
        assert!(status.unwrap().success(), "{arguments:?}");
    }

    fn shipway(&self, words: &[&str]) -> Output {
        shipway(self.0.path(), words)
    }
}

fn shipway(folder: &Path, words: &[&str]) -> Output {
    shipway_in(folder, words)
        .env("USER", "ada")
        .output()
        .unwrap()
}

/// A workflow of one job with this step, on these events.
fn workflow(on: &str, step: &str) -> String {
    format!(
        "on: {on}\njobs:\n  only:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          {step}\n"
    )
}

const CI: &str = ".github/workflows/ci.yml";

#[test]
fn the_repository_is_that_of_the_remote() {
    let step = r#"set -u; echo "$GITHUB_REPOSITORY of $GITHUB_REPOSITORY_OWNER, $GITHUB_SERVER_URL $GITHUB_API_URL $GITHUB_GRAPHQL_URL"; echo "ids $GITHUB_REPOSITORY_ID $GITHUB_REPOSITORY_OWNER_ID $GITHUB_ACTOR_ID for $GITHUB_RETENTION_DAYS days, default ${{ github.event.repository.default_branch }} of ${{ github.event.repository.full_name }}""#;
    let repository = Repository::new(&[(CI, &workflow("push", step))]);
    let bare = repository.shipway(&["run"]);
    assert_ends(
        &bare,
        0,
        &["of shipway, https://github.com https://api.github.com https://api.github.com/graphql"],
    );
    repository.git(&["remote", "add", "origin", "git@forge.example:acme/shop.git"]);
    repository.git(&["update-ref", "refs/remotes/origin/trunk", "HEAD"]);
    repository.git(&[
        "symbolic-ref",
        "refs/remotes/origin/HEAD",
        "refs/remotes/origin/trunk",
    ]);
    let ran = repository.shipway(&["run"]);
    assert_ends(
        &ran,
        0,
        &[
            "acme/shop of acme, https://forge.example https://forge.example/api/v3 https://forge.example/api/graphql",
            "ids 0 0 0 for 90 days, default trunk of acme/shop",
        ],
    );
    let given = repository.shipway(&["run", "--repository", "other/name"]);
    assert_ends(&given, 0, &["other/name of other, https://github.com"]);
    let wrong = repository.shipway(&["run", "--repository", "name"]);
    assert_ends(&wrong, 2, &["OWNER/NAME"]);
}

#[test]
fn a_payload_says_which_refs_inputs_and_people_an_event_has() {
    let step = r#"echo "${{ github.ref }} $GITHUB_REF_NAME $GITHUB_BASE_REF<-$GITHUB_HEAD_REF by $GITHUB_ACTOR in $GITHUB_REPOSITORY $GITHUB_REPOSITORY_ID""#;
    let dispatch = "on: { workflow_dispatch: { inputs: { name: { required: true }, fast: { type: boolean } } } }
jobs: { a: { runs-on: ubuntu-latest, steps: [{ run: 'echo \"${{ inputs.name }} ${{ inputs.fast == true }} ${{ github.event.inputs.name }}\"' }] } }
";
    let pull = json!({
        "action": "opened", "number": 12, "sender": { "login": "bob" },
        "pull_request": { "base": { "ref": "trunk" }, "head": { "ref": "fix" } },
        "repository": { "full_name": "acme/shop", "id": 77, "default_branch": "trunk" },
    });
    let inputs = json!({ "inputs": { "name": "Ada", "fast": "true" } });
    let repository = Repository::new(&[
        (
            ".github/workflows/pull.yml",
            &workflow("pull_request", step),
        ),
        (
            ".github/workflows/labels.yml",
            &workflow("{ pull_request: { types: [labeled] } }", "echo of labels"),
        ),
        (".github/workflows/by-hand.yml", dispatch),
        ("pull.json", &pull.to_string()),
        ("inputs.json", &inputs.to_string()),
    ]);
    let ran = repository.shipway(&["run", "--event", "pull_request", "--payload", "pull.json"]);
    let expected = "refs/pull/12/merge 12/merge trunk<-fix by bob in acme/shop 77";
    assert_ends(&ran, 0, &[expected]);
    assert_silent_of(&String::from_utf8_lossy(&ran.stdout), &["of labels"]);
    let by_hand = [
        "run",
        "--event",
        "workflow_dispatch",
        "--payload",
        "inputs.json",
    ];
    assert_ends(&repository.shipway(&by_hand), 0, &["Ada true Ada"]);
    let over = [&by_hand[..], &["--input", "name=Eve"]].concat();
    assert_ends(&repository.shipway(&over), 0, &["Eve true Eve"]);
    let none = repository.shipway(&["run"]);
    assert_ends(&none, 2, &["is triggered by push", "shipway run --list"]);
}

#[test]
fn actions_and_workflows_of_the_own_commit_need_no_checkout() {
    let inner = "name: inner\ndescription: x\nruns: { using: composite, steps: [{ shell: bash, env: { OF: '${{ github.action_repository }}' }, run: 'echo inner of $OF; ls | wc -l' }] }\n";
    let outer = "name: outer\ndescription: x\nruns: { using: composite, steps: [{ uses: $/tools/inner }] }\n";
    let repository = Repository::new(&[
        ("tools/outer/action.yml", outer),
        ("tools/inner/action.yml", inner),
        (
            ".github/workflows/called.yml",
            "on: workflow_call\njobs: { deep: { runs-on: ubuntu-latest, steps: [{ run: echo of called }] } }\n",
        ),
        (
            CI,
            "on: push\njobs:\n  own: { runs-on: ubuntu-latest, steps: [{ uses: $/tools/outer }] }\n  call: { uses: $/.github/workflows/called.yml }\n",
        ),
    ]);
    repository.git(&["remote", "add", "origin", "https://github.com/acme/shop"]);
    let ran = repository.shipway(&["run"]);
    // The workspace stays empty: nothing was checked out.
    assert_ends(&ran, 0, &["inner of acme/shop", "│   0\n", "of called"]);
    assert_ends(
        &repository.shipway(&["check"]),
        0,
        &["0 errors, 0 warnings"],
    );
    let gone = workflow("push", "true").replace("run: |\n          true", "uses: $/tools/gone");
    fs::write(repository.0.path().join(CI), gone).unwrap();
    assert_ends(
        &repository.shipway(&["run", "ci.yml"]),
        1,
        &["$/tools/gone"],
    );
    assert_ends(
        &repository.shipway(&["check"]),
        0,
        &["there is no action in $/tools/gone"],
    );
}

#[test]
fn expressions_stand_where_github_takes_them() {
    let text = r#"on: [push]# a comment right here
jobs:
  cells:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        size:
          - one
          - ${{ fromJSON('["two", "three"]') }}
        "${{ format('k{0}', 1) }}": [ 'kay'
      ]
    services: ${{ fromJSON('{}') }}
    env:
      ${{ format('ON_{0}', github.event_name) }}: !<tag:yaml.org,2002:str> 010
    steps:
      - run: echo "cell ${{ matrix.size }} ${{ matrix.k1 }} $ON_push"
      - { id: named, run: 'true' }
      - run: echo "steps ${{ join(steps.*.outcome, '+') }} ${{ toJSON(steps) != '{}' }}"
  nothing: { runs-on: ubuntu-latest }
"#;
    let repository = Repository::new(&[(CI, text)]);
    let ran = repository.shipway(&["run"]);
    let cells = ["one", "two", "three"].map(|size| format!("cell {size} kay 010"));
    let expected = [
        &cells[0],
        &cells[1],
        &cells[2],
        "✓ nothing",
        "steps success true",
    ];
    assert_ends(&ran, 0, &expected);
}

#[test]
fn an_expression_may_begin_with_a_minus() {
    let evaluate = |words: &[&str]| shipway(Path::new("/"), &[&["eval"], words].concat());
    assert_ends(&evaluate(&["-1"]), 0, &["-1"]);
    assert_ends(&evaluate(&["-Infinity == Infinity"]), 0, &["false"]);
    let number = evaluate(&["-1", "--json"]);
    assert_ends(&number, 0, &["\"kind\": \"number\""]);
}
