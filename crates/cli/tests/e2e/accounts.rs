//! Users: the first admin, sessions, tokens and their end.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, said, until},
    words::assert_ends,
};

pub const PASSWORD: &str = "correct horse battery";

/// A response without redirects followed.
pub struct Answer {
    pub status: u16,
    pub location: String,
    /// `name=value` of the cookies that it sets.
    pub cookies: Vec<String>,
    pub body: String,
}

/// A browser's request.
pub fn send(site: &Site, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    try_send(site, method, path, headers, body).unwrap()
}

/// The same, which fails when the server refuses a large body before it has read all of it.
fn try_send(
    site: &Site,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(site.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(body.to_owned()).unwrap())?;
    let header = |name: &str| {
        let values = answer.headers().get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let cookies = header("set-cookie");
    let cookies = cookies
        .iter()
        .map(|it| it.split(';').next().unwrap().to_owned());
    Ok(Answer {
        status: answer.status().as_u16(),
        location: header("location").pop().unwrap_or_default(),
        cookies: cookies.collect(),
        body: answer.body_mut().read_to_string().unwrap_or_default(),
    })
}

pub fn value_between<'t>(text: &'t str, before: &str, after: char) -> &'t str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split(after).next().unwrap()
}

pub fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
    fields.collect::<Vec<_>>().join("&")
}

pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// A command of the binary, with its own folder of credentials.
pub fn shipway(site: &Site, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(SHIPWAY)
        .args(words)
        .env("SHIPWAY_URL", site.url(""))
        .env("SHIPWAY_USER", "mallory")
        .env("XDG_CONFIG_HOME", site.folder.path().join("config"))
        .env_remove("SHIPWAY_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Makes the first admin with the setup link of the server's log; the session's cookie.
pub fn set_up(site: &Site) -> String {
    until("the setup link", || site.log().contains("/setup?link="));
    let log = site.log();
    let link = value_between(&log, "/setup?link=", ' ').to_owned();
    let page = send(site, "GET", &format!("/setup?link={link}"), &[], "");
    assert_eq!(page.status, 200, "{}", page.body);
    let cookie = page.cookies[0].clone();
    let token = value_between(&page.body, "name=\"form_token\" value=\"", '"');
    let fields = [
        ("form_token", token),
        ("link", &link),
        ("user", "ada"),
        ("password", PASSWORD),
    ];
    let headers = [FORM, ("cookie", cookie.as_str())];
    let forged = send(site, "POST", "/setup", &[FORM], &form(&fields));
    assert_eq!(forged.status, 403, "without the cookie of the form");
    let done = send(site, "POST", "/setup", &headers, &form(&fields));
    assert_eq!(
        (done.status, done.location.as_str()),
        (303, "/settings/users"),
        "{}",
        done.body
    );
    let again = send(site, "POST", "/setup", &headers, &form(&fields));
    assert_eq!(again.status, 410, "a setup link works once");
    done.cookies[0].clone()
}

#[test]
fn the_first_admin_signs_in_adds_a_deployer_whose_token_pushes_until_it_is_revoked() {
    let mut site = Site::started();
    assert!(site.get("/api/v1/services").is_some(), "open without users");
    let session = set_up(&site);
    let cookie = ("cookie", session.as_str());
    // From now on nothing is open.
    assert_eq!(send(&site, "GET", "/api/v1/services", &[], "").status, 401);
    let html = ("accept", "text/html");
    let page = send(&site, "GET", "/runs/shop/1?q=a", &[html], "");
    assert_eq!(
        (page.status, page.location.as_str()),
        (303, "/login?next=/runs/shop/1%3Fq%3Da")
    );
    let page = send(&site, "GET", "/settings/users", &[html, cookie], "");
    assert!(page.body.contains("ada") && page.status == 200);
    let csrf = value_between(&page.body, "name=\"shipway-csrf\" content=\"", '"').to_owned();
    let bob = json!({ "name": "bob", "roles": ["deployer:shop"], "password": PASSWORD });
    let bob = bob.to_string();
    let refused = send(&site, "POST", "/api/v1/users", &[JSON, cookie], &bob);
    assert_eq!(refused.status, 403, "no token of the page");
    let headers = [JSON, cookie, ("x-shipway-csrf", csrf.as_str())];
    let added = send(&site, "POST", "/api/v1/users", &headers, &bob);
    assert_eq!(added.status, 201, "{}", added.body);
    let keyed = [&headers[..], &[("idempotency-key", "1")]].concat();
    assert_eq!(
        send(&site, "POST", "/api/v1/users", &keyed, &bob).status,
        400
    );
    // The session survives the server.
    site.kill();
    site.start();
    assert_eq!(
        send(&site, "GET", "/settings/users", &[html, cookie], "").status,
        200
    );
    deploy_with_a_token(&site);
    // Disabling bob ends what he has, at once.
    let disable = "/api/v1/users/bob/disable";
    assert_eq!(send(&site, "POST", disable, &headers, "{}").status, 200);
    assert_ends(&shipway(&site, &["whoami"], ""), 3, &["disabled"]);
    let last = send(&site, "POST", "/api/v1/users/ada/disable", &headers, "{}");
    assert_eq!(last.status, 409, "{}", last.body);
    let out = send(
        &site,
        "POST",
        "/logout",
        &[FORM, cookie],
        &form(&[("csrf", &csrf)]),
    );
    assert_eq!((out.status, out.location.as_str()), (303, "/login"));
    assert_eq!(send(&site, "GET", "/api/v1/me", &[cookie], "").status, 401);
    // The log has no secret that opens anything.
    site.stop();
    for entry in fs::read_dir(site.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            for secret in [PASSWORD, "shipway_pat_", session.split_once('=').unwrap().1] {
                assert!(!text.contains(secret), "{secret} is in {}", path.display());
            }
        }
    }
}

/// Bob signs in on the command line, pushes with a token, and revokes it.
fn deploy_with_a_token(site: &Site) {
    let wrong = shipway(
        site,
        &["login", "bob", "--password-stdin"],
        "wrong password\n",
    );
    assert_ends(&wrong, 3, &["user name or the password is wrong"]);
    let signed_in = shipway(
        site,
        &["login", "bob", "--password-stdin"],
        &format!("{PASSWORD}\n"),
    );
    assert_ends(&signed_in, 0, &["signed in as bob"]);
    let file = site.folder.path().join("config/shipway/credentials.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_ends(
        &shipway(site, &["whoami"], ""),
        0,
        &["bob (user:bob)", "deployer:shop"],
    );
    assert_ends(
        &shipway(site, &["user", "list"], ""),
        3,
        &["bob may not manage the users"],
    );
    let long = shipway(site, &["token", "create", "long", "--expires", "200"], "");
    assert_ends(&long, 3, &["can't outlive the token"]);
    let created = shipway(site, &["token", "create", "ci", "--json"], "");
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let secret = created["secret"].as_str().unwrap();
    let remote = |service: &str| format!("http://mallory:{secret}@{}/git/{service}", site.listen);
    let shop = Shop::create(&site.folder.path().join("repo"), &remote("shop"));
    let pushed = shop.ship("1.0");
    assert!(pushed.status.success(), "{}", said(&pushed));
    let other = Shop::create(&site.folder.path().join("other"), &remote("other"));
    assert!(
        !other.ship("1.0").status.success(),
        "bob deploys shop alone"
    );
    // The push is bob's, whatever name git sends.
    let run: Value =
        serde_json::from_slice(&shipway(site, &["status", "shop", "--json"], "").stdout).unwrap();
    assert!(!run.to_string().contains("mallory"), "{run}");
    let address = format!("/api/v1/services?token={secret}");
    let advised = send(site, "GET", &address, &[], "");
    assert!(
        advised.status == 400 && advised.body.contains("revoke"),
        "{}",
        advised.body
    );
    let id = created["token"]["id"].as_str().unwrap();
    assert_ends(&shipway(site, &["token", "list"], ""), 0, &[id, "ci"]);
    assert_ends(
        &shipway(site, &["token", "revoke", id], ""),
        0,
        &["revoked"],
    );
    let refused = shop.ship("2.0");
    assert!(!refused.status.success(), "{}", said(&refused));
}

#[test]
fn the_first_admin_is_made_on_the_command_line_and_guessing_is_slowed_down() {
    let site = Site::started();
    let add = ["user", "add", "ada", "--role", "admin", "--no-password"];
    assert_ends(&shipway(&site, &add, ""), 1, &["needs a password"]);
    let add = ["user", "add", "bob", "--role", "viewer", "--password-stdin"];
    assert_ends(
        &shipway(&site, &add, "bob's long password\n"),
        1,
        &["must be an admin"],
    );
    let add = ["user", "add", "ada", "--role", "admin", "--password-stdin"];
    assert_ends(&shipway(&site, &add, "short\n"), 2, &["12"]);
    let password = format!("{PASSWORD}\n");
    assert_ends(&shipway(&site, &add, &password), 0, &["added: ada"]);
    assert_ends(&shipway(&site, &["status"], ""), 3, &["shipway login"]);
    let guess = json!({ "user": "ada", "password": "a wrong password" }).to_string();
    let guesses: Vec<u16> = (0..8)
        .map(|_| send(&site, "POST", "/api/v1/login", &[JSON], &guess).status)
        .collect();
    assert_eq!(guesses[..5], [401; 5]);
    assert!(guesses[5..].contains(&429), "{guesses:?}");
    let unknown = json!({ "user": "<script>alert(1)</script>", "password": "x" }).to_string();
    assert_eq!(
        send(&site, "POST", "/api/v1/login", &[JSON], &unknown).status,
        401
    );
    let huge = json!({ "user": "a".repeat(1 << 20), "password": "x" }).to_string();
    match try_send(&site, "POST", "/api/v1/login", &[JSON], &huge) {
        Ok(refused) => assert!(refused.status < 500, "{}", refused.body),
        Err(_) => assert!(site.get("/healthz").is_some(), "the server still answers"),
    }
    let foreign = [JSON, ("origin", "http://evil.example.com")];
    assert_eq!(
        send(&site, "POST", "/api/v1/login", &foreign, &guess).status,
        403
    );
    let page = send(&site, "GET", "/login?next=//evil.example.com", &[], "");
    assert!(
        page.body.contains("name=\"next\" value=\"/\""),
        "{}",
        page.body
    );
}
