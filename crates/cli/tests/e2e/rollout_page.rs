//! The page of a rollout in a real browser: it follows a canary without a reload, and tells afterwards where and why it went back.

use crate::{
    browser::Browser,
    site::{Site, until},
    strategies::{config, load, serving},
};

const CANARY: &str = "{ canary: { steps: [{ weight: 20, hold: 8s }, { weight: 60, hold: 8s }] } }";

/// Rules with a verdict each: a limit, a comparison with odds, and one that has too little traffic.
const RULES: &str = "analysis: [{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }, { metric: error-rate, worse_than: stable }, { metric: latency-p99, max: 5s, min_requests: 100000 }]";

#[test]
fn a_page_opened_during_a_canary_shows_the_weight_change_without_reload() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("no Chromium: skipped");
        return;
    };
    let (site, shop) = serving(CANARY);
    let rules = config(CANARY).replace(
        "analysis: [{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]",
        RULES,
    );
    shop.write("shipway.yaml", &rules);
    let load = load(&site);
    shop.commit("1.1 <script>document.title = 'owned'</script> \u{202e}");
    let push = shop.push_begun("main");
    until("the first step", || weight(&site, 2) == 2_000);
    browser.open(&site.url("/rollouts/shop/2"));
    browser
        .wait_for("document.body.classList.contains('follows') && document.querySelector('.tile')");
    browser.evaluate(
        "(() => {
           window.opened = true;
           window.heard = [];
           const events = new EventSource('/api/v1/events?stream=rollout/shop/2');
           events.addEventListener('rollout', (event) => {
             const body = JSON.parse(event.data).event.body;
             if (body.action_done) window.heard.push(performance.now());
           });
           window.shown = null;
           new MutationObserver(() => {
             if (!window.shown && document.querySelector('#traffic .shares').textContent.includes('60% to')) window.shown = performance.now();
           }).observe(document.getElementById('content'), { subtree: true, childList: true, characterData: true, attributes: true });
           document.querySelector('#traffic-table summary').click();
           scrollTo(0, 300);
         })()",
    );
    let scrolled = browser.evaluate("scrollY");
    browser.take_screenshots("rollout-canary");
    browser.wait_for("window.shown");
    // The last action before the picture changed was the shift.
    let latency = browser
        .evaluate("window.shown - Math.max(...window.heard.filter((at) => at <= window.shown))");
    let latency = latency.as_f64().unwrap();
    println!("from the event to the page: {latency:.0} ms");
    assert!(latency < 1_500.0, "{latency} ms");
    assert_eq!(
        browser.evaluate("window.opened"),
        true,
        "the page was loaded again"
    );
    assert_eq!(browser.evaluate("scrollY"), scrolled);
    assert_eq!(
        browser.evaluate("document.getElementById('traffic-table').open"),
        true
    );
    let text = browser.evaluate("document.body.innerText");
    let text = text.as_str().unwrap();
    for words in [
        "60% to #2",
        "pass",
        "no data",
        "Criterion",
        "Pause",
        "Abort and roll back",
        "left, until",
        "U+202E",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }

    // A button says what it will do; what it did is seen without a reload.
    browser.click("button[data-post$='/pause']");
    browser.wait_for("document.querySelector('dialog[open]')");
    let question = browser.evaluate("document.querySelector('dialog').innerText");
    assert!(
        question.as_str().unwrap().contains("60% to #2"),
        "{question}"
    );
    browser.click("dialog button[value=yes]");
    browser.wait_for("document.body.innerText.includes('Paused by')");
    assert_eq!(site.rollout("production", 2).unwrap()["status"], "paused");
    browser.click("button[data-post$='/abort']");
    browser.wait_for("document.querySelector('dialog[open]')");
    browser.evaluate("document.querySelector('dialog input').value = 'customers <call>'");
    browser.click("dialog button[value=yes]");
    browser.wait_for("document.querySelector('h1').textContent.includes('aborted')");
    let text = browser.evaluate("document.body.innerText");
    let text = text.as_str().unwrap();
    for words in [
        "customers <call>",
        "Forward, ended at the marked step",
        "Retry",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    assert_ne!(browser.evaluate("document.title"), "owned");
    browser.take_screenshots("rollout-aborted");
    push.wait_with_output().unwrap();
    load.stop();
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);
}

#[test]
fn after_a_rollback_the_page_shows_the_step_the_rule_and_its_odds() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("no Chromium: skipped");
        return;
    };
    let (site, shop) = serving(CANARY);
    let comparison = "analysis: [{ metric: error-rate, worse_than: stable, min_requests: 10 }]";
    let rules = config(CANARY).replace(
        "analysis: [{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]",
        comparison,
    );
    shop.write("shipway.yaml", &rules);
    shop.edit(
        "shop.py",
        "mood == \"bad\"",
        "mood == \"bad\" and int(time.time() * 1e6) % 3 == 0",
    );
    shop.write("MOOD", "bad\n");
    let load = load(&site);
    shop.ship("1.1");
    let ended = site.ended_rollout("production", 2);
    assert_eq!(ended["status"], "rolled_back", "{ended}");
    browser.open(&site.url("/rollouts/shop/2"));
    browser.wait_for("document.querySelector('.tile')");
    let text = browser.evaluate("document.body.innerText");
    let text = text.as_str().unwrap();
    for words in [
        "rolled back",
        "Forward, ended at the marked step",
        "fail",
        "odds",
        "Retry",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    // The picture agrees with the verdict: the line has crossed the threshold.
    assert_eq!(
        browser.evaluate("document.querySelectorAll('.odds-plot .line.failed').length"),
        1
    );
    browser.take_screenshots("rollout-rolled-back");
    load.stop();
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);
}

/// The new release's share in production, in basis points.
fn weight(site: &Site, release: u64) -> u64 {
    let rollout = site.rollout("production", release).unwrap_or_default();
    let shares = rollout["split"].as_array().cloned().unwrap_or_default();
    let mut shares = shares.iter().filter(|share| share[0] == release);
    shares
        .next()
        .and_then(|share| share[1].as_u64())
        .unwrap_or(0)
}
