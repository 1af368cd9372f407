//! Who is allowed what, of every address: one table.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{PATIENCE, Site, until},
};

const TOKEN: &str = "correct-horse-battery";

/// Who may send a request to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Any client, also without a token.
    Open,
    /// Holders of the server's token; without a token, every process of this machine except jobs and instances.
    People,
    /// People, and the jobs of the service.
    ServiceJobs,
    /// People, and the jobs of the run that the request is about.
    RunJobs,
    /// Jobs alone, each for itself: the address names no job.
    Workers,
}

/// What a client presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presented {
    /// Nothing, to a server without a token.
    NoTokenSet,
    RightToken,
    WrongToken,
    /// The token of a job of `shop/r1`, which all requests of the table are about.
    JobOfThisRun,
    JobOfAnotherRun,
    JobOfAnotherService,
}

impl Access {
    fn is_allowed(self, presented: Presented) -> bool {
        match presented {
            Presented::NoTokenSet | Presented::RightToken => self != Self::Workers,
            Presented::WrongToken => self == Self::Open,
            Presented::JobOfAnotherService => matches!(self, Self::Open | Self::Workers),
            Presented::JobOfThisRun => self != Self::People,
            Presented::JobOfAnotherRun => {
                matches!(self, Self::Open | Self::ServiceJobs | Self::Workers)
            }
        }
    }
}

use Access::{Open, People, RunJobs, ServiceJobs, Workers};

