//! The pages of the settings: secrets, webhooks, retention and the audit, with forms that need no script.

use serde_json::{Value, json};

use crate::{
    accounts::{Answer, FORM, JSON, PASSWORD, form, send, set_up, value_between},
    site::{Site, until},
};

/// A signed-in user with the token that forms must carry.
struct Visitor<'s> {
    site: &'s Site,
    cookie: String,
    csrf: String,
}

impl<'s> Visitor<'s> {
    fn new(site: &'s Site, cookie: String) -> Self {
        let page = send(site, "GET", "/settings/tokens", &[("cookie", &cookie)], "");
        let csrf = value_between(&page.body, "name=\"shipway-csrf\" content=\"", '"');
        Self {
            site,
            csrf: csrf.to_owned(),
            cookie,
        }
    }

    /// Adds a user with a role, who signs in.
    fn add_user(&self, name: &str, role: &str) -> Self {
        let body = json!({ "name": name, "roles": [role], "password": PASSWORD });
        let added = self.send_json("POST", "/api/v1/users", &body);
        assert_eq!(added.status, 201, "{}", added.body);
        let page = send(self.site, "GET", "/login", &[], "");
        let token = value_between(&page.body, "name=\"form_token\" value=\"", '"');
        let fields = [
            ("form_token", token),
            ("user", name),
            ("password", PASSWORD),
        ];
        let headers = [FORM, ("cookie", page.cookies[0].as_str())];
        let done = send(self.site, "POST", "/login", &headers, &form(&fields));
        assert_eq!(done.status, 303, "{}", done.body);
        Self::new(self.site, done.cookies[0].clone())
    }

    fn get(&self, path: &str) -> Answer {
        let headers = [("cookie", self.cookie.as_str()), ("accept", "text/html")];
        send(self.site, "GET", path, &headers, "")
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).body).unwrap()
    }

    fn send_json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [
            JSON,
            ("cookie", self.cookie.as_str()),
            ("x-shipway-csrf", self.csrf.as_str()),
        ];
        send(self.site, method, path, &headers, &body.to_string())
    }

    fn submit(&self, page: &str, fields: &[(&str, &str)]) -> Answer {
        let fields = [fields, &[("csrf", self.csrf.as_str())]].concat();
        let headers = [FORM, ("cookie", self.cookie.as_str())];
        send(self.site, "POST", page, &headers, &form(&fields))
    }
}

/// Asserts which texts a page has and which it hasn't.
fn assert_shows(page: &Answer, present: &[&str], absent: &[&str]) {
    assert_eq!(page.status, 200, "{}", page.body);
    for text in present {
        assert!(page.body.contains(text), "{text:?} is not in {}", page.body);
    }
    for text in absent {
        assert!(!page.body.contains(text), "{text:?} is in {}", page.body);
    }
}

const SECRETS: &str = "/settings/secrets";

#[test]
fn secrets_are_set_and_removed_by_forms_and_their_values_are_never_shown() {
    let site = Site::started();
    let ada = Visitor::new(&site, set_up(&site));
    assert_shows(&ada.get(SECRETS), &["No secret is set yet"], &[]);
    let place = [
        ("name", "api_key"),
        ("service", "shop"),
        ("environment", "production"),
    ];
    let set = |version, value| {
        let fields = [
            ("action", "set_secret"),
            ("version", version),
            ("value", value),
        ];
        ada.submit(SECRETS, &[&fields[..], &place].concat())
    };
    let done = set("0", "sesame%0D%0Aopen-1");
    assert_eq!((done.status, done.location.as_str()), (303, SECRETS));
    let row = [
        "<code>API_KEY</code>",
        "<td data-label=\"Service\">shop</td>",
        "<td data-label=\"Environment\">production</td>",
        "by <bdi>ada</bdi>",
        "this version never",
    ];
    assert_shows(&ada.get(SECRETS), &row, &["open-1"]);
    // A form that was made from an older version overwrites nothing.
    let stale = set("0", "other-value-2");
    assert_eq!(stale.status, 412, "{}", stale.body);
    assert!(
        stale.body.contains("has version 1, not 0"),
        "{}",
        stale.body
    );
    assert!(!stale.body.contains("other-value-2"), "{}", stale.body);
    assert_eq!(set("1", "new-value-3").status, 303);
    let list = ada.json("/api/v1/secrets?service=shop");
    assert_eq!(list["items"][0]["version"], 2, "{list:#}");

    let forged = [("action", "remove_secret"), ("csrf", "0")];
    let headers = [FORM, ("cookie", ada.cookie.as_str())];
    let forged = form(&[&forged[..], &place].concat());
    assert_eq!(send(&site, "POST", SECRETS, &headers, &forged).status, 403);

    // A deployer lists the secrets of its service and changes none; another sees nothing of them.
    let bob = ada.add_user("bob", "deployer:shop");
    assert_shows(
        &bob.get(SECRETS),
        &row[..3],
        &["<textarea", "remove_secret"],
    );
    let remove = [&[("action", "remove_secret")][..], &place].concat();
    let refused = bob.submit(SECRETS, &remove);
    assert_eq!(refused.status, 403, "{}", refused.body);
    let cy = ada.add_user("cy", "deployer:cart");
    assert_shows(&cy.get(SECRETS), &["that you may list"], &["API_KEY"]);

    assert_eq!(ada.submit(SECRETS, &remove).status, 303);
    assert_shows(&ada.get(SECRETS), &["No secret is set yet"], &[]);
    assert!(!site.log().contains("open-1"), "a secret is in the log");
}

