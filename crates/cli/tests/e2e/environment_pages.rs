//! The pages of an environment and of its instances: rules in plain words, and logs that are followed.

use crate::{
    browser::Browser,
    examined_page::examine_open_page,
    pages::shows,
    site::{Site, said, until},
};

const RULES: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  production:
    instances: 1
    strategy: recreate
    approvals: [{ count: 2, from: [alice, '@platform'], not: [author, committer], expires: 2d }, { from: [carol] }]
    wait: 90s
    branches: [main, 'release/*']
    freeze: [{ cron: '0 0 * * *', for: 23h59m, zone: Europe/Berlin, reason: 'inventory <b>' }]
    break_glass: [dave]
";

#[test]
fn the_page_of_an_environment_says_in_words_what_a_rollout_waits_for() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", RULES);
    let mut push = shop.ship_begun("1.0");
    until("the rollout to wait", || {
        site.rollout("production", 1)
            .is_some_and(|rollout| rollout["status"] == "waiting")
    });
    shows(
        &site,
        "/services/shop/environments/production",
        &[
            "the newest release; nothing is deployed here",
            "frozen</span> until <strong>",
            "23:59 Europe/Berlin</time></strong>",
            ": <bdi>inventory &lt;b&gt;</bdi>",
            "a rollback is always allowed",
            "2 different people must approve: ",
            "a member of <strong><bdi>@platform</bdi></strong>",
            "Approvals of the author of the commit and of the committer don't count.",
            "One person must approve: <strong><bdi>carol</bdi></strong>.",
            "after 2 d fails the rollout",
            "A rollout starts 1 min 30 s after it was requested",
            "<code><bdi>main, release/*</bdi></code>",
            "shipway break-glass",
            "<bdi>strategy.recreate",
        ],
    );
    let _ = push.kill();
    let _ = push.wait();
}

/// Prints what an attacker would, and more on request.
const PRINTS: &str = r#"
        if self.path == "/say":
            print("\x1b[31msaid\x1b[0m on \x1b]0;owned\x07request", flush=True)
        if self.path.startswith("/slow"):"#;

#[test]
fn the_log_of_an_instance_is_followed_on_its_page_through_a_crash() {
    let site = Site::started();
    let shop = site.shop();
    shop.edit(
        "shop.py",
        "\n        if self.path.startswith(\"/slow\"):",
        PRINTS,
    );
    shop.edit(
        "shop.py",
        "print(\"serving\", version, flush=True)",
        "print(\"serving\", version, \"<img src=x onerror=alert(1)>\\x1b[2J\\u202e\", flush=True)",
    );
    shop.write(
        "shipway.yaml",
        "service: shop\nrun:\n  command: exec python3 shop.py\n  health: { http: /ready, interval: 100ms, timeout: 2s }\nenvironments: { production: { strategy: recreate } }\n",
    );
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("#1 serves production"), "{told}");
    let name = site.instances("production").pop().unwrap();
    let path = format!("/instances/{name}");
    shows(
        &site,
        &path,
        &[
            "serving 1.0 &lt;img src=x onerror=alert(1)&gt;<i class=\"code-point\">U+202E</i>",
            &format!("href=\"/api/v1/instances/{name}/log\""),
            "href=\"/services/shop/releases/1\"",
        ],
    );
    shows(
        &site,
        "/instances/shop.production.9.1",
        &["There is no log"],
    );
    shows(&site, "/instances/what", &["No such instance"]);
    let Some(mut browser) = Browser::start() else {
        return;
    };
    browser.open(&site.url("/services/shop/environments/production"));
    browser.click(&format!("a[href='{path}']"));
    browser.wait_for("document.querySelector('.log-lines')?.innerText.includes('serving 1.0')");
    browser.wait_for("document.body.classList.contains('follows')");
    assert!(site.ask("/shop/say").is_some());
    browser.wait_for("[...document.querySelectorAll('.log-text')].some((line) => line.innerText === 'said on request')");
    let colour = browser.evaluate("document.querySelector('.log-lines .fg1').textContent");
    assert_eq!(colour, "said");
    examine_open_page(&mut browser, &site, "instance-log");
    // A crash: the new process writes to the same log, and the restart is on top.
    let _ = site.ask("/shop/exit");
    browser.wait_for("document.querySelectorAll('[data-line]').length >= 3 && document.querySelector('main').innerText.includes('it has exited once')");
    let numbers = browser.evaluate("[...document.querySelectorAll('[data-line]')].map((line) => Number(line.dataset.line)).every((number, index) => number === index + 1)");
    assert_eq!(numbers, true, "each line once, in order");
}
