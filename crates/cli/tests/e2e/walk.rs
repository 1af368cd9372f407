//! The walk of a team through the pages, in real browsers: from the setup link to a rollback and the end of its hold.

use std::process::Child;

use serde_json::Value;

use crate::{
    browser::Browser,
    examined_page::{examine, examine_open_page},
    load::Load,
    shop::Shop,
    site::{Site, said, until},
};

const PASSWORD: &str = "correct horse battery";

/// Staging without a question; production needs bob, and then a canary holds until it is steered.
const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  staging:
    strategy: recreate
  production:
    instances: 2
    approvals: { count: 1, from: [bob] }
    strategy: { canary: { steps: [{ weight: 20, hold: 5m }, { weight: 60, hold: 5m }] } }
    analysis: [{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }, { metric: error-rate, worse_than: stable }]
";

const WORKFLOW: &str = "
name: cd
on:
  push: { branches: [main] }
jobs:
  lint:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: echo \"the key has ${#KEY} letters\"
        env: { KEY: '${{ secrets.API_KEY }}' }
  build:
    needs: lint
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Compile
        run: python3 -m py_compile shop.py
      - name: Test
        run: |
          for i in $(seq 1 60); do echo \"test $i: ok\"; done
          sh ./check.sh
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: \"shop.py\\nVERSION\\nMOOD\", if-no-files-found: error }
";

/// A team on a server: two people with a browser each, and a repository.
pub struct Team {
    pub site: Site,
    pub ada: Browser,
    pub bob: Browser,
    pub shop: Shop,
    pub token: String,
}

impl Team {
    /// Sets the server up through its pages; `None` where there is no browser. `looks` sees the pages on the way.
    pub fn set_up(mut looks: impl FnMut(&mut Browser, &Site, &str)) -> Option<Self> {
        let (Some(mut ada), Some(mut bob)) = (Browser::start(), Browser::start()) else {
            eprintln!("no Chromium: skipped");
            return None;
        };
        let site = Site::started();
        until("the setup link", || site.log().contains("/setup?link="));
        let log = site.log();
        let (_, link) = log.split_once("/setup?link=").unwrap();
        let link = link.split_whitespace().next().unwrap();
        ada.open(&site.url(&format!("/setup?link={link}")));
        looks(&mut ada, &site, "setup");
        ada.fill("input[name=user]", "ada");
        ada.fill("input[name=password]", PASSWORD);
        ada.click("main button[type=submit]");
        ada.wait_for("location.pathname === '/settings/users'");
        let add = "form:has(input[value=add_user])";
        ada.fill(&format!("{add} input[name=name]"), "bob");
        ada.fill(
            &format!("{add} input[name=roles]"),
            "deployer:shop approver:shop",
        );
        ada.fill(&format!("{add} input[name=password]"), PASSWORD);
        ada.click(&format!("{add} button"));
        ada.wait_for("[...document.querySelectorAll('details.entry strong')].some((name) => name.textContent === 'bob')");
        looks(&mut ada, &site, "settings-users");
        ada.open(&site.url("/settings/tokens"));
        ada.fill(
            "form:has(input[value=create_token]) input[name=name]",
            "laptop",
        );
        ada.click("form:has(input[value=create_token]) button");
        ada.wait_for("document.querySelector('[role=status] pre')");
        looks(&mut ada, &site, "settings-tokens");
        let token = ada.evaluate("document.querySelector('[role=status] pre').textContent");
        let token = token.as_str().unwrap().trim().to_owned();
        add_secret(&mut ada, &site);
        looks(&mut ada, &site, "settings-secrets");
        sign_in(&mut bob, &site, "bob", &mut looks);
        let remote = format!("http://ada:{token}@{}/git/shop", site.listen);
        let shop = Shop::create(&site.folder.path().join("repo"), &remote);
        shop.write("shipway.yaml", CONFIG);
        shop.write(".github/workflows/cd.yml", WORKFLOW);
        shop.write("check.sh", "exit 0\n");
        Some(Self {
            site,
            ada,
            bob,
            shop,
            token,
        })
    }

