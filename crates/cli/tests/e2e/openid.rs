//! Logins with a real OpenID Connect provider.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    accounts::{FORM, PASSWORD, form, send, set_up, shipway, value_between},
    openid_provider::{Browser, TestProvider, Visited},
    site::Site,
    words::assert_ends,
};

/// A server with a local admin `ada`, a group `platform`, and a provider.
fn site_with_provider() -> Option<(Site, TestProvider)> {
    let mut site = Site::new();
    let provider = TestProvider::for_site(&mut site)?;
    site.start();
    set_up(&site);
    let password = format!("{PASSWORD}\n");
    assert_ends(
        &shipway(&site, &["login", "ada", "--password-stdin"], &password),
        0,
        &[],
    );
    let add = ["group", "add", "platform", "--role", "deployer:shop"];
    assert_ends(&shipway(&site, &add, ""), 0, &[]);
    Some((site, provider))
}

/// The person whose name is that of the local admin.
fn ada() -> Value {
    json!({
        "preferred_username": "ada", "name": "Ada of Acme", "groups": ["devs", "cooks"],
        "email": "ada@example.com", "email_verified": true,
    })
}

fn log_in(site: &Site, browser: &mut Browser) -> Visited {
    browser.visit(&site.url("/login/oidc?next=/settings/tokens"))
}

fn user(site: &Site, name: &str) -> Value {
    let shown = shipway(site, &["user", "show", name, "--json"], "");
    serde_json::from_slice(&shown.stdout).unwrap()
}

/// Who the browser is signed in as.
fn me(site: &Site, browser: &Browser) -> Value {
    let cookie = browser.cookie(&site.url("/"));
    let answer = send(site, "GET", "/api/v1/me", &[("cookie", &cookie)], "");
    serde_json::from_str(&answer.body).unwrap()
}

fn assert_refused(site: &Site, visited: &Visited, browser: &Browser, status: u16, why: &str) {
    assert_eq!(visited.status, status, "{why}: {}", visited.body);
    assert!(visited.body.contains(why), "{why}: {}", visited.body);
    assert!(
        visited.body.contains("name=\"password\""),
        "the local login is there"
    );
    assert!(me(site, browser)["principal"].is_null(), "{why}");
}

#[test]
fn a_person_of_a_provider_is_a_user_of_its_own_whose_groups_follow_the_provider() {
    let Some((site, provider)) = site_with_provider() else {
        return;
    };
    let page = send(&site, "GET", "/login?next=/runs?q=a%26b", &[], "");
    assert!(page.body.contains("Log in with Acme"), "{}", page.body);
    assert!(
        page.body.contains("/login/oidc?next=/runs%3Fq%3Da%26b"),
        "{}",
        page.body
    );
    provider.person("ada-1", ada());
    let mut browser = Browser::default();
    let visited = log_in(&site, &mut browser);
    assert_eq!(
        (visited.status, visited.address.as_str()),
        (200, site.url("/settings/tokens").as_str()),
        "{}",
        visited.body
    );
    let first = me(&site, &browser);
    assert_eq!(
        first["principal"], "user:ada-2",
        "not the local admin of this name"
    );
    assert_eq!(first["groups"], json!(["@platform"]));
    assert_eq!(first["roles"], json!(["deployer:shop"]));
    // The provider takes the group away, and renames the person: the same user, without the role, in all of its sessions.
    let mut renamed = ada();
    renamed["groups"] = json!(["cooks"]);
    renamed["preferred_username"] = json!("eve");
    provider.person("ada-1", renamed);
    let mut second = Browser::default();
    let visited = log_in(&site, &mut second);
    let shown = user(&site, "ada-2");
    assert_eq!(shown["effective_roles"], json!([]));
    assert_eq!(shown["external"]["groups"], json!([]));
    assert!(
        visited.body.contains("ada-2, which has no role"),
        "{}",
        visited.body
    );
    for browser in [&browser, &second] {
        let cookie = browser.cookie(&site.url("/"));
        let list = send(&site, "GET", "/api/v1/services", &[("cookie", &cookie)], "");
        assert_eq!(list.status, 403, "{}", list.body);
    }
    // Another person with the same name and address is another user.
    provider.person("ada-9", ada());
    let mut other = Browser::default();
    log_in(&site, &mut other);
    assert_eq!(me(&site, &other)["principal"], "user:ada-3");
    assert_eq!(user(&site, "ada-2")["external"]["subject"], "ada-1");
    let cookie = other.cookie(&site.url("/"));
    let page = send(&site, "GET", "/settings/tokens", &[("cookie", &cookie)], "");
    let csrf = value_between(&page.body, "name=\"shipway-csrf\" content=\"", '"');
    let headers = [FORM, ("cookie", cookie.as_str())];
    let out = send(&site, "POST", "/logout", &headers, &form(&[("csrf", csrf)]));
    assert_eq!(out.status, 303);
    assert!(me(&site, &other)["principal"].is_null());
    // A disabled user can't come back through the provider.
    assert_ends(&shipway(&site, &["user", "disable", "ada-3"], ""), 0, &[]);
    let visited = log_in(&site, &mut Browser::default());
    assert!(
        visited.status == 403 && visited.body.contains("is disabled"),
        "{}",
        visited.body
    );
}

