//! The commands of a server as people use them: what is there, what is done to it, and what they say when it can't be done.

use std::process::Output;

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::{assert_ends, assert_says},
};

/// Production by a canary that stays at half until somebody does something.
const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  staging: { strategy: recreate, drain: 1s }
  production:
    instances: 2
    drain: 1s
    strategy: { canary: { steps: [{ weight: 50, hold: 10m }] } }
";

const BY_HAND: &str = "
name: by hand
on:
  workflow_dispatch:
    inputs: { who: { required: true }, long: { default: '0' } }
jobs:
  greet:
    runs-on: ubuntu-latest
    steps:
      - run: echo \"hello ${{ inputs.who }}\"
      - run: sleep ${{ inputs.long }}
";

/// A shop that serves 1.0; the first release has nobody to share with and is in at once.
fn serving(site: &Site) -> Shop {
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    shop.write(".github/workflows/hand.yml", BY_HAND);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop
}

/// A shop whose second release is at half of production, as rollout 4.
fn half_way(site: &Site) -> Shop {
    let shop = serving(site);
    // A hold that long is not waited for.
    assert_says(
        &said(&shop.ship("1.1")),
        &["holding for 10 min", "shipway watch shop/ro4"],
    );
    shop
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

#[test]
fn what_there_is_can_be_read_by_people_and_programs() {
    let site = Site::started();
    assert_ends(
        &site.shipway(&["status"]),
        0,
        &["no services yet", "push a commit"],
    );
    assert_ends(
        &site.shipway(&["history"]),
        2,
        &["no services yet", "shipway init"],
    );
    let shop = serving(&site);
    assert_ends(
        &site.shipway(&["status"]),
        0,
        &[
            "staging",
            "production",
            "1.0",
            "2/2 ready",
            "http://shop.localhost:",
        ],
    );
    assert_ends(
        &site.shipway(&["history"]),
        0,
        &["ro1", "ro2", "#1", "promoted", "Ann"],
    );
    assert_ends(&site.shipway(&["logs", "r1"]), 0, &["py_compile"]);
    assert_ends(
        &site.shipway(&["logs", "ro2"]),
        0,
        &["1 │", "2 │", "serving 1.0"],
    );
    assert_ends(
        &site.shipway(&["logs", "shop.production.1.1"]),
        0,
        &["serving 1.0"],
    );
    assert_ends(
        &site.shipway(&["watch", "ro2"]),
        0,
        &["start 2 instances of #1"],
    );
    let plan = site.shipway(&["plan", "--env", "production"]);
    assert_ends(&plan, 0, &["shop #1 → production (canary)"]);
    for words in [
        &["status", "--json"][..],
        &["history", "--json"],
        &["plan", "--env", "staging", "--json"],
        &["watch", "ro2", "--json"],
    ] {
        let answered = site.shipway(words);
        assert_eq!(answered.status.code(), Some(0), "{}", said(&answered));
        json(&answered);
    }
    assert_eq!(
        json(&site.shipway(&["history", "--json"]))[0]["by"],
        "Ann <ann@example.com>"
    );
    commands_are_about_the_service_of_the_folder(&site, &shop);
}

fn commands_are_about_the_service_of_the_folder(site: &Site, shop: &Shop) {
    let inner = shop.path.join("docs/en");
    std::fs::create_dir_all(&inner).unwrap();
    for words in [&["history"][..], &["watch", "ro2"], &["status"], &["logs"]] {
        assert_ends(&site.shipway_in(&inner, words), 0, &[]);
    }
    // A folder of another service: nothing is done to the only one of the server, which is not meant.
    std::fs::write(inner.join("shipway.yaml"), "service: cart\nrun: [\n").unwrap();
    assert_ends(
        &site.shipway_in(&inner, &["history"]),
        2,
        &["shipway.yaml:3", "or name the service in the command"],
    );
    std::fs::write(inner.join("shipway.yaml"), "service: cart\nrun: []\n").unwrap();
    for words in [
        &["rollback", "--env", "production"][..],
        &["abort", "ro2"],
        &["status"],
    ] {
        let refused = site.shipway_in(&inner, words);
        let told = [
            "the server has no service cart (",
            "docs/en/shipway.yaml)",
            "name one of shop in the command, or push this one: git push http://",
        ];
        assert_ends(&refused, 2, &told);
    }
    assert_ends(&site.shipway_in(&inner, &["history", "shop"]), 0, &["ro2"]);
    let all = site.shipway_in(&inner, &["status", "--all"]);
    assert_ends(&all, 0, &["production"]);
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let site = Site::started();
    serving(&site);
    let mut wrong = Vec::new();
    for (words, code, told) in [
        (&["watch", "ro9"][..], 1, &["no such rollout: shop/ro9"][..]),
        (&["approve", "ro9"], 1, &["no such rollout: shop/ro9"]),
        (&["approve", "ro2"], 1, &["no longer possible"]),
        (&["pause", "ro2"], 1, &["no longer possible"]),
        (&["watch", "seven"], 2, &["\"seven\" is not an id", "ro7"]),
        (
            &["approve", "r1"],
            1,
            &["no job of shop/r1 is waiting for approval"],
        ),
        (&["cancel", "ro1"], 2, &["ro1 is a rollout", "r12"]),
        (&["cancel", "r9"], 1, &["no such run: shop/r9"]),
        (&["cancel", "r1"], 1, &["r1 has already finished (success)"]),
        (&["logs", "r9"], 1, &["no such run: shop/r9"]),
        (
            &["logs", "r1", "--job", "biuld"],
            2,
            &["no such job", "build"],
        ),
        (
            &["logs", "shop.production.7.1"],
            1,
            &["shop.production.7.1"],
        ),
        (&["logs", "nonsense"], 2, &["nonsense", "r12", "ro7"]),
        (
            &["deploy", "shoe"],
            1,
            &["no such service: shoe", "/git/shoe"],
        ),
        (
            &["deploy", "--env", "nowhere"],
            2,
            &["nowhere", "staging, production"],
        ),
        (&["deploy", "--release", "9"], 1, &["no release #9"]),
        (
            &["deploy", "--commit", "abcdef1"],
            1,
            &["no release of commit abcdef1", "successful runs"],
        ),
        (
            &["plan", "--env", "nowhere"],
            2,
            &["nowhere", "staging, production"],
        ),
        (&["history", "shoe"], 1, &["no such service: shoe"]),
        (&["status", "shoe"], 1, &["no such service: shoe"]),
        (
            &["rollback", "--env", "production"],
            1,
            &["no earlier release in production", "--release"],
        ),
        (
            &["rollback", "--env", "nowhere"],
            2,
            &["nowhere", "staging"],
        ),
        (
            &["dispatch", "nowhere.yml"],
            2,
            &["nowhere.yml", "workflow_dispatch"],
        ),
        (
            &["dispatch", "--ref", "nowhere"],
            1,
            &["no branch or tag nowhere"],
        ),
        (&["dispatch", "--input", "who"], 2, &["NAME=VALUE"]),
    ] {
        let answered = site.shipway(words);
        let all = said(&answered);
        let missing: Vec<_> = told.iter().filter(|word| !all.contains(**word)).collect();
        if answered.status.code() != Some(code) || !missing.is_empty() {
            let got = answered.status.code();
            wrong.push(format!(
                "{words:?}: {got:?} for {code}, without {missing:?}:\n{all}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_rollout_is_paused_resumed_and_promoted_by_hand() {
    let site = Site::started();
    half_way(&site);
    let paused = site.shipway(&["pause", "ro4", "--reason", "lunch"]);
    assert_ends(&paused, 0, &["shop/ro4 of #2 → production: paused"]);
    // Whoever looks learns why, and what can be done.
    let stuck = "shop/ro4 is paused by ann: lunch; continue: shipway resume shop/ro4; ";
    assert_ends(&site.shipway(&["status"]), 0, &["ro4 of #2: paused", stuck]);
    assert_ends(&site.shipway(&["history"]), 0, &["lunch"]);
    assert_ends(&site.shipway(&["resume", "ro4"]), 0, &["holding"]);
    let promoted = json(&site.shipway(&["promote", "ro4", "--json"]));
    assert_eq!(promoted["id"], "shop/ro4");
    assert_ends(
        &site.shipway(&["watch", "ro4"]),
        0,
        &["paused: lunch (by ann)", "resumed (by ann)"],
    );
    let late = site.shipway(&["abort", "ro4"]);
    let way = "to roll back: shipway rollback shop --env production";
    assert_ends(&late, 1, &["already finished", way]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
    let back = site.shipway(&["rollback", "--env", "production", "--watch"]);
    assert_ends(&back, 0, &["rollout", "#1"]);
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}

#[test]
fn a_rollout_is_aborted_and_tried_again() {
    let site = Site::started();
    half_way(&site);
    let aborted = site.shipway(&["abort", "ro4", "--reason", "the phones ring"]);
    assert_ends(&aborted, 0, &["shop/ro4"]);
    assert_ends(
        &site.shipway(&["watch", "ro4"]),
        1,
        &["the phones ring", "#1 serves all traffic"],
    );
    assert_ends(
        &site.shipway(&["resume", "ro4"]),
        1,
        &["no longer possible"],
    );
    let refused = site.shipway(&["deploy", "--env", "production"]);
    assert_ends(&refused, 1, &["#2", "aborted", "--force"]);
    let again = site.shipway(&["retry", "ro4"]);
    assert_ends(
        &again,
        0,
        &["rollout shop/ro5 started", "shipway watch shop/ro5"],
    );
    site.shipway(&["promote", "ro5"]);
    assert_ends(&site.shipway(&["watch", "ro5"]), 0, &["#2"]);
    let deployed = site.shipway(&[
        "deploy",
        "--release",
        "1",
        "--env",
        "staging",
        "--watch",
        "--reason",
        "to compare",
    ]);
    assert_ends(&deployed, 0, &["rollout shop/ro6 started"]);
    let history = json(&site.shipway(&["history", "--json"]));
    assert_eq!(history[0]["by"], "ann");
    assert_eq!(history[0]["why"], "to compare");
}

#[test]
fn a_workflow_is_started_by_hand_and_cancelled() {
    let site = Site::started();
    serving(&site);
    let missing = site.shipway(&["dispatch", "hand.yml"]);
    assert_ends(&missing, 2, &["who", "required"]);
    let begun = site.shipway(&["dispatch", "hand.yml", "--input", "who=bob"]);
    assert_ends(
        &begun,
        0,
        &["run shop/r2 started", "shipway logs shop/r2 --follow"],
    );
    assert_ends(
        &site.shipway(&["logs", "r2", "--follow"]),
        0,
        &["hello bob"],
    );
    let begun = site.shipway(&[
        "dispatch", "hand.yml", "--input", "who=eve", "--input", "long=600", "--json",
    ]);
    assert_eq!(json(&begun)["run"], "shop/r3");
    until("it to sleep", || {
        said(&site.shipway(&["logs", "r3"])).contains("hello eve")
    });
    let cancelled = site.shipway(&["cancel", "r3", "--reason", "too long"]);
    assert_ends(&cancelled, 0, &["r3 is"]);
    until("it to end", || {
        site.get("/api/v1/runs/shop/3")
            .is_some_and(|run| run["conclusion"] == "cancelled")
    });
}
