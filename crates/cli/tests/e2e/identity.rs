//! A step of a job is nobody's hand: it can't approve, deploy elsewhere, or read what is for other jobs.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::{
    site::{Site, said, until},
    words::{assert_ends, assert_says, assert_silent_of},
};

const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  production:
    strategy: recreate
    approvals: { count: 1, from: [alice] }
";

/// A job that attacks its server, and a job that is waiting for approval.
const HOSTILE: &str = r#"
on: push
jobs:
  hostile:
    runs-on: ubuntu-latest
    steps:
      - run: |
          approve() { curl -s -o answer -w '%{http_code}' -X POST -H 'content-type: application/json' -d '{}' "$@" $SHIPWAY_SERVER/api/v1/runs/shop/1/jobs/guarded/approve; echo " $(cat answer)"; }
          echo "as a person: $(approve -H 'X-Shipway-User: alice')"
          echo "from a session of its own: $(setsid -w bash -c "$(declare -f approve); approve -H 'X-Shipway-User: alice'")"
          data=${GITHUB_WORKSPACE%/runs/*}
          token=$(cat $data/keys/internal-token || echo none)
          echo "with the token of hooks: $(approve -H "Authorization: Bearer $token" -H 'X-Shipway-User: alice')"
          git init -q . && git -c user.name=x -c user.email=x@example.com commit -q --allow-empty -m x
          git push $SHIPWAY_SERVER/git/other HEAD:refs/heads/main || echo "the push is refused"
          echo "keys: $(ls $data/keys 2>&1)"
          echo "secrets: $(cat SECRETS 2>&1)"
          echo "through the server: $(cat /proc/SERVER/rootDATA/keys/internal-token 2>&1; umount $data 2>&1 || echo kept)"
          echo "its environment: $(cat /proc/SERVER/environ 2>&1)"
          echo "its namespace: $(nsenter --target SERVER_PID --mount ls $data/keys 2>&1)"
          echo "a namespace of its own: $(unshare --user --map-root-user --mount sh -c "umount $data; ls $data/keys" 2>&1)"
  guarded:
    runs-on: ubuntu-latest
    environment: production
    steps:
      - env: { LATE: '${{ secrets.LATE }}' }
        run: echo "has ${#LATE} letters"
"#;

fn job(site: &Site, key: &str) -> Value {
    let run = site.get("/api/v1/runs/shop/1").unwrap_or_default();
    let jobs = run["jobs"].as_array().cloned().unwrap_or_default();
    jobs.into_iter()
        .find(|job| job["key"] == key)
        .unwrap_or(Value::Null)
}

fn hostile_log() -> (Site, String) {
    let mut site = Site::new();
    let secrets = site.folder.path().join("secrets");
    fs::write(&secrets, "[production]\nLATE=only-for-production\n").unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    site.flags = vec!["--secrets".to_owned(), secrets.display().to_string()];
    site.start();
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    let server = fs::read_to_string(site.data().join("shipway.lock")).unwrap();
    let workflow = HOSTILE
        .replace("SECRETS", &secrets.display().to_string())
        .replace("/SERVER/", &format!("/{}/", server.trim()))
        .replace("SERVER_PID", server.trim())
        .replace("DATA/", &format!("{}/", site.data().display()));
    shop.write(".github/workflows/cd.yml", &workflow);
    let push = shop.ship_begun("1.0");
    until("the hostile job to end", || {
        job(&site, "hostile")["finished_at"].is_string()
    });
    drop(push);
    let log = said(&site.shipway(&["logs", "r1", "--job", "hostile"]));
    (site, log)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_step_approves_nothing_in_a_persons_name() {
    let (site, log) = hostile_log();
    let refused = "403 {";
    for attempt in [
        "as a person",
        "from a session of its own",
        "with the token of hooks",
    ] {
        assert_says(&log, &[&format!("{attempt}: {refused}")]);
    }
    assert_says(
        &log,
        &["a step of hostile of shop/r1", "the push is refused"],
    );
    assert_eq!(job(&site, "guarded")["status"], "waiting");
    assert!(site.get("/api/v1/services/other").is_none());
    // A person does it from the same machine.
    let approved = site.shipway(&["approve", "r1", "--as", "alice"]);
    assert_ends(&approved, 0, &["guarded"]);
    until("the guarded job to end", || {
        job(&site, "guarded")["status"] == "success"
    });
}

#[test]
fn a_step_of_roots_server_sees_neither_its_keys_nor_its_secrets() {
    if !is_root() {
        println!("skipped, because only root can hide files from jobs");
        return;
    }
    let (site, log) = hostile_log();
    if site.log().contains("jobs are not confined") {
        println!("skipped, because nothing can be mounted here");
        return;
    }
    assert_says(&log, &["keys: ls: cannot access", "secrets: \n"]);
    assert_says(&log, &["Permission denied", "kept"]);
    let refused = |attempt: &str| {
        // The first line with these words is the command.
        let line = log.lines().rfind(|line| line.contains(attempt));
        let line = line.unwrap_or_default();
        ["Permission denied", "not permitted"]
            .iter()
            .any(|it| line.contains(it))
    };
    assert!(refused("its environment: "), "{log}");
    assert!(refused("its namespace: "), "{log}");
    assert!(refused("a namespace of its own: "), "{log}");
    let token = fs::read_to_string(site.data().join("keys/internal-token")).unwrap();
    assert_silent_of(&log, &["only-for-production", &token]);
}
