//! `shipway run` as people use it: plans, lists, payloads, files of secrets, several workflows, jobs at once, and again on change.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    site::{PATIENCE, SHIPWAY, said, signal},
    words::{assert_ends, assert_says, assert_silent_of},
};

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(SHIPWAY);
    command
        .arg("run")
        .args(words)
        .current_dir(folder)
        .env_remove("SHIPWAY_TOKEN")
        .env_remove("SHIPWAY_URL")
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, words: &[&str]) -> Output {
    command(folder, words).output().unwrap()
}

/// A folder with workflows, by their names.
fn with_workflows(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap();
    fs::create_dir_all(folder.path().join(".github/workflows")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(".github/workflows").join(name), text).unwrap();
    }
    folder
}

const BRANCHY: &str = "
name: CI
on: push
env: { WHERE: here }
jobs:
  build:
    runs-on: ubuntu-latest
    outputs: { changed: '${{ steps.look.outputs.changed }}' }
    steps:
      - uses: actions/checkout@v4
      - id: look
        run: echo changed=true >> $GITHUB_OUTPUT; touch \"$TOUCHED\"
      - { name: Clean up, if: always(), run: rm -rf build }
      - { name: Tell somebody, if: failure(), run: echo }
  test:
    needs: build
    if: needs.build.outputs.changed == 'true'
    runs-on: ubuntu-latest
    strategy: { matrix: { os: [linux, mac], size: [1, 2] } }
    steps:
      - { name: 'Test on ${{ matrix.os }}', run: make test, shell: sh }
      - { name: Only there, if: matrix.os == 'mac', run: true }
  release:
    needs: [build, test]
    if: github.ref == 'refs/tags/v1'
    runs-on: ubuntu-latest
    container: debian:12
    services: { db: { image: 'postgres:17' } }
    steps: [{ run: true }]
  after:
    needs: release
    runs-on: ubuntu-latest
    steps: [{ run: true }]
  generated:
    needs: build
    runs-on: ubuntu-latest
    strategy: { matrix: { x: '${{ fromJSON(needs.build.outputs.list) }}' } }
    steps: [{ run: true }]
";

#[test]
fn a_dry_run_says_what_would_run_and_runs_nothing() {
    let folder = with_workflows(&[("ci.yml", BRANCHY)]);
    let touched = folder.path().join("touched");
    let ran = command(folder.path(), &["--dry-run", "--secret", "NOWHERE"])
        .env("TOUCHED", &touched)
        .output()
        .unwrap();
    assert_ends(
        &ran,
        0,
        &[
            "CI · .github/workflows/ci.yml · push",
            "wave 1",
            "  build\n",
            "if always(): yes",
            "if failure(): only after a failure",
            "wave 2",
            "  test · after build · 4 cells: linux, 1; linux, 2; mac, 1; mac, 2",
            "if needs.build.outputs.changed == 'true': decided at run time",
            "Test on ${{ matrix.os }}  (sh)",
            "if matrix.os == 'mac': only for mac, 1; mac, 2",
            "generated · after build · a matrix computed at run time",
            "wave 3",
            "release · after build, test · in debian:12 · beside db (postgres:17)",
            "if github.ref == 'refs/tags/v1': no, skipped",
            "wave 4",
            "no, skipped: as the jobs before it",
            "Actions: actions/checkout@v4",
            "Images: debian:12, postgres:17",
        ],
    );
    assert!(!touched.exists());
    let words = ["-n", "--job", "test", "--matrix", "os:mac", "--json"];
    let plan: Value = serde_json::from_slice(&run(folder.path(), &words).stdout).unwrap();
    let test = &plan[0]["waves"][1][0];
    assert_eq!(test["id"], "test", "{plan:#}");
    assert_eq!(test["cells"]["known"].as_array().unwrap().len(), 2);
    assert_eq!(test["condition"]["answer"], "later");
    assert_eq!(plan[0]["waves"].as_array().unwrap().len(), 2);
}

#[test]
fn the_list_of_jobs_says_what_starts_them() {
    let other =
        "on: [release, pull_request]\njobs: { pack: { runs-on: linux, steps: [{ run: a }] } }\n";
    let folder = with_workflows(&[("ci.yml", BRANCHY), ("pack.yml", other)]);
    let listed = run(folder.path(), &["--list"]);
    assert_ends(
        &listed,
        0,
        &[
            "FILE",
            "NEEDS",
            "generated",
            "build, test",
            "pack.yml",
            "release, pull_request",
        ],
    );
    let listed = run(folder.path(), &["--list", "--json", "pack.yml"]);
    let jobs: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(jobs[0]["job"], "pack", "{jobs:#}");
}

const TELLS: &str = "
on: [push, release]
jobs:
  tell:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo \"event ${{ github.event_name }} ${{ github.event.release.tag_name }}\"
          echo \"file $(grep -c v1.2 \"$GITHUB_EVENT_PATH\")\"
          echo \"input ${{ inputs.size }} ${{ inputs.colour }}\"
          echo \"var ${{ vars.REGION }} ${{ vars.ZONE }}\"
          echo \"env $FROM_FILE $GIVEN\"
          echo \"secret ${{ secrets.ONE }} ${{ contains(secrets.TWO, 'of two') }} ${{ secrets.THREE }}\"
