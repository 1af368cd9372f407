//! The overview, the lists, and the pages of services, releases and environments in a real browser.

use std::fs;

use crate::{
    browser::{Browser, SCREENS},
    pages::shows,
    shop::Shop,
    site::{Site, said, until},
    strategies::serving,
};

/// A canary that stays at its first step.
const LONG_CANARY: &str = "{ canary: { steps: [{ weight: 50, hold: 5m }] } }";

/// Opens a page, looks at it in all variants, and checks that nothing reaches beyond the width of a phone.
fn look_at(browser: &mut Browser, site: &Site, path: &str, name: &str) {
    browser.open(&site.url(path));
    browser.take_screenshots(name);
    let (_, narrow) = SCREENS[2];
    browser.show_on(narrow);
    let overflow = browser
        .evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(overflow, 0, "{path} is wider than a phone");
    browser.show_on(SCREENS[0].1);
}

#[test]
fn the_overview_says_what_serves_since_when_and_whether_it_is_well_and_follows_without_reloading() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let (site, shop) = serving(LONG_CANARY);
    browser.open(&site.url("/"));
    browser.wait_for("document.body.classList.contains('follows')");
    let cell = "document.querySelector('#s-shop td')";
    browser.wait_for(&format!("{cell}.innerText.includes('healthy')"));
    let text = browser.evaluate(&format!("{cell}.innerText")).to_string();
    assert!(text.contains("#1"), "what serves: {text}");
    let since = browser.evaluate(&format!("{cell}.querySelector('time').textContent"));
    assert!(
        since.as_str().unwrap().ends_with(" s") || since.as_str().unwrap().ends_with(" min"),
        "{since}"
    );

    // The page is the same one afterwards: a reload would lose the mark.
    browser.evaluate("window.isTheSamePage = true");
    shop.commit("1.1");
    let push = shop.push_begun("main");
    browser.wait_for(&format!("{cell}.innerText.includes('moving to #2, 50%')"));
    assert_eq!(browser.evaluate("window.isTheSamePage"), true);

    // The search is one key away, and the page of the environment one click.
    browser.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '/', bubbles: true }))",
    );
    browser.wait_for("document.activeElement.id === 'search'");
    look_at(&mut browser, &site, "/", "overview");
    browser.click("#s-shop td .version");
    browser.wait_for("document.title.startsWith('shop in production')");

    for (path, name) in [
        ("/runs", "runs"),
        ("/rollouts", "rollouts"),
        ("/releases", "releases"),
        ("/approvals", "approvals"),
        ("/services/shop", "service"),
        ("/services/shop/environments/production", "environment"),
        ("/services/shop/releases/2", "release"),
        ("/services/shop/compare?from=1&to=2", "compare"),
        ("/nowhere", "not-found"),
    ] {
        look_at(&mut browser, &site, path, name);
    }
    let errors: Vec<_> = browser
        .errors
        .iter()
        .filter(|error| !error.contains("404"))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    drop(browser);
    let aborted = site.shipway(&["abort", "shop/ro2"]);
    assert!(aborted.status.success(), "{}", said(&aborted));
    push.wait_with_output().unwrap();
}

#[test]
fn lists_filter_and_pages_of_releases_say_what_is_in_them() {
    let (site, shop) = serving("recreate");
    shop.edit("shipway.yaml", "instances: 2", "instances: 1");
    let told = said(&shop.ship("<b>1.1</b> & more"));
    assert!(told.contains("#2 serves production"), "{told}");
    until("the release before to be listed", || {
        let list = site
            .get("/api/v1/releases?service=shop")
            .unwrap_or_default();
        list["items"]
            .as_array()
            .is_some_and(|items| items.len() == 2)
    });
    shows(
        &site,
        "/runs?service=shop&state=success",
        &["shop/r2", "&lt;b&gt;1.1&lt;/b&gt;"],
    );
    shows(
        &site,
        "/runs?state=failure",
        &["Nothing matches these filters"],
    );
    shows(&site, "/runs?state=odd", &["is not a state of this list"]);
    shows(
        &site,
        "/rollouts?environment=production&since=1h",
        &["shop/ro2", "promoted"],
    );
    shows(
        &site,
        "/rollouts?cursor=-3",
        &["is not a cursor of this list"],
    );
    shows(&site, "/rollouts?cursor=1", &["Nothing was rolled out yet"]);
    shows(
        &site,
        "/services/shop/releases/2",
        &[
            "&lt;b&gt;1.1&lt;/b&gt; &amp; more",
            "environments.production.instances",
            "serves</span>",
        ],
    );
    shows(
        &site,
        "/services/shop/releases/1",
        &[
            "data-post=\"/api/v1/services/shop/rollbacks\"",
            "shipway rollback shop --env production --release 1",
        ],
    );
    shows(
        &site,
        "/services/shop/compare?from=1&to=2",
        &["&lt;b&gt;1.1&lt;/b&gt;", "instances"],
    );
    shows(
        &site,
        "/services/shop/compare?environment=production&since=24h",
        &["Nothing was deployed to production then"],
    );
    shows(
        &site,
        "/services/shop/compare?from=999&to=2",
        &["There is no release #999"],
    );
    shows(
        &site,
        "/services/shop/environments/production",
        &["Availability", "/badge/shop/production.svg", "shop/ro2"],
    );
    shows(
        &site,
        "/badge/shop/production.svg",
        &["<svg", "production: #2 healthy"],
    );
    for path in [
        "/services/shop/releases/99",
        "/services/shop/environments/moon",
        "/services/nothing/compare",
    ] {
        shows(&site, path, &["Not found", "All services"]);
    }
    let matrix = site.get("/api/v1/matrix?q=shop").unwrap();
    let place = &matrix["services"][0]["environments"][0];
    assert_eq!(place["release"]["number"], 2, "{matrix:#}");
    assert_eq!(place["health"], "healthy", "{matrix:#}");
    assert!(place["serves_since"].is_string(), "{matrix:#}");
    assert_eq!(
        site.get("/api/v1/matrix?q=nothing").unwrap()["services"],
        serde_json::json!([])
    );
}