#[test]
fn tokens_that_are_not_for_this_login_sign_nobody_in() {
    let Some((site, provider)) = site_with_provider() else {
        return;
    };
    provider.person("ada-1", ada());
    for (change, why) in [
        (
            json!({ "claims": { "nonce": "other" } }),
            "belongs to another login",
        ),
        (
            json!({ "claims": { "iss": "https://evil.example.com" } }),
            "not by the configured issuer",
        ),
        (
            json!({ "claims": { "aud": ["shipway", "other"] } }),
            "not for this server",
        ),
        (json!({ "claims": { "exp": 1_700_000_000 } }), "expired"),
        (json!({ "sign": "none" }), "is signed with"),
        (json!({ "sign": "public-key-as-secret" }), "is signed with"),
        (json!({ "sign": "stranger" }), "signature is wrong"),
        (
            json!({ "header": { "kid": "unknown" } }),
            "has published no key",
        ),
    ] {
        provider.control("token", &change);
        let mut browser = Browser::default();
        let visited = log_in(&site, &mut browser);
        assert_refused(&site, &visited, &browser, 400, why);
    }
    provider.control("token", &json!({}));
    for (person, why) in [
        (
            json!({ "email": "ada@example.com", "email_verified": false }),
            "may not sign in here",
        ),
        (
            json!({ "email": "ada@other.example", "email_verified": true }),
            "may not sign in here",
        ),
        (json!({ "refused": true }), "the person said no"),
    ] {
        provider.person("eve-1", person);
        let mut browser = Browser::default();
        let visited = log_in(&site, &mut browser);
        assert_refused(&site, &visited, &browser, 403, why);
    }
    // The clocks may differ by a minute.
    provider.person("ada-1", ada());
    for (seconds, is_accepted) in [(30, true), (120, false)] {
        provider.control("clock", &json!({ "seconds": seconds }));
        let mut browser = Browser::default();
        let visited = log_in(&site, &mut browser);
        match is_accepted {
            true => assert_eq!(visited.status, 200, "{}", visited.body),
            false => assert_refused(&site, &visited, &browser, 400, "compare the clocks"),
        }
    }
}

#[test]
fn a_response_counts_once_in_the_browser_that_started_the_login() {
    let Some((site, provider)) = site_with_provider() else {
        return;
    };
    provider.person("ada-1", ada());
    let mut browser = Browser {
        stop_at: Some("/callback"),
        ..Browser::default()
    };
    let callback = log_in(&site, &mut browser).address;
    browser.stop_at = None;
    let why = "was not started in this browser";
    for foreign in [
        callback.replace("state=", "state=0"),
        callback.replace("state=", "x="),
    ] {
        let mut other = browser.clone();
        let visited = other.visit(&foreign);
        assert_refused(&site, &visited, &other, 400, why);
    }
    let mut stranger = Browser::default();
    assert_refused(&site, &stranger.visit(&callback), &stranger, 400, why);
    let mut other = browser.clone();
    let foreign = callback.replace("iss=http", "iss=https");
    assert_refused(
        &site,
        &other.visit(&foreign),
        &other,
        400,
        "not from the provider",
    );
    // With a copy of the cookie too, a code is used once.
    let copy = browser.clone();
    assert_eq!(browser.visit(&callback).status, 200);
    assert_eq!(me(&site, &browser)["principal"], "user:ada-2");
    let mut replay = copy;
    assert_refused(
        &site,
        &replay.visit(&callback),
        &replay,
        400,
        "refused the login",
    );
    // A code that has expired.
    let mut late = Browser {
        stop_at: Some("/callback"),
        ..Browser::default()
    };
    let callback = log_in(&site, &mut late).address;
    late.stop_at = None;
    provider.control("clock", &json!({ "seconds": 61 }));
    assert_refused(
        &site,
        &late.visit(&callback),
        &late,
        400,
        "refused the login",
    );
}

#[test]
fn a_provider_that_is_down_holds_no_local_login_and_is_not_flooded() {
    let Some((site, mut provider)) = site_with_provider() else {
        return;
    };
    provider.stop();
    let mut browser = Browser::default();
    let visited = log_in(&site, &mut browser);
    assert_refused(&site, &visited, &browser, 503, "be used now");
    let password = format!("{PASSWORD}\n");
    assert_ends(
        &shipway(&site, &["login", "ada", "--password-stdin"], &password),
        0,
        &[],
    );
    provider.start();
    provider.person("ada-1", ada());
    assert_eq!(log_in(&site, &mut browser).status, 200);
    // New keys are fetched when a token names one; a token with an invented one makes no more requests than the budget has.
    provider.control("rotate", &json!({}));
    assert_eq!(log_in(&site, &mut Browser::default()).status, 200);
    assert_eq!(provider.requests("/jwks"), 2);
    provider.control("token", &json!({ "header": { "kid": "invented" } }));
    let started = Instant::now();
    for _ in 0..15 {
        log_in(&site, &mut Browser::default());
    }
    let (requests, seconds) = (provider.requests("/jwks"), started.elapsed().as_secs());
    assert!(
        requests <= 10 + seconds / 10 + 1,
        "{requests} requests for keys in {seconds} s"
    );
    // It goes away in the middle of a login.
    let mut browser = Browser {
        stop_at: Some("/callback"),
        ..Browser::default()
    };
    let callback = log_in(&site, &mut browser).address;
    browser.stop_at = None;
    provider.stop();
    assert_refused(
        &site,
        &browser.visit(&callback),
        &browser,
        503,
        "be used now",
    );
}