";

#[test]
fn what_a_run_is_given_comes_from_the_command_line_and_from_files() {
    let folder = with_workflows(&[("ci.yml", TELLS)]);
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("event.json", r#"{"release":{"tag_name":"v1.2"}}"#);
    write("inputs", "size=3\ncolour=red\n");
    write("vars", "REGION=eu\n");
    write("env", "export FROM_FILE='a file' # and why\nGIVEN=no\n");
    write(
        "secrets",
        "# ours\nONE=hunter1one\nTWO=\"second line\\nof two\"\nTHREE=hunter3\n",
    );
    let words = [
        "--event",
        "release",
        "--payload",
        "event.json",
        "--input-file",
        "inputs",
        "--input",
        "colour=blue",
        "--var-file",
        "vars",
        "--var",
        "ZONE=b",
        "--env-file",
        "env",
        "--env",
        "GIVEN=here",
        "--secret-file",
        "secrets",
        "--secret",
        "THREE=hunter33",
    ];
    let ran = run(folder.path(), &words);
    assert_ends(
        &ran,
        0,
        &[
            "event release v1.2",
            "file 1",
            "input 3 blue",
            "var eu b",
            "env a file here",
            "secret *** true ***",
        ],
    );
    assert_silent_of(&said(&ran), &["hunter"]);
}

#[test]
fn files_that_say_nothing_useful_are_told_by_their_line_and_never_by_their_text() {
    let folder = with_workflows(&[("ci.yml", TELLS)]);
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("secrets", "ONE=1\nhunter2hunter2\n");
    write("event.json", "[1]");
    let ran = run(folder.path(), &["--secret-file", "secrets"]);
    assert_ends(&ran, 2, &["line 2 of secrets is not NAME=value", "help:"]);
    assert_silent_of(&said(&ran), &["hunter2"]);
    let ran = run(folder.path(), &["--payload", "event.json"]);
    assert_ends(
        &ran,
        2,
        &["event.json is not a JSON object", "github.event"],
    );
    let ran = run(folder.path(), &["--var-file", "nowhere"]);
    assert_ends(&ran, 2, &["nowhere", "No such file"]);
    let ran = run(folder.path(), &["--secret", "NOWHERE_AT_ALL"]);
    assert_ends(&ran, 2, &["NOWHERE_AT_ALL", "--secret-file"]);
}

#[test]
fn a_secret_that_is_nowhere_is_asked_for_without_showing_it() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped, because there is no `script` to make a terminal with");
        return;
    }
    let folder = with_workflows(&[("ci.yml", TELLS)]);
    let words = format!("{SHIPWAY} run --secret ONE --secret TWO=2 --secret THREE=3");
    let mut asked = Command::new("script")
        .args(["--quiet", "--return", "--command", &words, "/dev/null"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Lines::of(asked.stdout.take().unwrap());
    lines.until("Secret ONE:");
    let mut typed = asked.stdin.take().unwrap();
    // A slip, and a character of two bytes taken back.
    typed
        .write_all("hunter1twx\u{e9}\x7f\x7fo\r".as_bytes())
        .unwrap();
    lines.until("secret ***");
    lines.until("success");
    assert!(asked.wait().unwrap().success());
    assert_silent_of(&lines.all.join("\n"), &["hunter"]);
}

/// What a program prints, as it comes.
struct Lines {
    coming: mpsc::Receiver<String>,
    all: Vec<String>,
}

impl Lines {
    fn of(mut output: impl Read + Send + 'static) -> Self {
        let (tell, coming) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // Not by lines: a prompt has no end.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let _ = tell.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
            }
        });
        let all = vec![String::new()];
        Self { coming, all }
    }

    /// Waits until this has been printed, after what was waited for before.
    fn until(&mut self, words: &str) {
        let mut seen = self.all.last().cloned().unwrap_or_default();
        loop {
            if let Some(at) = seen.find(words) {
                let rest = seen.split_off(at + words.len());
                *self.all.last_mut().unwrap() = seen;
                self.all.push(rest);
                return;
            }
            let more = self.coming.recv_timeout(PATIENCE);
            seen += &more
                .unwrap_or_else(|_| panic!("waited in vain for {words:?}: {:?} {seen}", self.all));
        }
    }
}

#[test]
fn no_more_jobs_run_at_once_than_are_wanted() {
    let text = "on: push\njobs:\n  a:\n    runs-on: linux\n    strategy: { matrix: { n: [1, 2, 3, 4, 5] } }\n    steps:\n      - run: echo in >> \"$DIARY\"; sleep 0.1; echo out >> \"$DIARY\"\n";
    let folder = with_workflows(&[("ci.yml", text)]);
    let diary = folder.path().join("diary");
    let given = format!("DIARY={}", diary.display());
    let ran = run(folder.path(), &["--jobs", "1", "--env", &given]);
    assert_ends(&ran, 0, &["success"]);
    assert_eq!(fs::read_to_string(&diary).unwrap(), "in\nout\n".repeat(5));
    assert_ends(&run(folder.path(), &["--jobs", "0"]), 2, &["--jobs"]);
}