/// Method, address as the description has it, body and who may send it.
type Row = (&'static str, &'static str, &'static str, Access);

/// Every address of the description.
const DESCRIBED: &[Row] = &[
    ("GET", "/api/v1/services", "", People),
    ("GET", "/api/v1/services/{service}", "", People),
    ("GET", "/api/v1/services/{service}/releases", "", People),
    ("GET", "/api/v1/services/{service}/plan", "", People),
    (
        "POST",
        "/api/v1/services/{service}/deploys",
        r#"{"run":"1","environment":"production"}"#,
        RunJobs,
    ),
    (
        "POST",
        "/api/v1/services/{service}/rollbacks",
        r#"{"environment":"production"}"#,
        People,
    ),
    ("POST", "/api/v1/services/{service}/runs", "{}", People),
    ("GET", "/api/v1/environments", "", People),
    (
        "POST",
        "/api/v1/services/{service}/environments/{environment}/resume",
        "{}",
        People,
    ),
    ("GET", "/api/v1/addresses", "", People),
    (
        "POST",
        "/api/v1/services/{service}/metrics",
        r#"{"events":[{"name":"orders","release":1}]}"#,
        People,
    ),
    ("GET", "/api/v1/matrix", "", People),
    ("GET", "/api/v1/releases", "", People),
    ("GET", "/api/v1/runs", "", People),
    ("GET", "/api/v1/runs/{service}/{number}", "", ServiceJobs),
    (
        "POST",
        "/api/v1/runs/{service}/{number}/rerun",
        "{}",
        People,
    ),
    (
        "GET",
        "/api/v1/runs/{service}/{number}/artifacts/{name}",
        "",
        ServiceJobs,
    ),
    (
        "POST",
        "/api/v1/runs/{service}/{number}/jobs/{job}/shell",
        "{}",
        People,
    ),
    (
        "GET",
        "/api/v1/runs/{service}/{number}/jobs/{key}/log",
        "",
        People,
    ),
    (
        "GET",
        "/api/v1/runs/{service}/{number}/jobs/{key}/log/lines",
        "",
        People,
    ),
    (
        "GET",
        "/api/v1/runs/{service}/{number}/jobs/{key}/log/search",
        "",
        People,
    ),
    ("GET", "/api/v1/instances/{name}/log", "", People),
    ("GET", "/api/v1/services/{service}/tests", "", People),
    ("GET", "/api/v1/runs/{service}/{number}/tests", "", People),
    (
        "POST",
        "/api/v1/services/{service}/tests/quarantine",
        r#"{"test":"t","owner":"ann","reason":"flaky"}"#,
        People,
    ),
    (
        "POST",
        "/api/v1/services/{service}/tests/release",
        r#"{"test":"t"}"#,
        People,
    ),
    ("GET", "/api/v1/runs/{service}/{number}/why", "", People),
    ("GET", "/api/v1/rollouts", "", People),
    (
        "GET",
        "/api/v1/rollouts/{service}/{number}",
        "",
        ServiceJobs,
    ),
    (
        "POST",
        "/api/v1/rollouts/{service}/{number}/{verb}",
        "{}",
        People,
    ),
    (
        "GET",
        "/api/v1/rollouts/{service}/{number}/analysis",
        "",
        People,
    ),
    (
        "GET",
        "/api/v1/rollouts/{service}/{number}/analysis/{metric}",
        "",
        People,
    ),
    ("GET", "/api/v1/approvals", "", People),
    (
        "POST",
        "/api/v1/runs/{service}/{number}/jobs/{job}/{verb}",
        "{}",
        People,
    ),
    ("GET", "/api/v1/delivery", "", People),
    ("GET", "/api/v1/prune", "", People),
    ("POST", "/api/v1/prune", "{}", People),
    ("GET", "/api/v1/events", "", People),
    (
        "DELETE",
        "/api/v1/services/{service}/environments/{environment}",
        "{}",
        People,
    ),
    ("DELETE", "/api/v1/services/{service}", "{}", People),
    ("GET", "/api/v1/secrets", "", People),
    ("PUT", "/api/v1/secrets/{name}", r#"{"value":"x"}"#, People),
    ("DELETE", "/api/v1/secrets/{name}", "", People),
    (
        "POST",
        "/api/v1/secrets/import",
        r#"{"secrets":{"A":"x"}}"#,
        People,
    ),
    ("POST", "/api/v1/secrets/rotate", "{}", People),
    ("GET", "/api/v1/variables", "", People),
    (
        "PUT",
        "/api/v1/variables/{name}",
        r#"{"value":"x"}"#,
        People,
    ),
    ("DELETE", "/api/v1/variables/{name}", "", People),
    ("GET", "/api/v1/users", "", People),
    (
        "POST",
        "/api/v1/users",
        r#"{"name":"x","password":"short"}"#,
        People,
    ),
    ("GET", "/api/v1/users/{user}", "", People),
    ("PUT", "/api/v1/users/{user}", "{}", People),
    ("DELETE", "/api/v1/users/{user}", "{}", People),
    (
        "POST",
        "/api/v1/users/{user}/password",
        r#"{"password":"x"}"#,
        People,
    ),
    ("POST", "/api/v1/users/{user}/{action}", "{}", People),
    ("GET", "/api/v1/groups", "", People),
    ("POST", "/api/v1/groups", r#"{"name":"x"}"#, People),
    ("GET", "/api/v1/groups/{group}", "", People),
    ("PUT", "/api/v1/groups/{group}", r#"{"roles":[]}"#, People),
    ("DELETE", "/api/v1/groups/{group}", "{}", People),
    ("GET", "/api/v1/tokens", "", People),
    ("POST", "/api/v1/tokens", r#"{"name":"ci"}"#, People),
    ("DELETE", "/api/v1/tokens/{token}", "{}", People),
    ("GET", "/api/v1/me", "", People),
    ("POST", "/api/v1/login", "{}", Open),
    ("POST", "/api/v1/logout", "{}", People),
    // The last one: it ends the run whose job asks.
    (
        "POST",
        "/api/v1/runs/{service}/{number}/cancel",
        "{}",
        People,
    ),
];

/// The digest of nothing that a run has stored.
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Addresses that are not described, and cases of those that are.
const OTHERS: &[Row] = &[
    ("GET", "/", "", People),
    ("GET", "/services/shop", "", People),
    ("GET", "/runs/shop/1", "", People),
    ("GET", "/runs/shop/1/log", "", People),
    ("GET", "/assets/log_view.js", "", Open),
    ("GET", "/rollouts/shop/1", "", People),
    ("GET", "/assets/shipway.css", "", Open),
    ("GET", "/assets/shipway.js", "", Open),
    ("GET", "/settings", "", People),
    ("GET", "/settings/users", "", People),
    ("GET", "/settings/groups", "", People),
    ("GET", "/settings/tokens", "", People),
    ("GET", "/login", "", Open),
    ("POST", "/login", "", Open),
    ("GET", "/setup", "", Open),
    ("POST", "/setup", "", Open),
    ("GET", "/api/openapi.json", "", People),
    ("GET", "/healthz", "", Open),
    ("GET", "/readyz", "", Open),
    ("GET", "/metrics", "", Open),
    ("GET", "/schema/shipway.json", "", Open),
    (
        "GET",
        "/git/shop/info/refs?service=git-upload-pack",
        "",
        People,
    ),
    (
        "GET",
        "/git/shop/info/refs?service=git-receive-pack",
        "",
        People,
    ),
    ("GET", "/internal/job/source", "", Workers),
    ("GET", "/internal/job/artifacts/{digest}", "", Workers),
    ("PUT", "/internal/job/journal?offset=0", "", Workers),
    ("PUT", "/internal/job/log?offset=0", "", Workers),
    ("PUT", "/internal/job/files/{digest}", "", Workers),
    ("PUT", "/internal/job/summaries/1", "", Workers),
    ("GET", "/internal/job/cancellation", "", Workers),
    ("GET", "/api/v1/rollouts?service=shop", "", People),
    ("GET", "/api/v1/delivery?service=shop", "", People),
    (
        "GET",
        "/api/v1/events?stream=rollout/shop/1",
        "",
        ServiceJobs,
    ),
    ("GET", "/api/v1/events?stream=run/shop/1", "", People),
    (
        "POST",
        "/api/v1/services/shop/deploys",
        r#"{"release":1}"#,
        People,
    ),
    (
        "POST",
        "/api/v1/services/shop/deploys",
        r#"{"run":"1","environment":"production","force":true}"#,
        People,
    ),
];

/// An address of the description with something in the place of each parameter.
fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{verb}" => "approve",
        "{number}" => "1",
        "{environment}" => "production",
        "{name}" => "shop.production.1.1",
        "{job}" | "{key}" => "build",
        "{action}" => "disable",
        "{metric}" => "error-rate",
        "{digest}" => NO_DIGEST,
        part if part.starts_with('{') => "shop",
        part => part,
    });
    let path = parts.collect::<Vec<_>>().join("/");
    match path.ends_with("/plan") {
        true => path + "?to=production",
        false => path,
    }
}

fn rows() -> impl Iterator<Item = Row> {
    OTHERS.iter().chain(DESCRIBED).copied()
}

/// The status of an answer, whose body is not read: some never end.
fn status(site: &Site, method: &str, path: &str, body: &str, token: Option<&str>) -> u16 {
    let mut stream = TcpStream::connect(&site.listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let authorization = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{authorization}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        site.listen,
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.unwrap_or_else(|| panic!("{method} {path}: {line:?}"))
}

/// Sends all requests of the table and compares.
fn check_table(site: &Site, presented: Presented, token: Option<&str>) {
    let mut wrong = Vec::new();
    for (method, path, body, access) in rows() {
        let status = status(site, method, &filled(path), body, token);
        assert!(status < 500, "{method} {path}: {status}");
        let is_allowed = !matches!(status, 401 | 403);
        if is_allowed != access.is_allowed(presented) {
            wrong.push(format!("{method} {path} {body} ({access:?}): {status}"));
        }
    }
    assert!(wrong.is_empty(), "{presented:?}: {wrong:#?}");
}

/// The token of the job `build` of a run, as its worker has it.
fn job_token(site: &Site, service: &str, number: u32, uid: &str) -> String {
    const SCRIPT: &str = "
import hmac, sys
service, number, uid, key = sys.argv[1:]
text = f'job\\n{service}\\n{number}\\n{uid}\\nbuild\\n1'
mac = hmac.new(open(key, 'rb').read(), text.encode(), 'sha256').hexdigest()
print(f'shipway-job/{service}/{number}/build/1/{mac}')
";
    let made = Command::new("python3")
        .args(["-c", SCRIPT, service, &number.to_string(), uid])
        .arg(site.data().join("keys/job-tokens"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// The document that a guarded server answers with.
fn get(site: &Site, path: &str) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let request = agent.get(site.url(path));
    let request = request.header("authorization", &format!("Bearer {TOKEN}"));
    let mut answer = request.call().unwrap();
    answer.body_mut().read_json().unwrap_or(Value::Null)
}

/// The uid of a run, from its log.
fn run_uid(site: &Site, run: &str) -> String {
    let address = format!("/api/v1/events?after=0&stream=run/{run}");
    let mut stream = TcpStream::connect(&site.listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {address} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
        site.listen
    );
    stream.write_all(request.as_bytes()).unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once("\"uid\":\"") {
            return rest.split('"').next().unwrap().to_owned();
        }
    }
    panic!("{run} has no uid");
}

/// Pushes versions of a service, each with a run whose job goes on until there is a file.
fn push_versions(site: &Site, service: &str, versions: &[&str], until_file: &str) {
    let remote = format!("http://ann:{TOKEN}@{}/git/{service}", site.listen);
    let shop = Shop::create(&site.folder.path().join(service), &remote);
    let config = "service: NAME\nrun: { command: exec python3 shop.py }\nenvironments: { production: { strategy: recreate } }\n";
    shop.write("shipway.yaml", &config.replace("NAME", service));
    shop.write(
        ".github/workflows/cd.yml",
        &format!("on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: until [ -e {until_file} ]; do sleep 0.1; done\n"),
    );
    for (index, version) in versions.iter().enumerate() {
        let mut push = shop.ship_begun(version);
        let path = format!("/api/v1/runs/{service}/{}", index + 1);
        until("the job to run", || {
            get(site, &path)["jobs"][0]["status"] == "running"
        });
        push.kill().unwrap();
        push.wait().unwrap();
    }
}

#[test]
fn the_table_has_every_address_of_the_description() {
    let site = Site::started();
    let description = site.get("/api/openapi.json").unwrap();
    let paths = description["paths"].as_object().unwrap();
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let listed = DESCRIBED.iter();
    let listed = listed.map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()));
    assert_eq!(described, listed.collect::<BTreeSet<_>>());
    check_table(&site, Presented::NoTokenSet, None);
}

#[test]
fn each_address_is_open_to_whom_the_table_says() {
    let mut site = Site::new();
    site.env.push(("SHIPWAY_TOKEN", TOKEN.to_owned()));
    site.flags = ["--jobs", "4"].map(str::to_owned).to_vec();
    site.start();
    let end = site.folder.path().join("end");
    let end_path = end.display().to_string();
    push_versions(&site, "shop", &["1.0", "2.0"], &end_path);
    push_versions(&site, "cart", &["1.0"], &end_path);
    for (service, number, presented) in [
        ("shop", 1, Presented::JobOfThisRun),
        ("shop", 2, Presented::JobOfAnotherRun),
        ("cart", 1, Presented::JobOfAnotherService),
    ] {
        let uid = run_uid(&site, &format!("{service}/{number}"));
        let token = job_token(&site, service, number, &uid);
        check_table(&site, presented, Some(&token));
    }
    check_table(&site, Presented::WrongToken, Some("wrong"));
    check_table(&site, Presented::WrongToken, None);
    let forged = "shipway-job/shop/1/build/1/0123456789abcdef";
    check_table(&site, Presented::WrongToken, Some(forged));
    check_table(&site, Presented::RightToken, Some(TOKEN));
    fs::write(end, "").unwrap();
}
