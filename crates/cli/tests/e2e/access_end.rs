//! Access that ends while it is used: responses that are open, sessions, and a rollout that its user started.

use std::{
    io::{BufRead, BufReader},
    sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    accounts::{JSON, PASSWORD, send},
    days::OtherTime,
    load::Load,
    shop::Shop,
    site::{PATIENCE, Site, until},
};

const SERVER_TOKEN: &str = "correct-horse-battery";
/// Shorter than the interval of keep-alive comments, so that no stream is noticed to have ended by one.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// An event stream that a thread reads.
struct OpenStream {
    lines: Receiver<String>,
}

impl OpenStream {
    /// Returns when the server has accepted the request.
    fn open(site: &Site, header: (&str, &str)) -> Self {
        let mut answer = ureq::get(site.url("/api/v1/events"))
            .header(header.0, header.1)
            .call()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(answer.body_mut().as_reader()).lines();
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { lines }
    }

    #[track_caller]
    fn assert_ends(&self) {
        let start = Instant::now();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the stream is still open"),
            }
        }
        let elapsed = start.elapsed();
        assert!(elapsed < END_TIME_MAX, "it ended after {elapsed:?}");
    }

    #[track_caller]
    fn assert_receives(&self, text: &str) {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return,
                Ok(_) => {}
                Err(error) => panic!("no {text}: {error}"),
            }
        }
    }

    #[track_caller]
    fn assert_open(&self) {
        loop {
            match self.lines.try_recv() {
                Ok(_) => {}
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => panic!("the stream has ended"),
            }
        }
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Status and document of a request with a token.
fn call(site: &Site, token: &str, request: (&str, &str), body: &Value) -> (u16, Value) {
    let headers = [JSON, ("authorization", &bearer(token))];
    let body = match request.0 {
        "GET" => String::new(),
        _ => body.to_string(),
    };
    let answer = send(site, request.0, request.1, &headers, &body);
    let document = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    (answer.status, document)
}

#[track_caller]
fn change(site: &Site, token: &str, request: (&str, &str), body: &Value) -> Value {
    let (status, document) = call(site, token, request, body);
    assert!(status < 300, "{request:?}: {status} {document:#}");
    document
}

fn add_user(site: &Site, admin: &str, name: &str, roles: &Value) {
    let user = json!({ "name": name, "password": PASSWORD, "roles": roles });
    change(site, admin, ("POST", "/api/v1/users"), &user);
}

/// The id and the secret of a new token.
fn add_token(site: &Site, admin: &str, owner: &str) -> (String, String) {
    let request = json!({ "name": "t", "owner": owner, "expires_in_days": 1 });
    let created = change(site, admin, ("POST", "/api/v1/tokens"), &request);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&created["token"]["id"]), text(&created["secret"]))
}

/// The cookie of a new session.
fn sign_in(site: &Site, name: &str) -> String {
    let login = json!({ "user": name, "password": PASSWORD }).to_string();
    let answer = send(site, "POST", "/api/v1/login", &[JSON], &login);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.cookies[0].clone()
}

fn site_with_server_token() -> Site {
    let mut site = Site::new();
    site.env.push(("SHIPWAY_TOKEN", SERVER_TOKEN.to_owned()));
    site.start();
    site
}

#[test]
fn an_open_stream_ends_with_the_access_of_its_reader_and_of_no_other() {
    let site = site_with_server_token();
    let admin = SERVER_TOKEN;
    add_user(&site, admin, "ada", &json!(["admin"]));
    add_user(&site, admin, "bob", &json!(["viewer"]));
    let (_, ada) = add_token(&site, admin, "ada");
    let (revoked, secret) = add_token(&site, admin, "bob");
    let (_, other) = add_token(&site, admin, "bob");
    let authorization = |token: &str| ("authorization", bearer(token));
    let open = |(name, value): (&str, String)| OpenStream::open(&site, (name, &value));
    let witness = open(authorization(&ada));
    let (first, second) = (open(authorization(&secret)), open(authorization(&other)));
    let session = open(("cookie", sign_in(&site, "bob")));

    let path = format!("/api/v1/tokens/{revoked}");
    change(&site, admin, ("DELETE", &path), &json!({}));
    first.assert_ends();
    witness.assert_receives("token_revoked");
    second.assert_open();
    session.assert_open();

    // A further role ends nothing; a role that is taken away does.
    let user = "/api/v1/users/bob";
    let roles = json!({ "roles": ["viewer", "deployer:shop"] });
    change(&site, admin, ("PUT", user), &roles);
    witness.assert_receives("user_changed");
    second.assert_open();
    let roles = json!({ "roles": ["deployer:shop"] });
    change(&site, admin, ("PUT", user), &roles);
    second.assert_ends();
    session.assert_ends();

    let (third, session) = (
        open(authorization(&other)),
        open(("cookie", sign_in(&site, "bob"))),
    );
    change(
        &site,
        admin,
        ("POST", "/api/v1/users/bob/logout"),
        &json!({}),
    );
    session.assert_ends();
    third.assert_open();
    change(
        &site,
        admin,
        ("POST", "/api/v1/users/bob/disable"),
        &json!({}),
    );
    third.assert_ends();
    witness.assert_receives("user_disabled");
    witness.assert_open();
}