#[test]
fn an_approval_waits_in_the_inbox_with_what_is_approved_and_a_superseded_one_is_greyed() {
    let site = Site::started();
    let shop = site.shop();
    let config = "service: shop\nrun: { command: exec python3 shop.py, health: { http: /ready, interval: 250ms } }\nenvironments:\n  production: { approvals: { count: 1 }, strategy: recreate }\n";
    shop.write("shipway.yaml", config);
    shop.commit("<i>First</i>");
    let first = shop.push_begun("main");
    let waits = |number: u64| {
        site.rollout("production", number)
            .is_some_and(|it| it["status"] == "waiting")
    };
    until("the approval to be asked", || waits(1));
    shows(
        &site,
        "/approvals",
        &[
            "shop/ro1",
            "&lt;i&gt;First&lt;/i&gt;",
            "data-post=\"/api/v1/rollouts/shop/1/approve\"",
            "Plan: recreate",
        ],
    );
    shop.commit("Second");
    let second = shop.push_begun("main");
    until("the second approval to be asked", || waits(2));
    shows(
        &site,
        "/approvals",
        &["shop/ro2", "Superseded", "They can't be approved any more"],
    );
    let approved = site.shipway(&["approve", "shop/ro2"]);
    assert!(approved.status.success(), "{}", said(&approved));
    until("the rollout to leave its gate", || !waits(2));
    shows(&site, "/approvals", &["Nothing waits for an approval"]);
    until("the second release to be promoted", || {
        site.rollout("production", 2)
            .is_some_and(|it| it["status"] == "promoted")
    });
    first.wait_with_output().unwrap();
    second.wait_with_output().unwrap();
}

/// A service whose only release waits for an approval, and then fails to start.
const WAITING: &str = "
service: NAME
artifact: { source: . }
run:
  command: exec false
  health: { http: /, interval: 100ms }
environments: { production: { path: /NAME, strategy: recreate, approvals: 1, watch: none } }
";

#[test]
fn an_overview_of_many_services_grows_as_it_is_scrolled_and_links_to_trouble_further_down() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let site = Site::started();
    let path = site.folder.path().join("many");
    fs::create_dir_all(&path).unwrap();
    let repository = Shop::of(&path, &site.url("/git/many"));
    for number in 10..70 {
        let name = format!("s-{number}");
        fs::create_dir_all(path.join("services").join(&name)).unwrap();
        repository.write(
            &format!("services/{name}/shipway.yaml"),
            &WAITING.replace("NAME", &name),
        );
    }
    repository.commit("1.0");
    let mut push = repository.push_begun("main");
    until("all services to wait", || {
        let waiting = site.get("/api/v1/approvals?limit=200").unwrap_or_default();
        waiting["items"]
            .as_array()
            .is_some_and(|items| items.len() == 60)
    });
    let _ = push.kill();
    let _ = push.wait();

    browser.open(&site.url("/"));
    browser.wait_for("document.body.classList.contains('follows')");
    let rows = "document.querySelectorAll('table.matrix tbody tr').length";
    assert_eq!(browser.evaluate(rows), 50);
    // The last service is on no row: its trouble is a link above the table.
    let approved = site.shipway(&["approve", "s-69/ro1", "--as", "ann"]);
    assert!(approved.status.success(), "{}", said(&approved));
    browser.wait_for("document.querySelector('#news a')?.textContent === 's-69 is red'");
    let shifts = browser.layout_shifts();
    assert!(shifts.is_empty(), "{shifts:?}");
    browser.evaluate("window.scrollTo(0, document.body.scrollHeight)");
    browser.wait_for(&format!("{rows} === 60"));
    let pager = "document.querySelectorAll('#pager a').length";
    assert_eq!(browser.evaluate(pager), 0);
    let names = browser.evaluate("new Set([...document.querySelectorAll('table.matrix tbody tr')].map((row) => row.id)).size");
    assert_eq!(names, 60, "each service once");
    browser.wait_for("!document.querySelector('#news a')");
    // A refresh keeps what was loaded, and a search covers all services.
    browser.evaluate("document.dispatchEvent(new Event('shipway:changed'))");
    browser.wait_for("document.querySelector('table.matrix tbody tr').id === 's-s-69'");
    browser.wait_for(&format!("{rows} === 60"));
    browser.open(&site.url("/?q=s-6"));
    assert_eq!(browser.evaluate(rows), 10);
}
