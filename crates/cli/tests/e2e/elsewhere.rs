//! Workflows that call workflows of other repositories, from a forge that is a folder, or that isn't there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, said},
    words::{assert_ends, assert_says, assert_silent_of},
};

/// Calls a workflow of another repository, which calls one beside it and one of a third.
const CALLER: &str = "
on: push
jobs:
  ship:
    uses: acme/flows/.github/workflows/outer.yml@v1
    with: { who: shop }
    secrets: inherit
  report:
    needs: ship
    runs-on: linux
    steps: [{ run: \"test '${{ needs.ship.outputs.said }}' = 'hello shop'\" }]
";

const OUTER: &str = "
on:
  workflow_call:
    inputs: { who: { type: string, required: true } }
    outputs: { said: { value: \"${{ jobs.inner.outputs.said }}\" } }
jobs:
  inner:
    uses: ./.github/workflows/inner.yml
    with: { who: \"${{ inputs.who }}\" }
  third:
    uses: acme/third/.github/workflows/third.yml@main
    secrets: inherit
";

const INNER: &str = "
on:
  workflow_call:
    inputs: { who: { type: string } }
    outputs: { said: { value: \"${{ jobs.say.outputs.said }}\" } }
jobs:
  say:
    runs-on: linux
    outputs: { said: \"${{ steps.s.outputs.said }}\" }
    steps:
      - uses: actions/checkout@v4
      - { id: s, uses: ./mine, with: { who: \"${{ inputs.who }}\" } }
";

const THIRD: &str = "
on: { workflow_call: { secrets: { KEY: { required: true } } } }
jobs:
  use:
    runs-on: linux
    steps: [{ run: 'echo key ${{ secrets.KEY }} of ${{ github.repository }}' }]
";

/// An action of the repository that calls: `./` of a step is the caller's checkout, wherever the step is written.
const MINE: &str = "
inputs: { who: {} }
outputs: { said: { value: \"${{ steps.o.outputs.said }}\" } }
runs:
  using: composite
  steps: [{ id: o, shell: sh, run: \"echo 'said=hello ${{ inputs.who }}' >> $GITHUB_OUTPUT\" }]
";

struct Forge(PathBuf);

impl Forge {
    fn with_all(site: &Site) -> Self {
        let forge = Self(site.folder.path().join("forge"));
        forge.publish("acme/flows", "v1", &[("outer", OUTER), ("inner", INNER)]);
        forge.publish("acme/third", "v1", &[("third", THIRD)]);
        forge
    }

    /// A commit with these workflows, as `main` and `tag`.
    fn publish(&self, repository: &str, tag: &str, workflows: &[(&str, &str)]) {
        let bare = self.0.join(format!("{repository}.git"));
        let work = self.0.join("work").join(repository);
        fs::create_dir_all(work.join(".github/workflows")).unwrap();
        let work = Shop::of(&work, &bare.to_string_lossy());
        if !bare.exists() {
            fs::create_dir_all(&bare).unwrap();
            let bare = bare.to_string_lossy().into_owned();
            work.git(&["init", "--quiet", "--bare", &bare]);
        }
        for (name, text) in workflows {
            work.write(&format!(".github/workflows/{name}.yml"), text);
        }
        work.git(&["add", "--all"]);
        work.git(&["commit", "--quiet", "--message", tag]);
        work.git(&["tag", tag]);
        let pushed = work.push("main");
        assert!(pushed.status.success(), "{}", said(&pushed));
        assert!(work.push(tag).status.success());
    }
}

fn write_caller(folder: &Path, caller: &str) {
    fs::create_dir_all(folder.join("mine")).unwrap();
    fs::create_dir_all(folder.join(".github/workflows")).unwrap();
    fs::write(folder.join("mine/action.yml"), MINE).unwrap();
    fs::write(folder.join(".github/workflows/cd.yml"), caller).unwrap();
}

fn site_with(forge: &str) -> Site {
    let mut site = Site::new();
    let secrets = site.folder.path().join("secrets");
    fs::write(&secrets, "KEY=hunter2hunter2\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&secrets, mode).unwrap();
    let secrets = secrets.to_string_lossy().into_owned();
    site.flags.extend(["--secrets".to_owned(), secrets]);
    site.flags.extend(["--forge".to_owned(), forge.to_owned()]);
    site
}

fn jobs(run: &Value) -> Vec<String> {
    let jobs = run["jobs"].as_array().cloned().unwrap_or_default();
    let shown = |job: &Value| format!("{} {}", job["name"], job["status"]).replace('"', "");
    jobs.iter().map(shown).collect()
}

#[test]
fn workflows_of_other_repositories_are_called_and_run_again_without_their_forge() {
    let folder = tempfile::Builder::new().prefix("shipway-e2e-").tempdir();
    let folder = folder.unwrap();
    let mut site = site_with(&folder.path().join("forge").to_string_lossy());
    let forge = Forge(folder.path().join("forge"));
    forge.publish("acme/flows", "v1", &[("outer", OUTER), ("inner", INNER)]);
    forge.publish("acme/third", "v1", &[("third", THIRD)]);
    site.start();
    let shop = site.shop();
    write_caller(&shop.path, CALLER);
    assert_says(&said(&shop.ship("1.0")), &["✓ all jobs succeeded"]);
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    let expected = [
        "ship success",
        "ship / inner success",
        "ship / inner / say success",
        "ship / third success",
        "ship / third / use success",
        "report success",
    ];
    assert_eq!(jobs(&run), expected, "{run:#}");
    let pinned = run["jobs"][0]["calls_commit"].as_str().unwrap();
    assert_eq!(pinned.len(), 40, "{run:#}");
    assert_eq!(run["jobs"][1]["calls_commit"], *pinned, "{run:#}");
    let log = said(&site.shipway(&["logs", "r1", "--job", "ship~third~use"]));
    assert_says(&log, &["key *** of shipway/shop"]);
    assert_silent_of(&log, &["hunter2"]);
    // All that a run needs is in its log.
    fs::remove_dir_all(&forge.0).unwrap();
    site.kill();
    fs::create_dir_all(&forge.0).unwrap();
    site.start();
    assert_ends(&site.shipway(&["retry", "r1"]), 0, &["attempt 2"]);
    crate::site::until("the end of the second attempt", || {
        let run = site.get("/api/v1/runs/shop/1").unwrap();
        run["attempt"] == 2 && !run["conclusion"].is_null()
    });
    let run = site.get("/api/v1/runs/shop/1").unwrap();
    assert_eq!(jobs(&run), expected, "{run:#}");
}

#[test]
fn a_forge_that_does_not_answer_fails_the_run_that_needs_it_and_no_other() {
    let mut site = site_with("http://127.0.0.1:9");
    site.start();
    let shop = site.shop();
    write_caller(&shop.path, CALLER);
    shop.write(
        ".github/workflows/own.yml",
        "on: push\njobs: { own: { runs-on: linux, steps: [{ run: echo own }] } }\n",
    );
    let pushed = said(&shop.ship("1.0"));
    assert_says(
        &pushed,
        &[
            ".github/workflows/cd.yml:5:11: error: acme/flows/.github/workflows/outer.yml@v1 can't be called",
            "acme/flows at v1 can't be fetched from http://127.0.0.1:9",
            "✓ own",
        ],
    );
    let run = |number: u32| site.get(&format!("/api/v1/runs/shop/{number}")).unwrap();
    assert_eq!(run(1)["conclusion"], "failure");
    assert_eq!(run(2)["conclusion"], "success");
}

fn run_here(folder: &Path, forge: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(SHIPWAY);
    command.args(["run", "--forge"]).arg(forge).args(words);
    command.current_dir(folder).env_remove("SHIPWAY_URL");
    command.env("XDG_CACHE_HOME", folder.join("cache"));
    command.output().unwrap()
}

#[test]
fn they_are_called_without_a_server_too_and_mistakes_name_them() {
    let site = Site::new();
    let forge = Forge::with_all(&site);
    let here = site.folder.path().join("here");
    write_caller(&here, CALLER);
    let run = |words: &[&str]| run_here(&here, &forge.0, words);
    let done = run(&["--secret", "KEY=hunter2hunter2"]);
    assert_ends(
        &done,
        0,
        &[
            "key *** of shipway/here",
            "✓ ship / inner / say",
            "✓ report",
        ],
    );
    let plan = run(&["--dry-run"]);
    assert_ends(&plan, 0, &["acme/flows/.github/workflows/outer.yml@v1"]);
    // One that calls itself by way of another repository, and what isn't there.
    let circle =
        "on: workflow_call\njobs: { a: { uses: acme/flows/.github/workflows/circle.yml@main } }\n";
    let missing = "on: workflow_call\njobs: { a: { uses: ./.github/workflows/nothing.yml } }\n";
    forge.publish(
        "acme/flows",
        "v2",
        &[("circle", circle), ("missing", missing)],
    );
    let calling = |name: &str| {
        let text = format!(
            "on: push\njobs: {{ a: {{ uses: acme/flows/.github/workflows/{name}.yml@main }} }}\n"
        );
        write_caller(&here, &text);
        run(&[])
    };
    assert_ends(
        &calling("circle"),
        1,
        &[
            "acme/flows/.github/workflows/circle.yml@main:2:20: error: workflows can't call themselves",
        ],
    );
    assert_ends(
        &calling("missing"),
        1,
        &[
            "acme/flows/.github/workflows/missing.yml@main:2:20: error: acme/flows/.github/workflows/nothing.yml@main can't be called",
            "no such file",
        ],
    );
}