#[test]
fn the_audit_says_who_changed_what_to_administrators_alone() {
    let site = Site::started();
    let ada = Visitor::new(&site, set_up(&site));
    let bob = ada.add_user("bob", "admin");
    for name in ["ONE", "TWO"] {
        let fields = [
            ("action", "set_secret"),
            ("name", name),
            ("value", "open-sesame-1"),
            ("service", ""),
            ("environment", "production"),
        ];
        assert_eq!(bob.submit(SECRETS, &fields).status, 303);
    }
    let recorded = || ada.json("/api/v1/audit?person=BOB")["items"].clone();
    until("the changes to be in the audit", || {
        recorded().as_array().is_some_and(|items| items.len() == 2)
    });
    let newest = &recorded()[0];
    assert_eq!(newest["change"], "set secret TWO (version 1) of production");
    assert_eq!(
        (&newest["by"], &newest["area"]),
        (&json!("bob"), &json!("secrets"))
    );
    // Pages of one entry, the newest first, each entry once.
    let (mut seen, mut address) = (Vec::new(), "/api/v1/audit?limit=1".to_owned());
    loop {
        let page = ada.json(&address);
        seen.extend(page["items"][0]["number"].as_u64());
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        address = format!("/api/v1/audit?limit=1&cursor={next}");
    }
    let expected: Vec<u64> = (1..=seen.len() as u64).rev().collect();
    assert_eq!(seen, expected);
    assert!(seen.len() >= 4, "ada, bob and two secrets: {seen:?}");
    let old = ada.json("/api/v1/audit?until=2020-01-01");
    assert_eq!(old["items"], json!([]));

    let page = ada.get("/settings/audit?person=bob&since=1h");
    assert_shows(
        &page,
        &[
            "set secret TWO (version 1) of production",
            "secrets of all services",
        ],
        &["open-sesame-1", "added user bob"],
    );
    assert_shows(
        &ada.get("/settings/audit?person=zoe"),
        &["Nothing matches these filters"],
        &[],
    );
    assert_shows(
        &ada.get("/settings/audit?since=soon"),
        &["is not a valid time"],
        &[],
    );
    let cy = ada.add_user("cy", "admin:shop");
    for path in ["/api/v1/audit", "/settings/audit", "/settings/retention"] {
        assert_eq!(cy.get(path).status, 403, "{path}");
    }
    // The navigation leads to what may be opened.
    let own = cy.get("/settings/tokens");
    assert_shows(
        &own,
        &["/settings/secrets"],
        &["/settings/audit", "/settings/users"],
    );
}

#[test]
fn webhooks_show_their_connections_and_the_last_refusal() {
    let site = Site::started();
    let ada = Visitor::new(&site, set_up(&site));
    let page = "/settings/webhooks";
    assert_shows(&ada.get(page), &["shipway forge connect github"], &[]);
    let value = json!({ "value": "a-long-webhook-secret" });
    let set = ada.send_json("PUT", "/api/v1/secrets/HOOK?service=shop", &value);
    assert_eq!(set.status, 200, "{}", set.body);
    let request = json!({ "forge": "github", "project": "acme/shop", "webhook_secret": "HOOK" });
    let connected = ada.send_json("PUT", "/api/v1/forges/shop", &request);
    assert_eq!(connected.status, 200, "{}", connected.body);
    let hook = site.url("/hooks/github");
    let connection = [
        "GitHub",
        "acme/shop",
        &hook,
        "<code>HOOK</code>",
        "None was accepted yet",
    ];
    assert_shows(
        &ada.get(page),
        &connection,
        &["a-long-webhook-secret", "Refused webhooks"],
    );
    let headers = [
        JSON,
        ("x-github-event", "push"),
        ("x-github-delivery", "1"),
        ("x-hub-signature-256", "sha256:00"),
    ];
    assert_eq!(
        send(&site, "POST", "/hooks/github", &headers, "{}").status,
        401
    );
    assert_shows(
        &ada.get(page),
        &["Refused webhooks", "<strong>GitHub</strong>"],
        &[],
    );
    // Others see neither the repository nor refusals, which are of no known one.
    let cy = ada.add_user("cy", "viewer:cart");
    assert_shows(
        &cy.get(page),
        &["No repository that you may read"],
        &["<code>HOOK</code>", "Refused webhooks"],
    );
}

#[test]
fn old_files_are_removed_by_a_form_only_after_a_look_at_them() {
    let site = Site::started();
    let ada = Visitor::new(&site, set_up(&site));
    let page = "/settings/retention";
    until("the first removal to end", || {
        ada.get(page).body.contains("were kept")
    });
    let rule = [
        "90 d after their end",
        "the newest 20 releases",
        "shipway prune --dry-run",
    ];
    assert_shows(&ada.get(page), &rule, &["Remove these files"]);
    let preview = ada.submit(page, &[("action", "preview")]);
    assert_shows(
        &preview,
        &["What would be removed", "Remove these files"],
        &[],
    );
    let removed = ada.submit(page, &[("action", "prune")]);
    assert_shows(
        &removed,
        &["<h2>Removed</h2>", "0 files, 0 bytes"],
        &["Remove these files"],
    );
}