    /// What the API tells ada.
    pub fn get(&self, path: &str) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let request = agent.get(self.site.url(path));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let mut answer = request.call().unwrap();
        answer.body_mut().read_json().unwrap_or_default()
    }

    /// The number of the newest rollout into production.
    pub fn newest_rollout(&self) -> Option<u64> {
        let list = self.get("/api/v1/rollouts?service=shop&environment=production&limit=1");
        let id = list["items"][0]["id"].as_str()?.to_owned();
        id.rsplit_once("/ro")?.1.parse().ok()
    }

    pub fn rollout(&self, number: u64) -> Value {
        self.get(&format!("/api/v1/rollouts/shop/{number}"))
    }

    /// Commits and pushes a version, and waits until its rollout into production asks for an approval; its number.
    pub fn push_until_waiting(&self, version: &str) -> (Child, u64) {
        let before = self.newest_rollout();
        let push = self.shop.ship_begun(version);
        let mut number = None;
        until("the approval to be asked", || {
            number = self.newest_rollout().filter(|it| Some(*it) != before);
            number.is_some_and(|it| self.rollout(it)["status"] == "waiting")
        });
        (push, number.unwrap())
    }

    pub fn wait_for_status(&self, number: u64, status: &str) {
        until(&format!("ro{number} to be {status}"), || {
            self.rollout(number)["status"] == status
        });
    }
}

fn sign_in(
    browser: &mut Browser,
    site: &Site,
    user: &str,
    looks: &mut impl FnMut(&mut Browser, &Site, &str),
) {
    browser.open(&site.url("/"));
    browser.wait_for("location.pathname === '/login'");
    looks(browser, site, "login");
    browser.fill("input[name=user]", user);
    browser.fill("input[name=password]", PASSWORD);
    browser.click("main button[type=submit]");
    browser.wait_for("location.pathname === '/'");
}

/// Sets a secret of all services on the page of secrets.
fn add_secret(browser: &mut Browser, site: &Site) {
    browser.open(&site.url("/settings/secrets"));
    let add = "form:has(input[name=version][value='0'])";
    browser.fill(&format!("{add} input[name=name]"), "API_KEY");
    browser.fill(&format!("{add} textarea"), "sesame-open-1");
    browser.click(&format!("{add} button"));
    browser.wait_for("document.readyState === 'complete' && document.querySelector('main tbody th')?.textContent === 'API_KEY'");
}

/// Presses a button and answers its question with yes.
pub fn press(browser: &mut Browser, button: &str, reason: &str) {
    browser.wait_for(&format!("document.querySelector({button:?})"));
    browser.click(button);
    browser.wait_for("document.querySelector('dialog[open]')");
    if !reason.is_empty() {
        browser.fill("dialog input", reason);
    }
    browser.click("dialog button[value=yes]");
}

#[test]
fn a_team_delivers_approves_aborts_compares_rolls_back_and_resumes_on_the_pages() {
    let Some(mut team) = Team::set_up(examine_open_page) else {
        return;
    };
    let Team { ada, site, .. } = &mut team;
    examine(ada, site, "/", "overview-empty");
    for page in ["groups", "webhooks", "retention"] {
        let name = format!("settings-{page}");
        examine(ada, site, &format!("/settings/{page}"), &name);
    }
    first_release(&mut team);
    canary(&mut team);
    two_decisions_at_once(&mut team);
    history_and_comparison(&mut team);
    rollback_and_hold(&mut team);
    red_run(&mut team);
    rolled_back_by_evidence(&mut team);
    let Team { ada, site, .. } = &mut team;
    for (path, name) in [
        ("/", "overview"),
        ("/services/shop", "service"),
        ("/runs", "runs"),
        ("/rollouts", "rollouts"),
        ("/releases", "releases"),
        ("/settings/audit", "settings-audit"),
        ("/settings/secrets", "settings-secrets-used"),
    ] {
        examine(ada, site, path, name);
    }
    // A page that is missing is an error of the browser's console.
    ada.open(&site.url("/nowhere"));
    ada.errors.clear();
    examine_open_page(ada, site, "not-found");
    let log = site.log();
    assert!(!log.contains("sesame-open-1"), "a secret is in the log");
}

