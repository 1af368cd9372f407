//! Forges, by exchanges with the shapes that they document: webhooks come in, their repository is fetched by git over HTTP, and statuses,
//! deployments and comments go out.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    shop::Shop,
    site::{Site, agent, free_address, said, until},
    words::{assert_ends, assert_says},
};

const FAKE_FORGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/fake_forge.py");
const WEBHOOK_SECRET: &str = "a-long-secret-for-webhooks";

const CONFIG: &str = "
service: shop
artifact: { source: . }
workflow: .github/workflows/cd.yml
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  production: { strategy: recreate }
";

const WORKFLOW: &str = r#"
name: cd
on:
  push:
  pull_request:
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - env: { VALUE: "${{ secrets.API_KEY }}", FORGE: "${{ secrets.FORGE_TOKEN }}" }
        run: |
          echo "event $GITHUB_EVENT_NAME ref $GITHUB_REF from [$GITHUB_HEAD_REF] to [$GITHUB_BASE_REF]"
          echo "number [${{ github.event.number }}] key has ${#VALUE} letters, token has ${#FORGE}"
          cat VERSION
"#;

/// A forge with the repository `acme/shop`.
struct FakeForge {
    folder: PathBuf,
    address: String,
    process: Option<Child>,
    shop: Shop,
}

impl FakeForge {
    fn new(site: &Site) -> Self {
        let folder = site.folder.path().join("forge");
        let bare = folder.join("acme/shop.git");
        fs::create_dir_all(&bare).unwrap();
        let shop = Shop::create(&site.folder.path().join("work"), bare.to_str().unwrap());
        shop.git(&[
            "init",
            "--quiet",
            "--bare",
            "--initial-branch=main",
            bare.to_str().unwrap(),
        ]);
        shop.write("shipway.yaml", CONFIG);
        shop.write(".github/workflows/cd.yml", WORKFLOW);
        let address = free_address();
        Self {
            folder,
            address,
            process: None,
            shop,
        }
    }

