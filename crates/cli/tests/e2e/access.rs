//! Every request of the table in `docs/access.md`, sent by every kind of principal: with each role, for each scope, by jobs, and without a
//! login. The table is made from the code (`server/api/route_permissions`); this test compares it with what the server does.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{PATIENCE, Site, until},
};

const TOKEN: &str = "correct-horse-battery";
const ROLES: [&str; 4] = ["viewer", "deployer", "approver", "admin"];

/// The cells of a row.
struct Row {
    /// `POST /api/v1/services/{service}/deploys` and its case.
    method: String,
    path: String,
    case: String,
    /// Where each of [`ROLES`] must hold.
    roles: [String; 4],
    jobs: String,
    without_login: bool,
}

/// The table of the docs.
fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/access.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("<!-- requests -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /requests -->").unwrap();
    let rows: Vec<Row> = table.lines().skip(2).map(read_row).collect();
    assert!(rows.len() > 100, "{table}");
    rows
}

fn read_row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [
        request,
        viewer,
        deployer,
        approver,
        admin,
        jobs,
        _,
        without_login,
    ] = cells[..]
    else {
        panic!("{line}");
    };
    let (request, case) = request.trim_start_matches('`').split_once('`').unwrap();
    let (method, path) = request.split_once(' ').unwrap();
    Row {
        method: method.to_owned(),
        path: path.to_owned(),
        case: case.trim().to_owned(),
        roles: [viewer, deployer, approver, admin].map(str::to_owned),
        jobs: jobs.to_owned(),
        without_login: without_login == "yes",
    }
}

/// What a client presents.
enum Presented {
    /// A role, and where it holds; by the token of a user of its own.
    Role {
        index: usize,
        scope: Scope,
    },
    /// The token of a user without a role.
    NoRole,
    /// No token, or one that is wrong.
    NoLogin,
    /// The token of a job: of `shop/r1`, which all requests are about, of another run of `shop`, or of another service.
    JobOfThisRun,
    JobOfAnotherRun,
    JobOfAnotherService,
}

/// Where a role holds. All requests are about `shop/production`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    AnotherService,
    AnotherEnvironment,
    Environment,
    EnvironmentOfAll,
    Service,
    Everywhere,
}

const SCOPES: [(Scope, &str); 6] = [
    (Scope::AnotherService, ":cart"),
    (Scope::AnotherEnvironment, ":shop/staging"),
    (Scope::Environment, ":shop/production"),
    (Scope::EnvironmentOfAll, ":*/production"),
    (Scope::Service, ":shop"),
    (Scope::Everywhere, ""),
];

impl Scope {
    /// Whether a role that holds here is enough where the table has `needed`.
    fn is_enough(self, needed: &str) -> bool {
        match needed {
            "anywhere" => true,
            "service" => self >= Self::AnotherEnvironment,
            "environment" => self >= Self::Environment,
            "all environments" => self >= Self::Service,
            "everywhere" => self == Self::Everywhere,
            "–" => false,
            other => panic!("{other}"),
        }
    }
}

impl Row {
    fn allows(&self, presented: &Presented) -> bool {
        let is_open = self.without_login;
        match presented {
            Presented::Role { index, scope } => scope.is_enough(&self.roles[*index]),
            Presented::NoRole => is_open || self.path == "/logout",
            Presented::NoLogin => is_open,
            Presented::JobOfThisRun => self.jobs != "–",
            Presented::JobOfAnotherRun => matches!(self.jobs.as_str(), "all" | "of the service"),
            Presented::JobOfAnotherService => self.jobs == "all",
        }
    }