/// The first push, watched live; bob approves it in the inbox.
fn first_release(team: &mut Team) {
    let (push, number) = team.push_until_waiting("1.0");
    let Team { ada, bob, site, .. } = team;
    examine(ada, site, "/runs/shop/1", "run-green");
    ada.open(&site.url("/runs/shop/1?job=lint"));
    let text = ada.text();
    assert!(text.contains("the key has 13 letters"), "{text}");
    examine(bob, site, "/approvals", "approvals");
    // ada may not approve: the page says why, in words.
    ada.open(&site.url(&format!("/rollouts/shop/{number}")));
    press(ada, "button[data-post$='/approve']", "");
    ada.wait_for("document.getElementById('refusal').textContent.includes('Not done')");
    let refusal = ada.evaluate("document.getElementById('refusal').textContent");
    assert!(refusal.as_str().unwrap().contains("bob"), "{refusal}");
    ada.errors.clear();
    press(bob, "button[data-post$='/approve']", "looks good");
    team.wait_for_status(number, "promoted");
    push.wait_with_output().unwrap();
}

/// A canary, seen on the overview and on its page without a reload; promoted by ada.
fn canary(team: &mut Team) {
    team.ada.open(&team.site.url("/"));
    let cell = "document.querySelector('#s-shop td[data-label=production]').innerText";
    // What is in production, since when, is it well: without a click.
    team.ada.wait_for(&format!(
        "{cell}.includes('#1') && {cell}.includes('healthy') && /\\d+ (s|min)/.test({cell})"
    ));
    team.ada.evaluate("window.isTheSamePage = true");
    let (push, number) = team.push_until_waiting("1.1");
    press_on(team, number, "approve", "");
    team.ada
        .wait_for(&format!("{cell}.includes('moving to #2, 20%')"));
    assert_eq!(team.ada.evaluate("window.isTheSamePage"), true);
    let Team { ada, site, .. } = team;
    ada.evaluate("window.layoutShifts = []");
    examine_open_page(ada, site, "overview-moving");
    examine(
        ada,
        site,
        &format!("/rollouts/shop/{number}"),
        "rollout-running",
    );
    press(ada, "button[data-post$='/promote']", "no complaints");
    ada.wait_for("document.querySelector('h1').textContent.includes('promoted')");
    push.wait_with_output().unwrap();
}

/// Bob presses a button on the page of a rollout.
fn press_on(team: &mut Team, number: u64, verb: &str, reason: &str) {
    let address = team.site.url(&format!("/rollouts/shop/{number}"));
    team.bob.open(&address);
    press(
        &mut team.bob,
        &format!("button[data-post$='/{verb}']"),
        reason,
    );
}

/// Ada promotes while bob aborts: both see in the end what has happened and who did it.
fn two_decisions_at_once(team: &mut Team) {
    let (push, number) = team.push_until_waiting("1.2");
    press_on(team, number, "approve", "");
    team.wait_for_status(number, "holding");
    for (browser, verb) in [(&mut team.ada, "promote"), (&mut team.bob, "abort")] {
        browser.open(&team.site.url(&format!("/rollouts/shop/{number}")));
        let button = format!("button[data-post$='/{verb}']");
        browser.wait_for(&format!("document.querySelector({button:?})"));
        browser.click(&button);
        browser.wait_for("document.querySelector('dialog[open]')");
        browser.fill("dialog input", "decided now");
    }
    let (bob, ada) = (&mut team.bob, &mut team.ada);
    std::thread::scope(|both| {
        both.spawn(|| bob.click("dialog button[value=yes]"));
        both.spawn(|| ada.click("dialog button[value=yes]"));
    });
    until("the rollout to end", || {
        !team.rollout(number)["ended"].is_null()
    });
    let winner = match team.rollout(number)["status"] == "promoted" {
        true => "ada",
        false => "bob",
    };
    for browser in [&mut team.ada, &mut team.bob] {
        browser.wait_for("/promoted|aborted/.test(document.querySelector('h1').textContent)");
        browser.wait_for(&format!(
            "document.querySelector('main').innerText.includes('{winner}')"
        ));
        let text = browser.text();
        assert!(
            !text.contains("409") && !text.to_lowercase().contains("conflict"),
            "{text}"
        );
        browser.errors.clear();
    }
    if winner == "bob" {
        examine_open_page(&mut team.bob, &team.site, "rollout-aborted");
    }
    push.wait_with_output().unwrap();
}

