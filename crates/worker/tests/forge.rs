//! Actions of forges that require a login or fail temporarily.

#[path = "support/host.rs"]
mod host;
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use host::{Door, Host};
use shipway_worker::forge::{Forge as Remote, WorkflowReader};
use shipway_workflow::job::{ActionSource, Conclusion::*};
use support::{Bench, Forge};

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

const SAY: &str = "runs:\n  using: composite\n  steps: [{ shell: sh, run: 'echo \"> said $(cat $TOKEN_FILE | tr a-z A-Z; cat $TOKEN_FILE)\"' }]\n";
const TOKEN: &str = "forge-token-4f81a2c6";

fn with_say() -> Forge {
    let forge = Forge::new();
    forge.commit("acme/say", "v1", &[("action.yml", SAY)]);
    forge
}

fn private(forge: &Forge, pair: &str) -> Host {
    let door = Door {
        wants: Some(format!("Basic {}", STANDARD.encode(pair))),
        secret: Some(TOKEN.to_owned()),
        ..Door::default()
    };
    Host::of(forge.root.path(), door)
}

fn token_file(folder: &Path, text: &str) -> std::path::PathBuf {
    let file = folder.join("token");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// A job that uses the action and tries to print the token.
fn bench(forge: &Forge, host: &Host, token: Option<&str>) -> Bench {
    let mut bench = Bench::steps("- { uses: acme/say@v1 }").forge(forge);
    bench.spec.actions.forge = host.address.clone();
    let file = token.map(|token| token_file(bench.root.path(), token));
    let shown = file.clone().unwrap_or_else(|| "/dev/null".into());
    bench.spec.env = vec![shipway_workflow::model::TemplateTable::Entries(vec![(
        "TOKEN_FILE".to_owned(),
        shipway_workflow::expr::Template::literal(shown.display().to_string()),
    )])];
    bench.spec.actions.token_file = file;
    bench
}

#[test]
fn a_private_forge_is_told_the_token_and_nobody_else_sees_it() {
    let forge = with_say();
    let host = private(&forge, &format!("x-access-token:{TOKEN}"));
    let outcome = bench(&forge, &host, Some(TOKEN)).run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    // Masking is case-sensitive.
    let told = format!("said {} ***", TOKEN.to_uppercase());
    assert_eq!(outcome.told(), [told.replace(" ***", "***")]);
    assert!(!outcome.log.contains(TOKEN) && !outcome.journal().contains(TOKEN));
    assert_eq!(host.exposed(), Vec::<String>::new());
}

#[test]
fn a_name_and_password_in_the_address_stay_off_command_lines_too() {
    let forge = with_say();
    let host = private(&forge, &format!("me:{TOKEN}"));
    let mut bench = bench(&forge, &host, None);
    let with = format!("http://me:{TOKEN}@");
    bench.spec.actions.forge = host.address.replace("http://", &with);
    let outcome = bench.run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert!(!outcome.log.contains(TOKEN) && !outcome.journal().contains(TOKEN));
    assert_eq!(host.exposed(), Vec::<String>::new());
}

#[test]
fn a_forge_that_refuses_is_told_of_with_what_to_do() {
    let forge = with_say();
    let host = private(&forge, &format!("x-access-token:{TOKEN}"));
    for (token, expected) in [
        (None, "SHIPWAY_FORGE_TOKEN_FILE"),
        (Some("wrong-token-77"), "it refuses the token in /"),
        (Some("two\nlines"), "not one line"),
    ] {
        let outcome = bench(&forge, &host, token).run();
        assert_eq!(outcome.conclusion, Failure);
        let why = outcome.why.unwrap();
        assert!(
            why.contains("acme/say@v1") && why.contains(expected),
            "{why}"
        );
        assert!(
            !why.contains("wrong-token-77") && !why.contains("lines\n"),
            "{why}"
        );
    }
}

#[test]
fn what_fails_for_a_moment_is_tried_again() {
    let forge = with_say();
    let door = Door {
        out_of_order: 2,
        ..Door::default()
    };
    let host = Host::of(forge.root.path(), door);
    let outcome = bench(&forge, &host, None).run();
    assert_eq!(outcome.conclusion, Success, "{}", outcome.log);
    assert!(host.requests() > 2, "{}", host.requests());
}

#[test]
fn a_forge_that_stays_out_of_order_is_given_up() {
    let forge = with_say();
    let door = Door {
        out_of_order: usize::MAX,
        ..Door::default()
    };
    let host = Host::of(forge.root.path(), door);
    let outcome = bench(&forge, &host, None).run();
    assert_eq!(outcome.conclusion, Failure);
    let why = outcome.why.unwrap();
    assert!(
        why.contains("503") && why.contains("tried 4 times"),
        "{why}"
    );
    assert_eq!(host.requests(), 4);
}

#[tokio::test]
async fn one_run_sees_each_repository_at_one_commit() {
    let forge = Forge::new();
    let path = ".github/workflows/a.yml";
    let first = forge.commit("acme/flows", "v1", &[(path, "on: push")]);
    let source = ActionSource {
        forge: forge.root.path().display().to_string(),
        ..ActionSource::default()
    };
    let scratch = tempfile::tempdir().unwrap();
    let fresh = || {
        let cache = scratch.path().join("cache");
        WorkflowReader::new(Remote::new(&source, cache, scratch.path().to_owned()))
    };
    let mut workflows = fresh();
    let read = workflows
        .read_workflow("acme/flows", path, "main")
        .await
        .unwrap();
    assert_eq!((read.text.as_str(), &read.commit), ("on: push", &first));
    let second = forge.commit("acme/flows", "v2", &[(path, "on: pull_request")]);
    let again = workflows
        .read_workflow("Acme/Flows", path, "main")
        .await
        .unwrap();
    assert_eq!(again.commit, first);
    let next = fresh()
        .read_workflow("acme/flows", path, "main")
        .await
        .unwrap();
    assert_eq!(next.commit, second);
    for (repository, path, reference, expected) in [
        (
            "acme/nothing",
            path,
            "v1",
            "acme/nothing at v1 can't be fetched",
        ),
        (
            "acme/flows",
            path,
            "v9",
            "acme/flows at v9 can't be fetched",
        ),
        (
            "acme/flows",
            ".github/workflows/b.yml",
            "v1",
            "no such file",
        ),
    ] {
        let read = workflows.read_workflow(repository, path, reference).await;
        let why = read.unwrap_err().to_string();
        assert!(why.contains(expected), "{why}");
    }
}
