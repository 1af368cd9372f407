//! A decision is the same on each way: the API, the command, the page and a signed link accept and refuse it alike.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, said, until},
};

const TOKEN: &str = "correct-horse-battery";
const PASSWORD: &str = "correct horse battery";

/// A way to send a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Api,
    Command,
    Page,
    Link,
}

const WAYS: [Way; 4] = [Way::Api, Way::Command, Way::Page, Way::Link];

/// A user that is signed in everywhere.
struct Person {
    name: &'static str,
    token: String,
    cookie: String,
    csrf: String,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into()
}

/// Status and body of a request.
fn send(
    site: &Site,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, Option<String>) {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(site.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent().run(request.body(body.to_owned()).unwrap()).unwrap();
    let cookie = answer.headers().get("set-cookie");
    let cookie = cookie.map(|it| it.to_str().unwrap().split(';').next().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_string().unwrap_or_default();
    (status, body, cookie)
}

/// A JSON request with a token.
fn call(site: &Site, token: &str, request: (&str, &str), body: &Value) -> (u16, Value) {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let body = match request.0 {
        "GET" => String::new(),
        _ => body.to_string(),
    };
    let (status, body, _) = send(site, request, &headers, &body);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

impl Person {
    fn add(site: &Site, name: &'static str, roles: &Value) -> Self {
        let user = json!({ "name": name, "password": PASSWORD, "roles": roles });
        let (status, body) = call(site, TOKEN, ("POST", "/api/v1/users"), &user);
        assert!(status < 300, "{body:#}");
        let token = json!({ "name": "t", "owner": name });
        let (_, token) = call(site, TOKEN, ("POST", "/api/v1/tokens"), &token);
        let login = json!({ "user": name, "password": PASSWORD }).to_string();
        let headers = [("content-type", "application/json")];
        let (_, body, cookie) = send(site, ("POST", "/api/v1/login"), &headers, &login);
        let session: Value = serde_json::from_str(&body).unwrap();
        Self {
            name,
            token: token["secret"].as_str().unwrap().to_owned(),
            cookie: cookie.unwrap(),
            csrf: session["csrf"].as_str().unwrap().to_owned(),
        }
    }

    /// The address of a link for a decision, and what is refused when none is made.
    fn link(&self, site: &Site, rollout: u32, decision: &str) -> Result<String, (u16, String)> {
        let path = format!("/api/v1/rollouts/shop/{rollout}/links");
        let body = json!({ "decision": decision });
        let (status, link) = call(site, &self.token, ("POST", &path), &body);
        match link["address"].as_str() {
            Some(address) => Ok(address.split_once("/approval-link").unwrap().1.to_owned()),
            None => Err((status, link.to_string())),
        }
    }

    /// Uses a link: opens its page, and presses its button.
    fn use_link(site: &Site, query: &str) -> (u16, String) {
        let path = format!("/approval-link{query}");
        let (status, page, cookie) = send(site, ("GET", &path), &[], "");
        if status != 200 {
            return (status, page);
        }
        let field = |name: &str| {
            let (_, rest) = page
                .split_once(&format!("name=\"{name}\" value=\""))
                .unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        let form = format!("form_token={}&link={}", field("form_token"), field("link"));
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("cookie", &cookie.unwrap()),
        ];
        let (status, page, _) = send(site, ("POST", "/approval-link"), &headers, &form);
        (status, page)
    }

    /// Sends a decision; the status that the way has for it, and what it says.
    fn decide(&self, site: &Site, way: Way, rollout: u32, decision: &str) -> (u16, String) {
        let path = format!("/api/v1/rollouts/shop/{rollout}/{decision}");
        match way {
            Way::Api => {
                let (status, body) = call(site, &self.token, ("POST", &path), &json!({}));
                (status, body.to_string())
            }
            Way::Page => {
                let headers = [
                    ("content-type", "application/json"),
                    ("cookie", self.cookie.as_str()),
                    ("x-shipway-csrf", self.csrf.as_str()),
                ];
                let (status, body, _) = send(site, ("POST", &path), &headers, "{}");
                (status, body)
            }
            Way::Command => {
                let output = Command::new(SHIPWAY)
                    .args([decision, &format!("shop/ro{rollout}")])
                    .env("SHIPWAY_URL", site.url(""))
                    .env("SHIPWAY_TOKEN", &self.token)
                    .output()
                    .unwrap();
                let status = match output.status.code() {
                    Some(0) => 200,
                    Some(3) => 403,
                    _ => 409,
                };
                (status, said(&output))
            }
            Way::Link => match self.link(site, rollout, decision) {
                Ok(query) => Self::use_link(site, &query),
                Err(refused) => refused,
            },
        }
    }
}

/// Production needs two of alice, bob and Ada, but not the author, who is Ada.
const CONFIG: &str = "service: shop
run: { command: exec python3 shop.py, health: { http: /ready, interval: 100ms, timeout: 2s } }
environments:
  production: { strategy: recreate, drain: 1s, approvals: { count: 2, from: [alice, bob, ann], not: [author] } }
";

struct Stage {
    site: Site,
    shop: Shop,
    rollout: u32,
}

impl Stage {
    fn new() -> Self {
        let mut site = Site::new();
        site.env.push(("SHIPWAY_TOKEN", TOKEN.to_owned()));
        site.start();
        let remote = format!("http://ann:{TOKEN}@{}/git/shop", site.listen);
        let shop = Shop::create(&site.folder.path().join("repo"), &remote);
        shop.write("shipway.yaml", CONFIG);
        Self {
            site,
            shop,
            rollout: 0,
        }
    }

    fn view(&self, rollout: u32) -> Value {
        let path = format!("/api/v1/rollouts/shop/{rollout}");
        call(&self.site, TOKEN, ("GET", &path), &Value::Null).1
    }

    /// A new rollout, which waits for approval and supersedes the one before.
    fn next_rollout(&mut self) -> u32 {
        self.rollout += 1;
        let number = self.rollout;
        let mut push = self.shop.ship_begun(&format!("1.{number}"));
        until("the rollout waits", || {
            self.view(number)["status"] == "waiting"
        });
        push.kill().unwrap();
        push.wait().unwrap();
        number
    }
}

#[test]
fn each_way_accepts_and_refuses_the_same_decisions() {
    let mut stage = Stage::new();
    let everywhere = json!(["approver"]);
    let ada = Person::add(&stage.site, "ada", &json!(["admin"]));
    let [alice, bob, ann, mallory] =
        ["alice", "bob", "ann", "mallory"].map(|name| Person::add(&stage.site, name, &everywhere));
    let dave = Person::add(&stage.site, "dave", &json!(["deployer"]));
    let mut wrong = Vec::new();
    let mut expect = |what: &str, way: Way, got: (u16, String), status: u16, words: &str| {
        // A page has the words with its markup; a command has its own statuses for what is not a conflict.
        if got.0 != status || !got.1.contains(words) {
            wrong.push(format!("{what} by {way:?}: {} {}", got.0, got.1));
        }
    };
    let first = stage.next_rollout();
    for way in WAYS {
        let site = &stage.site;
        let got = dave.decide(site, way, first, "approve");
        expect("no role", way, got, 403, "this needs the role approver");
        let got = mallory.decide(site, way, first, "approve");
        expect(
            "not in the list",
            way,
            got,
            403,
            "decisions are accepted from",
        );
        let got = mallory.decide(site, way, first, "reject");
        expect(
            "not in the list, to reject",
            way,
            got,
            403,
            "decisions are accepted from",
        );
        let got = ann.decide(site, way, first, "approve");
        expect("the author", way, got, 403, "is the author of the change");
        let rollout = &stage.view(first);
        assert_eq!(rollout["status"], "waiting", "{rollout:#}");
        assert!(rollout["gate"]["decisions"].as_array().unwrap().is_empty());
    }
    // A changed subject: what the person has seen is not what waits.
    let path = format!("/api/v1/rollouts/shop/{first}/approve");
    let mut seen = stage.view(first)["gate"]["binding"].clone();
    seen["artifact"] = json!(format!("sha256:{}", "0".repeat(64)));
    let (status, body) = call(
        &stage.site,
        &alice.token,
        ("POST", &path),
        &json!({ "seen": seen }),
    );
    assert_eq!(status, 409, "{body:#}");
    assert!(body.to_string().contains("the artifact"), "{body:#}");
    // A rollout that was superseded, and links to it.
    let links: Vec<String> = ["approve", "reject"]
        .map(|decision| alice.link(&stage.site, first, decision).unwrap())
        .into();
    let second = stage.next_rollout();
    for way in WAYS {
        for decision in ["approve", "reject"] {
            let got = alice.decide(&stage.site, way, first, decision);
            expect("superseded", way, got, 409, "was superseded by");
        }
    }
    for link in &links {
        let got = Person::use_link(&stage.site, link);
        expect("superseded", Way::Link, got, 409, "was superseded by");
    }
    // Its lane is free at once: the next one has its own decisions, one on each way.
    for (way, person) in [(Way::Link, &alice), (Way::Page, &bob)] {
        let spare = person.link(&stage.site, second, "approve").unwrap();
        let before = stage.view(second)["gate"]["decisions"]
            .as_array()
            .unwrap()
            .len();
        let (status, _, _) = send(
            &stage.site,
            ("GET", &format!("/approval-link{spare}")),
            &[],
            "",
        );
        assert_eq!(status, 200);
        let after = stage.view(second)["gate"]["decisions"]
            .as_array()
            .unwrap()
            .len();
        assert_eq!(before, after, "opening a link decides nothing");
        let got = person.decide(&stage.site, way, second, "approve");
        assert_eq!(got.0, 200, "{way:?}: {}", got.1);
        let (status, page) = Person::use_link(&stage.site, &spare);
        assert_eq!(status, 409, "used once: {page}");
    }
    // After the last approval it continues by itself.
    until("the promotion", || {
        stage.view(second)["status"] == "promoted"
    });
    for way in WAYS {
        let got = alice.decide(&stage.site, way, second, "approve");
        expect("after the end", way, got, 409, "");
    }
    // A rejected one, and a role that is taken away.
    let third = stage.next_rollout();
    let link = bob.link(&stage.site, third, "approve").unwrap();
    let path = format!("/api/v1/users/{}", bob.name);
    let (status, body) = call(
        &stage.site,
        &ada.token,
        ("PUT", &path),
        &json!({ "roles": ["viewer"] }),
    );
    assert!(status < 300, "{body:#}");
    for way in WAYS {
        let got = bob.decide(&stage.site, way, third, "approve");
        expect(
            "role revoked",
            way,
            got,
            403,
            "this needs the role approver",
        );
    }
    let got = Person::use_link(&stage.site, &link);
    expect(
        "role revoked",
        Way::Link,
        got,
        403,
        "this needs the role approver",
    );
    let (status, _) = alice.decide(&stage.site, Way::Command, third, "reject");
    assert_eq!(status, 200);
    until("the end", || !stage.view(third)["ended"].is_null());
    for way in WAYS {
        let got = alice.decide(&stage.site, way, third, "approve");
        expect("rejected", way, got, 409, "");
    }
    for forged in ["?link=x", "?link=", &link[..link.len() - 3]] {
        assert_eq!(Person::use_link(&stage.site, forged).0, 410, "{forged}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_promotion_and_an_abort_at_once_end_as_the_answers_say() {
    let site = Site::started();
    let shop = site.shop();
    shop.write(
        "shipway.yaml",
        "service: shop
run: { command: exec python3 shop.py, health: { http: /ready, interval: 100ms, timeout: 2s } }
environments:
  production: { drain: 1s, strategy: { canary: { steps: [{ weight: 50%, hold: 10m }] } } }
",
    );
    shop.ship("1.0");
    site.ended_rollout("production", 1);
    let mut stable = "1.0".to_owned();
    for number in 2..6_u64 {
        let mut push = shop.ship_begun(&format!("1.{number}"));
        let path = format!("/api/v1/rollouts/shop/{number}");
        until("the canary to hold", || {
            site.get(&path)
                .is_some_and(|view| view["status"] == "holding")
        });
        let (promoted, aborted) = std::thread::scope(|scope| {
            let act = |verb: &'static str| {
                let (site, path) = (&site, &path);
                move || site.post(&format!("{path}/{verb}"), &json!({ "reason": "now" }))
            };
            let promote = scope.spawn(act("promote"));
            let abort = scope.spawn(act("abort"));
            (promote.join().unwrap(), abort.join().unwrap())
        });
        until("the end", || {
            site.get(&path)
                .is_some_and(|view| !view["ended"].is_null() || view["status"] == "promoted")
        });
        let status = site.get(&path).unwrap()["status"].clone();
        // An abort is accepted as long as the release is not promoted, also after a promotion was requested: the safe one wins.
        let expected = match aborted.0 {
            200 => "aborted",
            409 => "promoted",
            other => panic!("{other}: {:#}", aborted.1),
        };
        assert_eq!(status, expected, "{promoted:?} {aborted:?}");
        if expected == "promoted" {
            stable = format!("1.{number}");
        }
        assert_eq!(site.ask("/shop/"), Some((200, stable.clone())));
        for (status, refused) in [&promoted, &aborted] {
            assert!(matches!(status, 200 | 409), "{refused:#}");
            let detail = refused["detail"].as_str().unwrap_or_default();
            assert!(*status == 200 || detail.contains("shop/ro"), "{detail}");
        }
        site.post(
            "/api/v1/services/shop/environments/production/resume",
            &json!({}),
        );
        push.kill().unwrap();
        push.wait().unwrap();
    }
}

#[test]
fn a_rejected_release_is_refused_everywhere_until_that_is_taken_back() {
    let site = Site::started();
    let shop = site.shop();
    shop.write(
        "shipway.yaml",
        "service: shop
run: { command: exec python3 shop.py, health: { http: /ready, interval: 100ms, timeout: 2s } }
environments:
  production: { drain: 1s, strategy: { canary: { steps: [{ weight: 50%, hold: 10m }] } } }
",
    );
    shop.ship("1.0");
    site.ended_rollout("production", 1);
    let mut push = shop.ship_begun("1.1");
    until("the canary to hold", || {
        let view = site.get("/api/v1/rollouts/shop/2");
        view.is_some_and(|view| view["status"] == "holding")
    });
    let missing = site.shipway(&["reject", "shop", "--release", "2"]);
    assert_ne!(missing.status.code(), Some(0));
    assert!(said(&missing).contains("--reason"), "{}", said(&missing));
    let reason = ["--reason", "the prices are wrong"];
    let rejected = site.shipway(&[&["reject", "shop", "--release", "2"][..], &reason].concat());
    assert!(
        said(&rejected).contains("no environment accepts it"),
        "{}",
        said(&rejected)
    );
    let ended = site.ended_rollout("production", 2);
    assert_eq!(ended["status"], "aborted", "{ended:#}");
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
    site.shipway(&["resume", "shop", "--env", "production"]);
    for words in [
        &[
            "deploy",
            "shop",
            "--env",
            "production",
            "--release",
            "2",
            "--force",
        ][..],
        &["retry", "shop/ro2"],
        &["rollback", "shop", "--env", "production", "--release", "2"],
    ] {
        let refused = said(&site.shipway(words));
        let why = "#2 was rejected by ann: the prices are wrong";
        assert!(refused.contains(why), "{words:?}: {refused}");
    }
    let releases = site.get("/api/v1/services/shop/releases").unwrap();
    assert_eq!(
        releases["items"][0]["rejected"]["by"], "ann",
        "{releases:#}"
    );
    let page = send(&site, ("GET", "/services/shop/releases/2"), &[], "").1;
    assert!(
        page.contains("the prices are wrong") && page.contains("Accept it again"),
        "{page}"
    );
    let undone = said(&site.shipway(&["reject", "shop", "--release", "2", "--undo"]));
    assert!(undone.contains("is accepted again"), "{undone}");
    let deployed = site.shipway(&[
        "deploy",
        "shop",
        "--env",
        "production",
        "--release",
        "2",
        "--force",
    ]);
    assert!(deployed.status.success(), "{}", said(&deployed));
    push.kill().unwrap();
    push.wait().unwrap();
}
