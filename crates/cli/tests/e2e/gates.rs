//! What a release waits for and who hears of it: approvals, the tests of an environment, notifications.

use std::process::Output;

use serde_json::Value;

use crate::{
    listener::Listener,
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const HEAD: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
";

/// A shop whose environments are these.
fn shop(site: &Site, environments: &str) -> Shop {
    let shop = site.shop();
    shop.write("shipway.yaml", &format!("{HEAD}{environments}"));
    shop
}

/// A command in somebody's name.
fn as_user(site: &Site, name: &str, words: &[&str]) -> Output {
    let words: Vec<&str> = words.iter().copied().chain(["--as", name]).collect();
    site.shipway(&words)
}

const APPROVED: &str = "  production: { strategy: rolling, drain: 1s, approvals: { count: 2, from: [alice, bob, '@platform'] } }\n";

#[test]
fn a_release_waits_for_as_many_people_as_were_asked_for() {
    let site = Site::started();
    let shop = shop(&site, APPROVED);
    let told = said(&shop.ship("1.0"));
    assert_says(
        &told,
        &[
            "waiting for",
            "2 approvals",
            "alice",
            "shipway approve shop/ro1",
        ],
    );
    assert_says(&said(&site.shipway(&["status"])), &["waiting"]);
    let inbox = site.get("/api/v1/approvals").unwrap();
    assert_eq!(inbox["items"][0]["id"], "shop/ro1", "{inbox:#}");

    let refused = as_user(&site, "mallory", &["approve", "ro1"]);
    assert_ends(
        &refused,
        3,
        &["mallory may not approve", "alice, bob, @platform"],
    );
    let first = as_user(
        &site,
        "alice",
        &["approve", "ro1", "--reason", "looks good"],
    );
    assert_ends(&first, 0, &["waiting", "2 approvals", "approved by alice"]);
    let again = as_user(&site, "alice", &["approve", "ro1"]);
    assert_ends(&again, 0, &["waiting", "2 approvals", "approved by alice"]);
    assert_ne!(site.ask("/shop/").map(|(status, _)| status), Some(200));

    let body = serde_json::json!({ "groups": ["@platform"] });
    let (status, problem) = site.post("/api/v1/rollouts/shop/1/approve", &body);
    assert_eq!(status, 400);
    assert_says(
        &problem.to_string(),
        &["groups can't be passed in a request", "@platform"],
    );
    let second = as_user(&site, "bob", &["approve", "ro1"]);
    assert_ends(&second, 0, &["ro1"]);
    let watched = site.shipway(&["watch", "ro1"]);
    assert_ends(&watched, 0, &["approved by alice", "bob"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
    let late = as_user(&site, "bob", &["approve", "ro1"]);
    assert_ends(&late, 1, &["no longer possible"]);
}

#[test]
fn a_release_that_is_rejected_goes_back_and_says_who_and_why() {
    let site = Site::started();
    let shop = shop(&site, APPROVED);
    shop.ship("1.0");
    let no = as_user(
        &site,
        "bob",
        &["reject", "ro1", "--reason", "the prices are wrong"],
    );
    assert_ends(&no, 0, &["shop/ro1"]);
    let watched = site.shipway(&["watch", "ro1"]);
    assert_ends(&watched, 1, &["rejected by bob: the prices are wrong"]);
    let again = as_user(&site, "bob", &["reject", "ro1"]);
    assert_ends(&again, 1, &["no longer possible"]);
    let history = said(&site.shipway(&["history"]));
    assert_says(&history, &["rejected", "rejected by bob"]);
    let deploy = site.shipway(&["deploy", "shop", "--env", "production"]);
    assert_ends(&deploy, 1, &["#1", "rejected", "--force"]);
}

const TESTED: &str = "
  staging: { strategy: recreate, drain: 1s, tests: .github/workflows/e2e.yml }
  production: { strategy: rolling, drain: 1s }
";

const TESTS: &str = "
name: e2e
on: workflow_call
jobs:
  ask:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Ask it
        run: |
          echo \"asking $SHIPWAY_URL\"
          answer=$(python3 -c 'import os, urllib.request; print(urllib.request.urlopen(os.environ[\"SHIPWAY_URL\"]).read().decode())')
          echo \"it says $answer\"
          test \"$answer\" = \"$(cat VERSION)\"
          ! grep -q bug VERSION
";

#[test]
fn an_environment_is_tested_before_the_release_goes_on() {
    let site = Site::started();
    let shop = shop(&site, TESTED);
    shop.write(".github/workflows/e2e.yml", TESTS);
    let told = said(&shop.ship("1.0"));
    let words = [
        "tests of staging",
        "run r2 succeeded",
        "#1 serves production",
    ];
    assert_says(&told, &words);
    let told = said(&shop.ship("1.1-bug"));
    assert_says(
        &told,
        &[
            "#2 serves staging",
            "run r4 failed",
            "the tests of staging failed (run r4)",
        ],
    );
    assert_silent_of(&told, &["#2 serves production"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
    assert!(site.rollout("production", 2).is_none());
    let logs = said(&site.shipway(&["logs", "r4"]));
    assert_says(&logs, &["it says 1.1-bug"]);
    let told = said(&shop.ship("1.2"));
    assert_says(&told, &["#3 serves production"]);
}

#[test]
fn people_and_programs_hear_of_a_rollback() {
    let listener = Listener::start();
    let mut site = Site::new();
    let secrets = site.folder.path().join("secrets");
    std::fs::write(
        &secrets,
        format!("SLACK=http://{}/slack/T0/hush\n", listener.address),
    )
    .unwrap();
    std::fs::set_permissions(
        &secrets,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    site.flags = vec![
        "--secrets".to_owned(),
        secrets.to_string_lossy().into_owned(),
    ];
    site.start();
    let notify = format!(
        "[{{ slack: $SLACK }}, {{ webhook: 'http://{}/hook' }}]",
        listener.address
    );
    let shop = shop(
        &site,
        &format!("  production: {{ strategy: rolling, drain: 1s, notify: {notify} }}\n"),
    );
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop.write("MOOD", "exits");
    shop.ship("1.1");
    let rolled_back = |bodies: &[Value]| {
        bodies
            .iter()
            .find(|body| body.to_string().contains("rolled back"))
            .cloned()
    };
    let (mut program, mut people) = (None, None);
    until("both notifications", || {
        program = rolled_back(&listener.at("/hook"));
        people = rolled_back(&listener.at("/slack/T0/hush"));
        program.is_some() && people.is_some()
    });
    let program = program.unwrap();
    assert_eq!(program["severity"], "bad", "{program:#}");
    assert_eq!(program["service"], "shop");
    assert_eq!(program["environment"], "production");
    assert_eq!(program["release"], 2);
    assert_says(
        &program.to_string(),
        &["no stock, leaving", &site.url("/rollouts/shop/2")],
    );
    let people = people.unwrap();
    assert_says(
        people["text"].as_str().unwrap(),
        &["shop #2", "rolled back", "production"],
    );
    assert!(people["blocks"].is_array(), "{people:#}");
    // The address is a secret.
    assert_silent_of(&site.log(), &["hush"]);
    assert_silent_of(&said(&site.shipway(&["history", "--json"])), &["hush"]);
}

#[test]
fn a_webhook_that_never_answers_keeps_nothing_from_the_others() {
    let (hanging, listener) = (Listener::hanging(), Listener::start());
    let mut site = Site::new();
    site.start();
    let notify = format!(
        "[{{ webhook: 'http://{hanging}/first' }}, {{ webhook: 'http://{}/second' }}]",
        listener.address
    );
    let shop = shop(
        &site,
        &format!("  production: {{ strategy: rolling, drain: 1s, notify: {notify} }}\n"),
    );
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop.write("MOOD", "exits");
    shop.ship("1.1");
    let arrived = |words: &str| {
        let bodies = listener.at("/second");
        bodies.iter().any(|body| body.to_string().contains(words))
    };
    until("the second destination's notification", || {
        arrived("was rolled back")
    });
    assert!(arrived("was promoted"), "{:#?}", listener.at("/second"));
}

/// Approved by two people of whom none wrote the commit, with a freeze that is in force at all times of the test.
const GUARDED: &str = "  production:
    strategy: rolling
    drain: 1s
    approvals: [{ from: [alice, bob, Ada], not: [author] }, { from: [bob, carol] }]
    freeze: [{ cron: '0 0 * * *', for: 23h59m, zone: UTC, reason: inventory }]
    break_glass: [dave]
";

#[test]
fn a_frozen_release_is_approved_by_two_people_opened_by_break_glass_and_reviewed_by_another() {
    let site = Site::started();
    let shop = shop(&site, GUARDED);
    shop.ship("1.0");
    let plan = said(&site.shipway(&["plan", "shop", "--env", "production"]));
    assert_says(
        &plan,
        &[
            "the end of a freeze",
            "frozen until",
            "inventory",
            "plan digest: sha256:",
        ],
    );
    let listed = site.shipway(&["approve"]);
    assert_ends(
        &listed,
        0,
        &["shop/ro1", "shipway approve shop/ro1 --plan-digest sha256:"],
    );
    let other = "sha256:".to_owned() + &"0".repeat(64);
    let stale = as_user(&site, "alice", &["approve", "ro1", "--plan-digest", &other]);
    assert_ends(&stale, 1, &["the plan of shop/ro1 is not what you saw"]);
    let first = as_user(&site, "bob", &["approve", "ro1"]);
    assert_ends(&first, 0, &["approved by bob", "missing"]);
    let second = as_user(&site, "alice", &["approve", "ro1", "--reason", "fine"]);
    assert_ends(
        &second,
        0,
        &["the end of a freeze", "frozen until", "inventory"],
    );
    assert_says(&said(&site.shipway(&["status"])), &["frozen until"]);

    let refused = as_user(
        &site,
        "alice",
        &["break-glass", "ro1", "--reason", "please"],
    );
    assert_ends(&refused, 3, &["production allows it to dave"]);
    let opened = as_user(
        &site,
        "dave",
        &["break-glass", "ro1", "--reason", "shop is down"],
    );
    assert_ends(&opened, 0, &["shipway review shop/ro1"]);
    let watched = site.shipway(&["watch", "ro1"]);
    assert_ends(&watched, 0, &["BREAK-GLASS", "shop is down"]);
    assert_says(
        &said(&site.shipway(&["status"])),
        &["shipway review shop/ro1"],
    );
    let own = as_user(&site, "dave", &["review", "ro1"]);
    assert_ends(&own, 3, &["another person must review it"]);
    let reviewed = as_user(&site, "alice", &["review", "ro1", "--reason", "was right"]);
    assert_ends(&reviewed, 0, &["shop/ro1"]);
    assert_ends(&site.shipway(&["approve"]), 0, &["nothing is waiting"]);
}

#[test]
fn the_author_is_refused_and_a_superseded_rollout_names_the_one_that_replaced_it() {
    let site = Site::started();
    let shop = shop(
        &site,
        "  production: { strategy: rolling, drain: 1s, approvals: { count: 1, not: [author] } }\n",
    );
    shop.ship("1.0");
    let refused = as_user(&site, "ann", &["approve", "ro1"]);
    assert_ends(&refused, 3, &["is the author of the change"]);
    shop.ship("1.1");
    until("the second rollout waits", || {
        let inbox = site.get("/api/v1/approvals").unwrap_or_default();
        inbox["items"][0]["id"] == "shop/ro2"
    });
    let late = as_user(&site, "bob", &["approve", "ro1"]);
    assert_ends(&late, 1, &["shop/ro1 was superseded by rollout shop/ro2"]);
    let (status, problem) = site.post("/api/v1/rollouts/shop/1/approve", &serde_json::json!({}));
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["type"], "superseded", "{problem}");
    assert_ends(
        &as_user(&site, "bob", &["approve", "ro2"]),
        0,
        &["shop/ro2"],
    );
    assert_ends(&site.shipway(&["watch", "ro2"]), 0, &["approved by bob"]);
}