#[test]
fn a_stream_of_an_open_server_ends_with_its_first_user() {
    let site = Site::started();
    let stream = OpenStream::open(&site, ("accept", "text/event-stream"));
    let ada = json!({ "name": "ada", "password": PASSWORD, "roles": ["admin"] });
    let (status, added) = site.post("/api/v1/users", &ada);
    assert_eq!(status, 201, "{added:#}");
    stream.assert_ends();
}

#[test]
fn a_session_that_is_idle_and_a_token_that_expires_end_their_streams() {
    let Some((site, time)) = OtherTime::site() else {
        return;
    };
    let ada = json!({ "name": "ada", "password": PASSWORD, "roles": ["admin"] });
    assert_eq!(site.post("/api/v1/users", &ada).0, 201);
    let login = json!({ "user": "ada", "password": PASSWORD, "token_name": "t" });
    let (_, login) = site.post("/api/v1/login", &login);
    let admin = login["created_token"]["secret"].as_str().unwrap();
    add_user(&site, admin, "bob", &json!(["viewer"]));
    let cookie = sign_in(&site, "bob");
    let session = OpenStream::open(&site, ("cookie", &cookie));
    let (_, token) = add_token(&site, admin, "bob");

    // 11 h later a request keeps the session; 12 h after that request it is over.
    let me = || send(&site, "GET", "/api/v1/me", &[("cookie", &cookie)], "").status;
    time.set("+39600");
    assert_eq!(me(), 200);
    time.set(&format!("+{}", 39_600 + 43_260));
    add_user(&site, admin, "carl", &json!(["viewer"]));
    session.assert_ends();
    assert_eq!(me(), 401);

    // Nothing but the time ends this one.
    time.set("+86340");
    let stream = OpenStream::open(&site, ("authorization", &bearer(&token)));
    stream.assert_open();
    let start = Instant::now();
    while stream.lines.recv_timeout(PATIENCE).is_ok() {}
    assert!(start.elapsed() < Duration::from_secs(90));
    let (status, refused) = call(&site, &token, ("GET", "/api/v1/me"), &Value::Null);
    assert_eq!(status, 401, "{refused:#}");
}

#[test]
fn a_rollout_continues_after_its_user_was_revoked_and_obeys_the_user_no_more() {
    let site = site_with_server_token();
    let admin = SERVER_TOKEN;
    add_user(&site, admin, "ada", &json!(["admin"]));
    add_user(&site, admin, "bob", &json!(["deployer"]));
    let (_, bob) = add_token(&site, admin, "bob");
    let remote = format!("http://bob:{bob}@{}/git/shop", site.listen);
    let shop = Shop::create(&site.folder.path().join("repo"), &remote);
    shop.edit("shipway.yaml", "hold: 1s", "hold: 8s");
    assert!(shop.ship("1.0").status.success());
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    let push = shop.ship_begun("1.1");
    let mut number = String::new();
    until("the canary", || {
        let path = "/api/v1/rollouts?service=shop&limit=200";
        let (_, page) = call(&site, admin, ("GET", path), &Value::Null);
        let rollouts = page["items"].as_array().cloned().unwrap_or_default();
        let holding = rollouts.iter().find(|rollout| {
            rollout["environment"] == "production"
                && rollout["release"] == 2
                && !rollout["hold_until"].is_null()
        });
        let id = holding.and_then(|it| it["id"].as_str()?.rsplit_once("ro"));
        number = id.map(|(_, number)| number.to_owned()).unwrap_or_default();
        !number.is_empty()
    });
    let path = format!("/api/v1/rollouts/shop/{number}");
    let steer = |action: &str| {
        let path = format!("{path}/{action}");
        call(&site, &bob, ("POST", &path), &json!({ "reason": "mine" })).0
    };
    let user = "/api/v1/users/bob";
    change(&site, admin, ("PUT", user), &json!({ "roles": ["viewer"] }));
    assert_eq!((steer("promote"), steer("abort")), (403, 403));
    change(
        &site,
        admin,
        ("POST", "/api/v1/users/bob/disable"),
        &json!({}),
    );
    assert_eq!((steer("promote"), steer("abort")), (401, 401));
    push.wait_with_output().unwrap();
    let mut rollout = Value::Null;
    until("the end of the rollout", || {
        rollout = call(&site, admin, ("GET", &path), &Value::Null).1;
        !rollout["ended"].is_null() || rollout["status"] == "promoted"
    });
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    // The release still names who pushed it.
    let release = "/api/v1/releases?service=shop";
    let (_, releases) = call(&site, admin, ("GET", release), &Value::Null);
    let newest = &releases["items"][0];
    assert_eq!(newest["by"], "bob", "{newest:#}");
    load.stop();
}