fn history_and_comparison(team: &mut Team) {
    let Team { ada, site, .. } = team;
    examine(
        ada,
        site,
        "/services/shop/environments/production",
        "environment",
    );
    let text = ada.text();
    for words in ["#1", "#2", "#3", "bob"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    examine(ada, site, "/services/shop/releases/2", "release");
    examine(ada, site, "/services/shop/compare?from=1&to=3", "compare");
    let text = ada.text();
    assert!(text.contains("1.1") && text.contains("1.2"), "{text}");
}

/// Ada rolls back to the first release; the environment is held until she resumes it.
fn rollback_and_hold(team: &mut Team) {
    team.ada.open(&team.site.url("/services/shop/releases/1"));
    press(
        &mut team.ada,
        "button[data-post$='/rollbacks'][data-body*='production']",
        "customers call",
    );
    team.ada
        .wait_for("location.pathname.startsWith('/rollouts/shop/')");
    team.ada
        .wait_for("document.querySelector('h1').textContent.includes('promoted')");
    let Team { ada, site, .. } = team;
    examine(ada, site, "/", "overview-held");
    let text = ada.text();
    // The hold of an abort before stays as it is.
    let is_held = text.contains("held by ada") || text.contains("held by bob");
    assert!(is_held, "{text}");
    examine(
        ada,
        site,
        "/services/shop/environments/production",
        "environment-held",
    );
    ada.click("button[data-post$='/environments/production/resume']");
    ada.wait_for(
        "!document.querySelector('main').innerText.includes('Automatic promotion is stopped')",
    );
}

/// A failed run: the overview shows it, and its line is one click away.
fn red_run(team: &mut Team) {
    let check = "for i in $(seq 1 400); do echo \"case $i\"; done\necho 'cart_test: expected 3 items, got 2' >&2\nexit 1\n";
    team.shop.write("check.sh", check);
    let told = said(&team.shop.ship("1.3"));
    assert!(told.contains("failed"), "{told}");
    let Team { ada, site, .. } = team;
    ada.open(&site.url("/"));
    ada.wait_for("document.querySelector('#s-shop .run').innerText.includes('failure')");
    ada.click("#s-shop .run");
    ada.wait_for("location.pathname.startsWith('/runs/shop/')");
    ada.wait_for(
        "document.readyState === 'complete' && document.querySelector('.log-lines .focus')",
    );
    ada.wait_until_on_screen(".log-lines .focus");
    let around = ada.evaluate("document.querySelector('.log-lines').innerText");
    assert!(
        around.as_str().unwrap().contains("expected 3 items, got 2"),
        "{around}"
    );
    examine_open_page(ada, site, "run-red");
    team.shop.write("check.sh", "exit 0\n");
}

/// A bad release under traffic goes back by itself.
fn rolled_back_by_evidence(team: &mut Team) {
    let load = Load::start(&format!("http://{}/shop/", team.site.proxy));
    team.shop.write("MOOD", "bad\n");
    let (push, number) = team.push_until_waiting("1.4");
    press_on(team, number, "approve", "");
    team.wait_for_status(number, "rolled_back");
    load.stop();
    push.wait_with_output().unwrap();
    let Team { ada, site, .. } = team;
    let path = format!("/rollouts/shop/{number}");
    examine(ada, site, &path, "rollout-rolled-back");
    let text = ada.text();
    assert!(
        text.contains("rolled back") && text.contains("error-rate"),
        "{text}"
    );
}