    /// Address and body of the request by a user. Requests that are allowed are refused later, or change nothing that others need.
    fn request(&self, user: &str) -> (String, &'static str, &'static str) {
        let is_own = self.case.ends_with("of the caller");
        let parts = self.path.split('/').map(|part| match part {
            "{number}" => "1",
            "{environment}" => "production",
            "{name}" if self.path.contains("/instances/") => "shop.production.1.1",
            "{name}" => "NAME",
            "{job}" if self.path.contains("/jobs/{job}/") && !self.path.ends_with("shell") => {
                "deploy"
            }
            "{job}" | "{key}" => "build",
            "{metric}" => "error-rate",
            "{digest}" => NO_DIGEST,
            "{file}" => "production.svg",
            "{step}" => "1",
            "{user}" if is_own => user,
            "{user}" | "{group}" => "unknown",
            "{token}" => "t9999",
            "{*path}" if self.method == "POST" && self.case == "push" => "git-receive-pack",
            "{*path}" if self.method == "POST" => "git-upload-pack",
            "{*path}" => "info/refs",
            "{channel}" => "shop.production.0123456789abcdef",
            "{service}" | "{repository}" => "shop",
            // A webhook of a known one is refused without its signature: see `forges.rs`.
            "{forge}" => "unknown",
            part => {
                assert!(!part.contains('{'), "{}: a value for {part}", self.path);
                part
            }
        });
        let path = parts.collect::<Vec<_>>().join("/") + self.query();
        let (kind, body) = self.body();
        (path, kind, body)
    }

    fn query(&self) -> &'static str {
        match (self.method.as_str(), self.path.as_str(), self.case.as_str()) {
            (_, "/api/v1/services/{service}/plan", _) => "?to=production",
            (_, "/git/{service}/{*path}", "push") if self.method == "GET" => {
                "?service=git-receive-pack"
            }
            (_, "/git/{service}/{*path}", _) if self.method == "GET" => "?service=git-upload-pack",
            (_, "/api/v1/events", "of a rollout") => "?stream=rollout/shop/1",
            (_, "/api/v1/events", "of a run") => "?stream=run/shop/1",
            (_, "/api/v1/events", "of users") => "?stream=users",
            (_, "/internal/job/journal" | "/internal/job/log", _) => "?offset=0",
            (_, "/overview/changes", _) => "?after=0",
            (_, "/services/{service}/compare", _) => "?from=1&to=1",
            (_, _, "of a service") => "?service=shop",
            (_, _, "of an environment") => "?service=shop&environment=production",
            ("DELETE" | "PUT", path, "") if path.ends_with("/{name}") => {
                "?service=shop&environment=production"
            }
            (_, "/api/v1/secrets/import", _) => "?service=shop&environment=production",
            _ => "",
        }
    }

    /// The media type and the body.
    fn body(&self) -> (&'static str, &'static str) {
        let form = "application/x-www-form-urlencoded";
        let body = match (self.method.as_str(), self.path.as_str(), self.case.as_str()) {
            ("GET", ..) => "",
            (_, "/settings/users", _) => return (form, "csrf=&action=remove_user&name=unknown"),
            (_, "/settings/secrets", "of all services") => {
                return (form, "csrf=&action=remove_secret&name=UNKNOWN");
            }
            (_, "/settings/secrets", "of a service") => {
                return (form, "csrf=&action=remove_secret&name=UNKNOWN&service=shop");
            }
            (_, "/settings/secrets", _) => {
                return (
                    form,
                    "csrf=&action=remove_secret&name=UNKNOWN&service=shop&environment=production",
                );
            }
            (_, "/settings/retention", _) => return (form, "csrf=&action=preview"),
            (_, "/settings/groups", _) => return (form, "csrf=&action=remove_group&name=unknown"),
            (_, _, "a token of the caller") => {
                return (form, "csrf=&action=revoke_token&name=t9999");
            }
            (_, "/logout", _) => return (form, "csrf="),
            (_, "/api/v1/services/{service}/deploys", "a release") => {
                r#"{"release":77,"environment":"production"}"#
            }
            (_, "/api/v1/services/{service}/deploys", "by force") => {
                r#"{"release":77,"environment":"production","force":true}"#
            }
            (_, "/api/v1/services/{service}/deploys", _) => {
                r#"{"run":"1","environment":"production"}"#
            }
            (_, "/api/v1/services/{service}/rollbacks", _) => r#"{"environment":"production"}"#,
            (_, "/api/v1/services/{service}/metrics", _) => {
                r#"{"environment":"production","events":[{"name":"orders","release":1}]}"#
            }
            (_, _, "to approve") => r#"{"decision":"approve"}"#,
            (_, _, "to reject") => r#"{"decision":"reject"}"#,
            (_, _, "with secrets") => r#"{"secrets":true}"#,
            (_, "/api/v1/services/{service}/tests/quarantine", _) => {
                r#"{"test":"t","owner":"ann","reason":"flaky"}"#
            }
            (_, "/api/v1/services/{service}/tests/release", _) => r#"{"test":"t"}"#,
            ("PUT", "/api/v1/secrets/{name}" | "/api/v1/variables/{name}", _) => r#"{"value":"x"}"#,
            (_, "/api/v1/secrets/import", _) => r#"{"secrets":{"A":"x"}}"#,
            ("POST", "/api/v1/users", _) => r#"{"name":"x","password":"short"}"#,
            (_, "/api/v1/users/{user}/password", "of the caller") => {
                r#"{"password":"short","current":"not this one"}"#
            }
            (_, "/api/v1/users/{user}/password", _) => r#"{"password":"x"}"#,
            ("PUT", "/api/v1/forges/{repository}", _) => {
                r#"{"forge":"unknown","project":"acme/shop","webhook_secret":"HOOK"}"#
            }
            ("POST", "/api/v1/groups", _) => r#"{"name":"extra"}"#,
            ("PUT", "/api/v1/groups/{group}", _) => r#"{"roles":[]}"#,
            (_, "/api/v1/tokens", "for the caller") => r#"{"name":"ci"}"#,
            ("POST", "/api/v1/tokens", _) => r#"{"name":"ci","owner":"unknown"}"#,
            _ => "{}",
        };
        ("application/json", body)
    }
}

