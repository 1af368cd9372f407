//! Who is let in, and where a server can't be: tokens, addresses and folders that are taken.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, said},
    words::{assert_ends, assert_says, assert_silent_of},
};

const TOKEN: &str = "correct-horse-battery";

fn guarded() -> Site {
    let mut site = Site::new();
    site.env.push(("SHIPWAY_TOKEN", TOKEN.to_owned()));
    site.start();
    site
}

/// A command with this token.
fn shipway(site: &Site, token: Option<&str>, words: &[&str]) -> Output {
    let mut command = Command::new(SHIPWAY);
    command
        .args(words)
        .args(["--server", &site.url("")])
        .env_remove("SHIPWAY_TOKEN");
    if let Some(token) = token {
        command.env("SHIPWAY_TOKEN", token);
    }
    command.output().unwrap()
}

/// A push with this before the host.
fn pushed(site: &Site, folder: &str, credentials: &str) -> Output {
    let remote = format!("http://{credentials}{}/git/shop", site.listen);
    Shop::create(&site.folder.path().join(folder), &remote).ship("1.0")
}

#[test]
fn a_server_with_a_token_answers_nobody_without_it() {
    let site = guarded();
    for token in [None, Some("wrong"), Some("")] {
        let answered = shipway(&site, token, &["status"]);
        assert_ends(
            &answered,
            3,
            &["requires a token", "SHIPWAY_TOKEN", "--token"],
        );
        let answered = shipway(&site, token, &["deploy", "shop"]);
        assert_ends(&answered, 3, &["requires a token"]);
    }
    assert_ends(&shipway(&site, Some(TOKEN), &["status"]), 0, &["SERVICE"]);
    for credentials in ["", "ann:wrong@", "ann@"] {
        let refused = pushed(&site, &format!("as-{}", credentials.len()), credentials);
        let told = said(&refused);
        assert!(!refused.status.success(), "{told}");
        assert_silent_of(&told, &["remote: run"]);
        let mut git = Command::new("git");
        git.args([
            "ls-remote",
            &format!("http://{credentials}{}/git/shop", site.listen),
        ])
        .env("GIT_TERMINAL_PROMPT", "0");
        assert!(!git.output().unwrap().status.success());
    }
    // Whether it is well, and its numbers, are no secret.
    assert!(site.get("/readyz").is_some() && site.get("/healthz").is_some());
    assert!(site.get("/api/v1/services").is_none());
    assert!(site.get("/").is_none());
}

#[test]
fn the_token_is_the_password_of_git_and_the_user_is_on_record() {
    let site = guarded();
    let told = said(&pushed(&site, "repo", &format!("ann:{TOKEN}@")));
    assert_says(&told, &["#1 serves production"]);
    assert_silent_of(&told, &[TOKEN]);
    let history = shipway(&site, Some(TOKEN), &["history", "--json"]);
    let history: serde_json::Value = serde_json::from_slice(&history.stdout).unwrap();
    for rollout in history.as_array().unwrap() {
        assert_eq!(rollout["by"], "ann", "{rollout:#}");
    }
    assert_silent_of(&site.log(), &[TOKEN]);
}

#[test]
fn an_address_beyond_this_machine_needs_a_token() {
    let mut site = Site::new();
    site.listen = "0.0.0.0:0".to_owned();
    for token in [None, Some("")] {
        site.env = token
            .map(|token| ("SHIPWAY_TOKEN", token.to_owned()))
            .into_iter()
            .collect();
        let refused = site.command().output().unwrap();
        assert_ends(
            &refused,
            2,
            &["which other machines can reach", "SHIPWAY_TOKEN or --token"],
        );
    }
}

#[test]
fn an_address_that_is_taken_is_named_with_the_flag_that_changes_it() {
    let site = Site::new();
    let taken = TcpListener::bind(&site.listen).unwrap();
    let refused = site.command().output().unwrap();
    let words = [
        &*site.listen,
        "can't listen on",
        "is another server running",
        "--listen",
    ];
    assert_ends(&refused, 2, &words);
    drop(taken);
    let taken = TcpListener::bind(&site.proxy).unwrap();
    let refused = site.command().output().unwrap();
    let words = [&*site.proxy, "can't listen on", "--proxy-listen"];
    assert_ends(&refused, 2, &words);
    drop(taken);
}

#[test]
fn a_data_directory_serves_one_server_at_a_time() {
    let site = Site::started();
    let second = Site::new();
    let refused = Command::new(SHIPWAY)
        .args(["server", "--data"])
        .arg(site.data())
        .args(["--listen", &second.listen, "--proxy-listen", &second.proxy])
        .output()
        .unwrap();
    assert_ends(&refused, 2, &["another server", "--data"]);
    assert!(site.get("/readyz").is_some());
}

#[test]
fn flags_that_make_no_sense_are_usage_errors() {
    let site = Site::new();
    let refused = |flags: &[&str]| {
        let mut command = Command::new(SHIPWAY);
        command
            .args(["server", "--data"])
            .arg(site.data())
            .args(flags);
        command
            .args(["--proxy-listen", &site.proxy])
            .output()
            .unwrap()
    };
    assert_ends(&refused(&["--listen", "here"]), 2, &["--listen", "here"]);
    let missing = refused(&["--listen", &site.listen, "--secrets", "/nowhere/secrets"]);
    assert_ends(&missing, 2, &["/nowhere/secrets"]);
}