#[test]
fn several_workflows_run_one_after_the_other_and_are_as_bad_as_the_worst() {
    let one = |on: &str, step: &str| {
        format!("on: {on}\njobs: {{ a: {{ runs-on: linux, steps: [{{ run: '{step}' }}] }} }}\n")
    };
    let folder = with_workflows(&[
        ("bad.yml", &one("push", "echo of bad; exit 3")),
        ("good.yml", &one("push", "echo of good")),
        ("release.yml", &one("release", "echo of release")),
    ]);
    let by_default = run(folder.path(), &[]);
    assert_ends(&by_default, 1, &["of bad", "of good"]);
    let ran = run(folder.path(), &[".github/workflows"]);
    assert_ends(
        &ran,
        1,
        &[
            "── .github/workflows/bad.yml ──",
            "of bad",
            "of good",
            "exit code 3",
        ],
    );
    assert_silent_of(&said(&ran), &["of release\n"]);
    let ran = run(folder.path(), &["good.yml", "release.yml"]);
    assert_ends(&ran, 0, &["of good", "of release"]);
    let ran = run(folder.path(), &[".github/workflows", "--event", "schedule"]);
    assert_ends(&ran, 2, &["no workflow", "schedule", "--list"]);
}

#[test]
fn a_red_run_ends_with_what_failed_and_how_to_see_more() {
    let text = "on: push\njobs:\n  lint: { runs-on: linux, steps: [{ run: echo fine }] }\n  unit:\n    runs-on: linux\n    steps:\n      - { name: Build, run: echo built }\n      - { name: Test, run: echo 'assertion failed'; exit 4 }\n";
    let folder = with_workflows(&[("ci.yml", text)]);
    let ran = run(folder.path(), &[]);
    let told = said(&ran);
    let end = told
        .split("The last lines of unit")
        .nth(1)
        .unwrap_or_default();
    assert_says(
        end,
        &[
            "assertion failed",
            "✓ lint",
            "✗ unit",
            "step \"Test\": exit code 4",
            "shipway run .github/workflows/ci.yml --job unit --keep",
        ],
    );
    assert_silent_of(&told, &["\x1b["]);
    assert!(told.contains("unit │   assertion failed"), "{told}");
}

/// `shipway run --watch` under way.
struct Watched {
    child: Child,
    lines: Lines,
}

impl Watched {
    fn start(folder: &Path) -> Self {
        let mut child = command(folder, &["--watch"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        Self { child, lines }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Politely: it ends its workers.
        signal(self.child.id(), "INT");
        for _ in 0..100 {
            if self.child.try_wait().unwrap().is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_watched_run_runs_again_when_a_file_changes_and_is_cancelled_when_it_is_under_way() {
    let text = |step: &str| {
        format!(
            "on: push\njobs:\n  a:\n    runs-on: linux\n    steps:\n      - uses: actions/checkout@v4\n      - run: '{step}'\n"
        )
    };
    let folder = with_workflows(&[("ci.yml", &text("echo round: $(cat number)"))]);
    let path = folder.path();
    let git = Command::new("git")
        .arg("init")
        .arg("--quiet")
        .current_dir(path)
        .status();
    assert!(git.unwrap().success());
    fs::write(path.join(".gitignore"), "out/\n*.tmp\n").unwrap();
    fs::create_dir_all(path.join("src")).unwrap();
    fs::create_dir_all(path.join("out")).unwrap();
    fs::write(path.join("number"), "1").unwrap();
    let mut watched = Watched::start(path);
    watched.lines.until("round: 1");
    watched.lines.until("waiting for changes");
    // Of these git wants nothing.
    fs::write(path.join("out/x"), "x").unwrap();
    fs::write(path.join("x.tmp"), "x").unwrap();
    fs::write(path.join(".git/x"), "x").unwrap();
    fs::write(path.join("number"), "2").unwrap();
    watched.lines.until("round: 2");
    let before = &watched.lines.all[watched.lines.all.len() - 2];
    assert!(!before.contains("round: 1"), "{before}");
    watched.lines.until("waiting for changes");
    // A folder that is new is watched like the others.
    fs::create_dir(path.join("src/new")).unwrap();
    watched.lines.until("round: 2");
    watched.lines.until("waiting for changes");
    fs::write(path.join("src/new/file"), "x").unwrap();
    watched.lines.until("round: 2");
    watched.lines.until("waiting for changes");
    let workflow = path.join(".github/workflows/ci.yml");
    fs::write(&workflow, text("echo begun; sleep 1000; echo never")).unwrap();
    watched.lines.until("▸ Run echo begun");
    watched.lines.until("begun\n");
    fs::write(&workflow, "on: push\njobs: 7\n").unwrap();
    watched.lines.until("cancelled");
    fs::write(&workflow, text("echo last round: $(cat number)")).unwrap();
    watched.lines.until("last round: 2");
    watched.lines.until("waiting for changes");
    signal(watched.child.id(), "INT");
    assert!(watched.child.wait().unwrap().success());
}