/// The digest of nothing that a run has stored.
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The status of an answer, whose body is not read: some never end.
fn status(site: &Site, row: &Row, user: &str, token: Option<&str>) -> u16 {
    let (method, (path, kind, body)) = (&row.method, row.request(user));
    let mut stream = TcpStream::connect(&site.listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let authorization = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{authorization}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
        site.listen,
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.unwrap_or_else(|| panic!("{method} {path}: {line:?}"))
}

/// A client and its token.
struct Client {
    name: String,
    token: Option<String>,
    presented: Presented,
}

impl Client {
    fn new(name: &str, token: Option<&str>, presented: Presented) -> Self {
        Self {
            name: name.to_owned(),
            token: token.map(str::to_owned),
            presented,
        }
    }
}

/// Sends all requests of the table, each by all clients, and compares.
fn check_table(site: &Site, rows: &[Row], clients: &[Client]) {
    let mut wrong = Vec::new();
    for row in rows {
        for client in clients {
            let status = status(site, row, &client.name, client.token.as_deref());
            let is_allowed = !matches!(status, 401 | 403);
            // The wrong password of the caller's own account is refused after the permission is checked.
            let is_own_password = row.case == "of the caller" && status == 401;
            if status >= 500 && status != 501
                || (is_allowed != row.allows(&client.presented) && !is_own_password)
            {
                let request = format!("{} {} {}", row.method, row.path, row.case);
                wrong.push(format!("{} sends {request}: {status}", client.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
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

/// What a guarded server answers to a change.
fn post(site: &Site, path: &str, body: &Value) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let request = agent.post(site.url(path));
    let request = request.header("authorization", &format!("Bearer {TOKEN}"));
    let mut answer = request.send_json(body).unwrap();
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

/// The first job of a run waits for a file, the other for approval. A quick version is released at once.
const WORKFLOW: &str = "on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps: [{ run: 'until [ -e FILE ]; do sleep 0.1; done' }]
  deploy:
    runs-on: ubuntu-latest
    environment: production
    steps: [{ run: 'true' }]
";

const QUICK_WORKFLOW: &str = "on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: . }
";

const CONFIG: &str = "service: NAME
run: { command: exec python3 shop.py }
environments:
  production: { strategy: recreate, approvals: 100 }
  staging: { strategy: recreate }
";

/// Pushes versions of a service. Runs of versions that are not quick go on until there is a file.
fn push_versions(site: &Site, service: &str, versions: &[&str], until_file: &str) {
    let remote = format!("http://ann:{TOKEN}@{}/git/{service}", site.listen);
    let shop = Shop::create(&site.folder.path().join(service), &remote);
    shop.write("shipway.yaml", &CONFIG.replace("NAME", service));
    for (index, version) in versions.iter().enumerate() {
        let is_quick = *version == "quick";
        let workflow = match is_quick {
            true => QUICK_WORKFLOW.to_owned(),
            false => WORKFLOW.replace("FILE", until_file),
        };
        shop.write(".github/workflows/cd.yml", &workflow);
        let mut push = shop.ship_begun(version);
        let path = format!("/api/v1/runs/{service}/{}", index + 1);
        let wanted = if is_quick { "success" } else { "running" };
        until("the first job", || {
            get(site, &path)["jobs"][0]["status"] == wanted
        });
        push.kill().unwrap();
        push.wait().unwrap();
    }
}

/// A user with a role, and its token.
fn add_user(site: &Site, name: &str, roles: &Value) -> String {
    let user = json!({ "name": name, "roles": roles, "password": "correct horse battery" });
    let user = post(site, "/api/v1/users", &user);
    assert_eq!(user["name"], name, "{user:#}");
    let token = post(
        site,
        "/api/v1/tokens",
        &json!({ "name": "t", "owner": name }),
    );
    let secret = token["secret"].as_str();
    secret.unwrap_or_else(|| panic!("{token:#}")).to_owned()
}

/// A user for each role and scope, and one without a role.
fn users(site: &Site) -> Vec<Client> {
    let mut clients = Vec::new();
    // The first user has to be an admin.
    add_user(site, "ada", &json!(["admin"]));
    for (index, role) in ROLES.into_iter().enumerate() {
        for (scope, suffix) in SCOPES {
            let binding = format!("{role}{suffix}");
            let name = format!("{role}-{}", clients.len());
            let token = add_user(site, &name, &json!([binding]));
            clients.push(Client::new(
                &name,
                Some(&token),
                Presented::Role { index, scope },
            ));
        }
    }
    let token = add_user(site, "nothing", &json!([]));
    clients.push(Client::new("nothing", Some(&token), Presented::NoRole));
    clients
}

#[test]
fn every_request_is_allowed_to_every_role_and_scope_as_the_table_says() {
    let mut site = Site::new();
    site.env.push(("SHIPWAY_TOKEN", TOKEN.to_owned()));
    site.flags = ["--jobs", "4"].map(str::to_owned).to_vec();
    site.start();
    let end = site.folder.path().join("end");
    let end_path = end.display().to_string();
    push_versions(&site, "shop", &["1.0", "2.0", "quick"], &end_path);
    push_versions(&site, "cart", &["1.0"], &end_path);
    until("a rollout", || {
        get(&site, "/api/v1/rollouts/shop/1")["id"] == "shop/ro1"
    });
    let mut clients = vec![
        Client::new("no-token", None, Presented::NoLogin),
        Client::new("a-wrong-token", Some("wrong"), Presented::NoLogin),
        Client::new(
            "a-forged-token-of-a-job",
            Some("shipway-job/shop/1/build/1/0123456789abcdef"),
            Presented::NoLogin,
        ),
    ];
    for (service, number, presented) in [
        ("shop", 1, Presented::JobOfThisRun),
        ("shop", 2, Presented::JobOfAnotherRun),
        ("cart", 1, Presented::JobOfAnotherService),
    ] {
        let uid = run_uid(&site, &format!("{service}/{number}"));
        let token = job_token(&site, service, number, &uid);
        let name = format!("job-of-{service}-{number}");
        clients.push(Client::new(&name, Some(&token), presented));
    }
    clients.extend(users(&site));
    check_table(&site, &rows(), &clients);
    fs::write(end, "").unwrap();
}

#[test]
fn a_server_without_users_answers_every_person_of_its_machine() {
    let site = Site::started();
    let everywhere = Presented::Role {
        index: 3,
        scope: Scope::Everywhere,
    };
    check_table(&site, &rows(), &[Client::new("ann", None, everywhere)]);
}
