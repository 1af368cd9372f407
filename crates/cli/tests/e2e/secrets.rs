//! Secrets and variables that users set: who gets them, who sees them, and what is left of them.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    site::{Site, said, shipway_in},
    words::{assert_ends, assert_says, assert_silent_of},
};

const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  env: { PASSWORD: $DB_PASSWORD }
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  production: { strategy: recreate }
";

const WORKFLOW: &str = r#"
on: push
jobs:
  shared:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - env: { VALUE: '${{ secrets.api_key }}' }
        run: echo "shared $VALUE ends with ${VALUE#shared-} level ${{ vars.LEVEL }} late [${{ secrets.late }}]"
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: . }
  live:
    needs: shared
    runs-on: ubuntu-latest
    environment: production
    steps:
      - env: { VALUE: '${{ secrets.API_KEY }}', LATE: '${{ secrets.LATE }}' }
        run: echo "live has ${VALUE%-*} and ${#LATE} letters, level ${{ vars.LEVEL }}"
"#;

/// Runs a command with a value on its standard input.
fn shipway_with(site: &Site, words: &[&str], input: &str) -> Output {
    let mut command = shipway_in(site.folder.path(), words);
    command
        .env("SHIPWAY_URL", site.url(""))
        .stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its arguments ends without reading the value.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn set(site: &Site, words: &[&str], value: &str) {
    let words = [&["secret", "set"], words].concat();
    assert_ends(&shipway_with(site, &words, value), 0, &["is set (version"]);
}

/// The files below a folder that contain a text.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

fn secrets(site: &Site) -> Vec<Value> {
    let list = site.get("/api/v1/secrets?service=shop").unwrap();
    list["items"].as_array().cloned().unwrap()
}

#[test]
fn secrets_reach_jobs_and_instances_and_no_log_list_or_file_has_their_values() {
    let mut site = Site::started();
    // Before the first push.
    set(&site, &["api_key", "--service", "shop"], "shared-k1\n");
    set(
        &site,
        &["API_KEY", "--service", "shop", "--env", "production"],
        "live-k2",
    );
    set(
        &site,
        &["LATE", "--service", "shop", "--env", "production"],
        "late-k3",
    );
    set(&site, &["DB_PASSWORD", "--all-services"], "p4ss $HOME #x");
    let level = ["env", "set", "--service", "shop"];
    assert_ends(
        &site.shipway(&[&level[..], &["LEVEL=info"]].concat()),
        0,
        &["LEVEL of shop is set"],
    );
    let live = [&level[..], &["--env", "production", "level=debug"]].concat();
    assert_ends(
        &site.shipway(&live),
        0,
        &["LEVEL of shop in production is set"],
    );

    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    shop.write(".github/workflows/cd.yml", WORKFLOW);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let log = said(&site.shipway(&["logs", "r1"]));
    assert_says(
        &log,
        &[
            "shared *** ends with k1 level info late []",
            "live has live and 7 letters, level debug",
        ],
    );
    let process = site.processes().into_iter().find_map(|pid| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        environment
            .split('\0')
            .find_map(|it| it.strip_prefix("PASSWORD="))
            .map(str::to_owned)
    });
    assert_eq!(process.as_deref(), Some("p4ss $HOME #x"));

    let listed = said(&site.shipway(&["secret", "list"]));
    assert_says(
        &listed,
        &["API_KEY", "production", "live of shop/r1, attempt 1"],
    );
    let all = [listed, log, json!(secrets(&site)).to_string(), site.log()].concat();
    assert_silent_of(&all, &["shared-k1", "live-k2", "late-k3", "p4ss"]);
    site.stop();
    for value in ["shared-k1", "live-k2", "late-k3", "p4ss $HOME"] {
        assert_eq!(
            files_with(&site.data(), value),
            Vec::<String>::new(),
            "{value}"
        );
    }

    // A restart and a new key change nothing for the next release; a removed secret is missed where it is named.
    site.start();
    assert_ends(
        &site.shipway(&["secret", "rotate-key"]),
        0,
        &["4 secrets are encrypted with a new key"],
    );
    set(&site, &["api_key"], "shared-k4");
    assert_says(&said(&shop.ship("2.0")), &["#2 serves production"]);
    assert_says(&said(&site.shipway(&["logs", "r2"])), &["ends with k4"]);
    assert_ends(
        &site.shipway(&["secret", "rm", "DB_PASSWORD", "--all-services"]),
        0,
        &["is removed"],
    );
    let told = said(&shop.ship("3.0"));
    assert_says(
        &told,
        &[
            "the secret DB_PASSWORD is not set",
            "shipway secret set DB_PASSWORD",
        ],
    );
    assert_says(&said(&site.shipway(&["status"])), &["#2"]);
}

#[test]
fn two_changes_of_one_version_and_bad_values_are_refused() {
    let site = Site::started();
    set(&site, &["KEY", "--service", "shop"], "a");
    let long = "x".repeat(48 * 1024 + 1);
    for (words, value, expected) in [
        (
            &["secret", "set", "A-B", "--service", "shop"][..],
            "x",
            "is not a valid name",
        ),
        (
            &["secret", "set", "github_token", "--service", "shop"],
            "x",
            "reserved",
        ),
        (
            &["secret", "set", "KEY", "--service", "shop"],
            "",
            "is empty",
        ),
        (
            &["secret", "set", "KEY", "--service", "shop"],
            &long,
            "at most 49152 are allowed",
        ),
        (
            &["secret", "set", "KEY"],
            "x",
            "this server has no services yet",
        ),
        (
            &["env", "set", "LEVEL", "--service", "shop"],
            "",
            "has no value",
        ),
    ] {
        assert_ends(&shipway_with(&site, words, value), 2, &[expected]);
    }
    let import = ["secret", "import", "-", "--service", "shop"];
    let refused = shipway_with(&site, &import, "A=1\nB='2\n");
    assert_ends(&refused, 2, &["the quote that begins in line 2 has no end"]);
    assert_ends(
        &shipway_with(&site, &import, "A=1\nB='2'\n"),
        0,
        &["2 secrets of shop are set: A, B"],
    );
    assert_eq!(secrets(&site).len(), 3);
    // With a key the log would have a digest of the values, from which a weak one can be guessed.
    let import = json!({ "secrets": { "C": "x" } });
    let keyed = site.post_once("/api/v1/secrets/import?service=shop", "once", &import);
    assert_eq!(keyed.0, 400, "{}", keyed.1);
    for (name, expected) in [("NONE", "there is no secret NONE"), ("KEY", "is removed")] {
        let removed = site.shipway(&["secret", "rm", name, "--service", "shop"]);
        assert_says(&said(&removed), &[expected]);
    }
}

#[test]
fn the_secrets_of_a_deleted_service_are_gone_for_the_next_of_its_name() {
    let site = Site::started();
    let shop = site.shop();
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    set(&site, &["KEY"], "of-the-first-owner");
    assert_ends(&site.shipway(&["delete", "shop", "--yes"]), 0, &["deleted"]);
    assert_eq!(secrets(&site), Vec::<Value>::new());
}