    fn start(&mut self) {
        let port = self.address.rsplit(':').next().unwrap();
        let mut command = Command::new("python3");
        command.args([FAKE_FORGE, port]).arg(&self.folder);
        self.process = Some(command.stdin(Stdio::null()).spawn().unwrap());
        let url = format!("http://{}/", self.address);
        until("the forge to listen", || agent().get(&url).call().is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Commits a version, and pushes it to a reference of the forge.
    fn commit(&self, version: &str, reference: &str) -> String {
        self.shop.write("VERSION", &format!("{version}\n"));
        self.shop.git(&["add", "--all"]);
        self.shop.git(&["commit", "--quiet", "--message", version]);
        let target = format!("HEAD:{reference}");
        let bare = self.folder.join("acme/shop.git");
        self.shop.git(&[
            "push",
            "--quiet",
            "--force",
            bare.to_str().unwrap(),
            &target,
        ]);
        let mut command = Command::new("git");
        command
            .args(["rev-parse", "HEAD"])
            .current_dir(&self.shop.path);
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Calls of the API that match a part of their path, in order.
    fn calls(&self, part: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("calls.jsonl")).unwrap_or_default();
        let calls = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_wanted = |call: &Value| {
            call["path"]
                .as_str()
                .is_some_and(|path| path.contains(part))
        };
        calls.filter(is_wanted).collect()
    }

    /// The states of a status, in order.
    fn states(&self, commit: &str, context: &str) -> Vec<String> {
        let calls = self.calls(&format!("/statuses/{commit}"));
        let calls = calls.iter().map(|call| &call["body"]);
        let calls = calls.filter(|body| body["context"] == context || body["name"] == context);
        calls
            .map(|body| body["state"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Drop for FakeForge {
    fn drop(&mut self) {
        self.stop();
    }
}

fn set_secret(site: &Site, name: &str, value: &str) {
    let file = site.folder.path().join("secret-value");
    fs::write(&file, value).unwrap();
    let file = file.to_str().unwrap();
    let words = [
        "secret",
        "set",
        name,
        "--service",
        "shop",
        "--from-file",
        file,
    ];
    assert_ends(&site.shipway(&words), 0, &["is set"]);
}

fn connect(site: &Site, forge: &FakeForge, kind: &str) {
    set_secret(site, "FORGE_WEBHOOK_SECRET", WEBHOOK_SECRET);
    set_secret(site, "FORGE_TOKEN", "forge-token-4711");
    let url = format!("http://{}", forge.address);
    let words = ["forge", "connect", kind, "acme/shop", "--service", "shop"];
    let more = ["--forge-url", &url, "--token-secret", "FORGE_TOKEN"];
    let connected = site.shipway(&[&words[..], &more].concat());
    let hook = site.url(&format!("/hooks/{kind}"));
    assert_ends(
        &connected,
        0,
        &["shop follows acme/shop", &hook, "FORGE_WEBHOOK_SECRET"],
    );
}

fn hmac_sha256(key: &[u8], body: &[u8]) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|it| it ^ byte);
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(body)
        .finalize();
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a webhook with these headers.
fn send(site: &Site, kind: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let mut request = agent().post(site.url(&format!("/hooks/{kind}")));
    request = request.header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.send(body).unwrap();
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_json().unwrap_or(Value::Null))
}

/// Sends a webhook as its forge does.
fn deliver(site: &Site, kind: &str, event: &str, payload: &Value) -> (u16, Value) {
    let body = payload.to_string();
    let mac = hmac_sha256(WEBHOOK_SECRET.as_bytes(), body.as_bytes());
    let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    let prefixed = format!("sha256={mac}");
    let headers: Vec<(&str, &str)> = match kind {
        "github" => vec![
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", id),
            ("X-Hub-Signature-256", &prefixed),
        ],
        "gitlab" => vec![
            ("X-Gitlab-Event", event),
            ("X-Gitlab-Event-UUID", id),
            ("X-Gitlab-Token", WEBHOOK_SECRET),
        ],
        _ => vec![
            ("X-Gitea-Event", event),
            ("X-Gitea-Delivery", id),
            ("X-Gitea-Signature", &mac),
            ("X-GitHub-Event", event),
        ],
    };
    send(site, kind, &headers, body.as_bytes())
}

fn push_payload(reference: &str, after: &str) -> Value {
    json!({
        "ref": reference,
        "before": "0".repeat(40),
        "after": after,
        "repository": { "id": 1, "full_name": "acme/shop", "unknown_field": [1, 2] },
        "pusher": { "name": "ada", "email": "ada@example.com" },
        "sender": { "login": "ada", "id": 7 },
    })
}

fn pull_request_payload(action: &str, head: &str, head_repository: u64, updated_at: &str) -> Value {
    json!({
        "action": action,
        "number": 7,
        "pull_request": {
            "id": 4711, "number": 7, "state": "open", "title": "Fix", "updated_at": updated_at,
            "merged": false, "merge_commit_sha": null,
            "head": { "ref": "fix", "sha": head, "repo": { "id": head_repository } },
            "base": { "ref": "main", "sha": "0".repeat(40), "repo": { "id": 1 } },
        },
        "repository": { "id": 1, "full_name": "acme/shop" },
        "sender": { "login": "mallory", "id": 8 },
    })
}

fn runs(site: &Site) -> Vec<Value> {
    let list = site.get("/api/v1/runs?service=shop").unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn wait_for_runs(site: &Site, count: usize) -> Vec<Value> {
    until("the runs to end", || {
        let runs = runs(site);
        let is_over = |run: &Value| {
            !matches!(
                run["status"].as_str(),
                Some("queued" | "running" | "waiting")
            )
        };
        runs.len() == count && runs.iter().all(is_over)
    });
    runs(site)
}

fn job_log(site: &Site, run: usize) -> String {
    let path = format!("/api/v1/runs/shop/{run}/jobs/build/log");
    let mut answer = agent().get(site.url(&path)).call().unwrap();
    answer.body_mut().read_to_string().unwrap()
}

fn handled(site: &Site) -> Vec<String> {
    let view = site.get("/api/v1/forges/shop").unwrap_or_default();
    let deliveries = view["deliveries"].as_array().cloned().unwrap_or_default();
    let outcomes = deliveries.iter().filter_map(|it| it["outcome"].as_str());
    outcomes.map(str::to_owned).collect()
}

#[test]
fn a_push_at_the_forge_is_released_and_its_states_are_written_back() {
    let site = Site::started();
    let mut forge = FakeForge::new(&site);
    forge.start();
    connect(&site, &forge, "github");
    let commit = forge.commit("1.0", "refs/heads/main");
    let (status, answer) = deliver(
        &site,
        "github",
        "push",
        &push_payload("refs/heads/main", &commit),
    );
    assert_eq!(
        (status, &answer["accepted"]),
        (202, &json!("refs/heads/main, for shop"))
    );
    until("the release to serve", || {
        site.ask("/shop/")
            .is_some_and(|it| it == (200, "1.0".to_owned()))
    });
    let context = "shipway/shop/cd (push)";
    until("the statuses", || forge.states(&commit, context).len() == 2);
    assert_eq!(forge.states(&commit, context), ["pending", "success"]);
    until("the deployment", || forge.calls("/deployments/").len() >= 2);
    let created = forge.calls("/deployments");
    assert_eq!(created[0]["body"]["ref"], json!(commit));
    assert_eq!(created[0]["body"]["environment"], "production");
    let states: Vec<_> = forge
        .calls("/deployments/")
        .iter()
        .map(|it| it["body"]["state"].clone())
        .collect();
    assert_eq!(states, ["in_progress", "success"]);
    assert_eq!(runs(&site)[0]["by"], "ada");
    assert_says(
        &job_log(&site, 1),
        &["event push ref refs/heads/main", "token has 0"],
    );

    // A tag runs its workflows and releases nothing; the deleted tag and an unknown event start nothing.
    forge
        .shop
        .git(&["tag", "--annotate", "--message", "one", "v1"]);
    let bare = forge.folder.join("acme/shop.git");
    let bare = bare.to_str().unwrap();
    forge.shop.git(&["push", "--quiet", bare, "v1"]);
    deliver(
        &site,
        "github",
        "push",
        &push_payload("refs/tags/v1", &commit),
    );
    wait_for_runs(&site, 2);
    forge.shop.git(&["push", "--quiet", "--delete", bare, "v1"]);
    let mut gone = push_payload("refs/tags/v1", &"0".repeat(40));
    gone["deleted"] = json!(true);
    deliver(&site, "github", "push", &gone);
    until("the deletion", || {
        handled(&site)
            .first()
            .is_some_and(|it| it.contains("v1 is deleted"))
    });
    let (status, answer) = deliver(&site, "github", "issues", &json!({ "action": "opened" }));
    assert_eq!(status, 202);
    assert!(
        answer["ignored"].as_str().unwrap().starts_with("issues: "),
        "{answer}"
    );
    assert_eq!(runs(&site).len(), 2);
    let shown = said(&site.shipway(&["forge", "show", "--service", "shop"]));
    assert_says(
        &shown,
        &["webhooks: 0 are waiting", "refs/tags/v1 is deleted"],
    );
}

#[test]
fn a_pull_request_of_a_fork_runs_without_secrets_and_releases_nothing() {
    let site = Site::started();
    let mut forge = FakeForge::new(&site);
    forge.start();
    connect(&site, &forge, "gitea");
    set_secret(&site, "API_KEY", "twelve-chars");
    let commit = forge.commit("1.0", "refs/heads/main");
    deliver(
        &site,
        "gitea",
        "push",
        &push_payload("refs/heads/main", &commit),
    );
    until("the release to serve", || {
        site.ask("/shop/").is_some_and(|it| it.1 == "1.0")
    });

    let head = forge.commit("2.0", "refs/pull/7/head");
    let opened = pull_request_payload("opened", &head, 2, "2026-05-01T10:00:00Z");
    let (status, _) = deliver(&site, "gitea", "pull_request", &opened);
    assert_eq!(status, 202);
    wait_for_runs(&site, 2);
    let log = job_log(&site, 2);
    assert_says(
        &log,
        &[
            "event pull_request ref refs/pull/7/merge from [fix] to [main]",
            "number [7] key has 0 letters, token has 0",
            "2.0",
        ],
    );
    let releases = site.get("/api/v1/services/shop/releases").unwrap();
    assert_eq!(releases["items"].as_array().unwrap().len(), 1, "{releases}");

    // The same author's push to a branch of the repository has secrets, but still not the forge's.
    let head = forge.commit("2.1", "refs/pull/7/head");
    let own = pull_request_payload("synchronized", &head, 1, "2026-05-01T11:00:00Z");
    deliver(&site, "gitea", "pull_request_sync", &own);
    wait_for_runs(&site, 3);
    assert_says(
        &job_log(&site, 3),
        &["key has 12 letters, token has 0", "2.1"],
    );
    let context = "shipway/shop/cd (pull_request)";
    until("the status", || forge.states(&head, context).len() == 2);
    assert_eq!(forge.states(&head, context), ["pending", "success"]);

    // An older event, a closed pull request and one that has moved meanwhile run nothing.
    let late = pull_request_payload("reopened", &head, 1, "2026-05-01T10:30:00Z");
    deliver(&site, "gitea", "pull_request", &late);
    let moved = pull_request_payload("reopened", &commit, 1, "2026-05-01T12:00:00Z");
    deliver(&site, "gitea", "pull_request", &moved);
    let mut merged = pull_request_payload("closed", &head, 1, "2026-05-01T13:00:00Z");
    merged["pull_request"]["merged"] = json!(true);
    merged["pull_request"]["merge_commit_sha"] = json!(head);
    deliver(&site, "gitea", "pull_request", &merged);
    until("all of them", || handled(&site).len() == 6);
    let outcomes = handled(&site).join("\n");
    assert_says(
        &outcomes,
        &[
            "a newer change",
            "its head has moved",
            "no workflow is for it",
        ],
    );
    assert_eq!(runs(&site).len(), 3);

    // Its commits are deployed: the one comment says so.
    let bare = forge.folder.join("acme/shop.git");
    forge.shop.git(&[
        "push",
        "--quiet",
        bare.to_str().unwrap(),
        "HEAD:refs/heads/main",
    ]);
    deliver(
        &site,
        "gitea",
        "push",
        &push_payload("refs/heads/main", &head),
    );
    until("the release to serve", || {
        site.ask("/shop/").is_some_and(|it| it.1 == "2.1")
    });
    let comment = || {
        let calls = forge.calls("comments");
        calls
            .last()
            .map(|call| call["body"]["body"].as_str().unwrap_or_default().to_owned())
    };
    until("the comment", || {
        comment().is_some_and(|it| it.contains("is in production"))
    });
    let created = forge.calls("comments");
    let created = created.iter().filter(|call| call["method"] == "POST");
    assert_eq!(created.count(), 1, "one comment, which is edited");
    assert_says(
        &comment().unwrap(),
        &["<!-- shipway:shop -->", "success after", "shop production"],
    );
    until("the status of the environment", || {
        forge
            .states(&head, "shipway/shop/production")
            .last()
            .is_some_and(|it| it == "success")
    });
}

#[test]
fn a_webhook_with_a_wrong_old_or_repeated_signature_does_nothing() {
    let site = Site::started();
    let mut forge = FakeForge::new(&site);
    forge.start();
    let unset = site.shipway(&[
        "forge",
        "connect",
        "github",
        "acme/shop",
        "--service",
        "shop",
    ]);
    assert_ends(&unset, 1, &["FORGE_WEBHOOK_SECRET of shop is not set"]);
    connect(&site, &forge, "github");
    let commit = forge.commit("1.0", "refs/heads/main");
    let payload = push_payload("refs/heads/main", &commit);
    let body = payload.to_string().into_bytes();
    let sign = |key: &str, body: &[u8]| format!("sha256={}", hmac_sha256(key.as_bytes(), body));
    let right = sign(WEBHOOK_SECRET, &body);
    let event = ("X-GitHub-Event", "push");
    let with = |signature: &str, body: &[u8]| {
        send(
            &site,
            "github",
            &[event, ("X-Hub-Signature-256", signature)],
            body,
        )
    };
    assert_eq!(send(&site, "github", &[event], &body).0, 401);
    assert_eq!(
        with(&sign("another-secret-of-someone", &body), &body).0,
        401
    );
    assert_eq!(with(&sign("", &body), &body).0, 401);
    assert_eq!(with(&right, b"{}").0, 401, "the signature of another body");
    assert_eq!(with("sha256=00", b"not even JSON").0, 401);
    assert_eq!(
        send(
            &site,
            "gitlab",
            &[
                ("X-Gitlab-Event", "Push Hook"),
                ("X-Gitlab-Token", WEBHOOK_SECRET)
            ],
            &body
        )
        .0,
        401
    );
    assert_eq!(send(&site, "bitbucket", &[event], &body).0, 404);
    let huge = vec![b' '; (25 << 20) + 1];
    let refused = agent()
        .post(site.url("/hooks/github"))
        .header("Content-Type", "application/json")
        .header("X-GitHub-Event", "push")
        .header("X-Hub-Signature-256", &right)
        .send(&huge[..]);
    // The server may close the connection before all of it is sent.
    assert!(refused.map_or(true, |answer| answer.status() == 413));
    let mut form = agent().post(site.url("/hooks/github"));
    form = form.header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(form.send("payload=x").unwrap().status(), 415);
    assert_eq!(runs(&site).len() + handled(&site).len(), 0);

    assert_eq!(with(&right, &body).0, 202);
    until("the delivery", || handled(&site).len() == 1);
    let (status, answer) = with(&right, &body);
    assert_eq!(status, 202);
    assert_eq!(
        answer["ignored"],
        "this webhook was accepted before: nothing is done twice"
    );
    let other = push_payload("refs/heads/main", &commit)
        .to_string()
        .replace("acme/shop", "acme/cart");
    let (status, answer) = with(&sign(WEBHOOK_SECRET, other.as_bytes()), other.as_bytes());
    assert_eq!(
        (status, answer["accepted"].is_null()),
        (202, true),
        "{answer}"
    );
    set_secret(
        &site,
        "FORGE_WEBHOOK_SECRET",
        "the-next-secret-for-webhooks",
    );
    let again = push_payload("refs/heads/next", &commit)
        .to_string()
        .into_bytes();
    assert_eq!(
        with(&sign(WEBHOOK_SECRET, &again), &again).0,
        401,
        "an old secret"
    );
    let disconnected = site.shipway(&["forge", "disconnect", "--service", "shop"]);
    assert_ends(&disconnected, 0, &["no longer"]);
    let next = sign("the-next-secret-for-webhooks", &again);
    assert_eq!(with(&next, &again).0, 401, "after the connection has ended");
    assert_eq!(handled(&site).len(), 0);
}

#[test]
fn a_webhook_that_was_answered_survives_a_kill_and_a_forge_that_is_down() {
    let mut site = Site::started();
    let mut forge = FakeForge::new(&site);
    connect(&site, &forge, "gitlab");
    let commit = forge.commit("1.0", "refs/heads/main");
    let payload = json!({
        "object_kind": "push", "ref": "refs/heads/main", "before": "0".repeat(40), "after": commit,
        "user_username": "ada", "project": { "id": 1, "path_with_namespace": "acme/shop" },
    });
    let (status, answer) = deliver(&site, "gitlab", "Push Hook", &payload);
    assert_eq!(
        (status, answer["accepted"].is_string()),
        (202, true),
        "{answer}"
    );
    site.kill();
    site.start();
    until("the delivery to wait", || {
        site.get("/api/v1/forges/shop")
            .is_some_and(|it| it["waiting_deliveries"] == 1)
    });
    assert_eq!(runs(&site).len(), 0, "the forge is down");
    forge.start();
    wait_for_runs(&site, 1);
    let context = "shipway/shop/cd (push)";
    until("the statuses", || forge.states(&commit, context).len() == 2);
    assert_eq!(
        forge.states(&commit, context),
        ["pending", "success"],
        "in order"
    );

    // Reports wait for the forge, and hold no rollout.
    forge.stop();
    until("the release to serve", || {
        site.ask("/shop/").is_some_and(|it| it.1 == "1.0")
    });
    let deployed = "shipway/shop/production";
    site.kill();
    site.start();
    forge.start();
    until("the deployment", || {
        forge
            .states(&commit, deployed)
            .last()
            .is_some_and(|it| it == "success")
    });
    let mut states = forge.states(&commit, deployed);
    states.dedup();
    assert_eq!(states, ["running", "success"]);
}
