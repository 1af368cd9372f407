//! Doors that must be closed: to pages of other sites, to other hosts, to what is misspelt, to what a terminal would obey.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{Site, said, until},
    words::{assert_says, assert_silent_of},
};

const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments: { production: { strategy: rolling, drain: 1s } }
";

const JSON: (&str, &str) = ("content-type", "application/json");

fn shop(site: &Site) -> Shop {
    let shop = site.shop();
    shop.write("shipway.yaml", CONFIG);
    shop
}

/// Sends a request as it is written here, and nothing more; the connection.
fn send(site: &Site, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if headers.iter().all(|(name, _)| *name != "host") {
        text.push_str(&format!("host: {}\r\n", site.listen));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str(&format!("\r\n{body}"));
    let mut stream = TcpStream::connect(&site.listen).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// The status and the text of the answer.
fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), text)
}

/// Each address that the server says it has, with something in the place of each parameter; and its methods.
fn described(site: &Site) -> Vec<(String, Vec<String>)> {
    let description = site.get("/api/openapi.json").unwrap();
    let paths = description["paths"].as_object().unwrap();
    let filled = |path: &String| {
        let parts = path.split('/').map(|part| match part {
            "{verb}" => "approve",
            "{action}" if path.contains("/releases/") => "reject",
            "{action}" => "disable",
            "{number}" => "1",
            "{name}" => "shop.production.1.1",
            "{job}" | "{key}" => "build",
            part if part.starts_with('{') => "shop",
            part => part,
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let methods = |item: &Value| item.as_object().unwrap().keys().cloned().collect();
    paths
        .iter()
        .map(|(path, item)| (filled(path), methods(item)))
        .collect()
}

/// Addresses that are not part of the description.
const OTHERS: [&str; 14] = [
    "/",
    "/services/shop",
    "/rollouts/shop/1",
    "/runs/shop/1",
    "/assets/shipway.js",
    "/healthz",
    "/readyz",
    "/metrics",
    "/schema/shipway.json",
    "/api/openapi.json",
    "/internal/push",
    "/git/shop/info/refs?service=git-receive-pack",
    "/git/shop/git-receive-pack",
    "/nowhere",
];

#[test]
fn every_address_is_closed_to_other_sites_and_other_hosts() {
    let site = Site::started();
    let described = described(&site);
    assert!(described.len() > 20, "{described:?}");
    let paths = described
        .iter()
        .map(|(path, _)| path.as_str())
        .chain(OTHERS);
    for path in paths {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let refused = |status: u16, headers: &[(&str, &str)]| {
                let (found, text) = answer(send(&site, method, path, headers, ""));
                assert_eq!(found, status, "{method} {path} {headers:?}: {text}");
            };
            refused(421, &[("host", "evil.example:7878"), JSON]);
            let is_git = path.starts_with("/git/");
            if method == "GET" || method == "HEAD" {
                continue;
            }
            refused(403, &[("origin", "https://evil.example"), JSON]);
            refused(403, &[("sec-fetch-site", "cross-site"), JSON]);
            if !is_git {
                refused(415, &[]);
                refused(415, &[("content-type", "text/plain")]);
            }
        }
    }
}

#[test]
fn every_address_refuses_what_it_does_not_know() {
    let site = Site::started();
    let mut changes = 0;
    // Forges add fields to their webhooks.
    let is_strict = |(path, _): &(String, _)| !path.starts_with("/hooks/");
    for (path, methods) in described(&site).into_iter().filter(is_strict) {
        for method in methods {
            let method = method.to_uppercase();
            let asked = format!("{path}?surely_unknown=1");
            let (status, text) = answer(send(&site, &method, &asked, &[JSON], "{}"));
            assert_eq!(status, 400, "{method} {path}: {text}");
            assert_says(&text, &["unknown query parameter `surely_unknown`"]);
            if method == "GET" {
                continue;
            }
            changes += 1;
            let body = r#"{"surely_unknown":1}"#;
            let (status, text) = answer(send(&site, &method, &path, &[JSON], body));
            assert!(matches!(status, 400 | 422), "{method} {path}: {text}");
            assert_says(&text, &["unknown field `surely_unknown`"]);
        }
    }
    assert!(changes >= 10, "{changes}");
}

#[test]
fn a_misspelt_field_or_parameter_deploys_nothing() {
    let site = Site::started();
    let shop = shop(&site);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let path = "/api/v1/services/shop/deploys";
    let (status, problem) = site.post(path, &json!({ "relase": 1 }));
    assert_eq!(status, 422, "{problem}");
    assert_says(&problem.to_string(), &["relase", "release"]);
    let (status, problem) = site.post(&format!("{path}?release=1"), &json!({}));
    assert_eq!(status, 400, "{problem}");
    assert_eq!(site.rollouts().len(), 1);
}

#[test]
fn a_deploy_whose_client_goes_away_is_done_once_also_over_a_restart() {
    let mut site = Site::started();
    let shop = shop(&site);
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let path = "/api/v1/services/shop/deploys";
    let body = r#"{"release":1,"environment":"production","force":true}"#;
    for round in 0..8 {
        let key = format!("round-{round}");
        let headers = [JSON, ("idempotency-key", key.as_str())];
        let first = send(&site, "POST", path, &headers, body);
        // From "at once" to "nearly answered".
        std::thread::sleep(Duration::from_millis(round * 3));
        drop(first);
        let (status, text) = answer(send(&site, "POST", path, &headers, body));
        assert_eq!(status, 202, "{text}");
        let rollouts = usize::try_from(round).unwrap() + 2;
        assert_eq!(site.rollouts().len(), rollouts, "{text}");
        until("the rollout's end", || {
            site.rollouts().iter().all(|it| !it["ended"].is_null())
        });
    }
    let parsed: Value = serde_json::from_str(body).unwrap();
    let first = site.post_once(path, "round-0", &parsed);
    let rollouts = site.rollouts().len();
    site.stop();
    site.start();
    assert_eq!(site.post_once(path, "round-0", &parsed), first);
    let (status, problem) = site.post_once(path, "round-0", &json!({ "release": 1 }));
    assert_eq!(status, 422, "{problem}");
    assert_eq!(site.rollouts().len(), rollouts);
}

#[test]
fn a_workflow_that_can_not_be_used_is_one_problem_and_the_others_run() {
    let site = Site::started();
    let shop = shop(&site);
    shop.write(".github/workflows/big.yml", &"#".repeat(1_100_000));
    shop.write(".github/workflows/odd\nname.yml", "on: push\n");
    let steps = "      - run: 'true'\n".repeat(8_000);
    let many = format!("on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n{steps}");
    shop.write(".github/workflows/many.yml", &many);
    let told = said(&shop.ship("1.0"));
    assert_says(
        &told,
        &[
            ".github/workflows/big.yml does not run: it is larger than 1 MiB",
            ".github/workflows/odd\\nname.yml does not run",
            "there are 8000 steps, but at most 1000 are allowed",
            ".github/workflows/many.yml has errors and does not run",
            "#1 serves production",
        ],
    );
}

#[test]
fn control_sequences_of_others_reach_no_terminal() {
    let site = Site::started();
    let shop = shop(&site);
    shop.edit(
        ".github/workflows/cd.yml",
        "- run: python3",
        r#"- run: printf '\033]0;pwn\007\033[31mred\033[0m \033]52;c;cHduZWQ=\007\033[2J\033[Hend\n'
      - run: python3"#,
    );
    let hostile = "1.0 \u{1b}]0;title\u{7}\u{1b}[2Jsubject";
    shop.write("VERSION", "1.0\n");
    shop.git(&["add", "--all"]);
    shop.git(&["commit", "--quiet", "--message", hostile]);
    let pushed = said(&shop.push("main"));
    assert_says(&pushed, &["#1 serves production", "1.0 subject"]);
    let logs = said(&site.shipway(&["logs", "shop/r1"]));
    assert_says(&logs, &["\u{1b}[31mred\u{1b}[0m end"]);
    let history = said(&site.shipway(&["history"]));
    let status = said(&site.shipway(&["status", "--json"]));
    for text in [&pushed, &logs, &history, &status] {
        assert_silent_of(text, &["\u{1b}]", "\u{1b}[2J", "\u{1b}[H", "\u{7}"]);
    }
}
