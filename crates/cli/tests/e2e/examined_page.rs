//! A page as a critical visitor sees it: nothing moves, no error, no other host, nothing wider than a phone, accessible in light and
//! dark; and its pictures in all variants.

use std::fs;

use serde_json::Value;

use crate::{
    browser::{Browser, SCREENS, WIDE},
    site::Site,
};

/// What axe-core finds; `None` where it isn't installed.
const FINDINGS: &str = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
  .filter(({ impact }) => impact === 'serious' || impact === 'critical')
  .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html + ' ' + (node.any[0]?.message ?? '')).join(' | ')}`))";

/// The script of axe-core, which `./test` installs.
fn axe_script() -> Option<String> {
    let path = std::env::var("SHIPWAY_TEST_AXE").unwrap_or_else(|_| {
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
        format!("{target}/axe-core-4.14.1/node_modules/axe-core/axe.min.js")
    });
    let script = fs::read_to_string(path).ok();
    if script.is_none() {
        eprintln!(
            "axe-core is not installed (./test installs it with npm): accessibility is not checked"
        );
    }
    script
}

/// Opens a page and examines it.
pub fn examine(browser: &mut Browser, site: &Site, path: &str, name: &str) {
    browser.open(&site.url(path));
    if browser.evaluate("document.body.hasAttribute('data-events') && (document.body.dataset.events || document.body.dataset.changes)") != Value::Null {
        browser.wait_for("!(document.body.dataset.events || document.body.dataset.changes) || document.body.classList.contains('follows')");
    }
    examine_open_page(browser, site, name);
}

/// Examines the page that is open.
pub fn examine_open_page(browser: &mut Browser, site: &Site, name: &str) {
    let shifts = browser.layout_shifts();
    assert!(shifts.is_empty(), "{name} moves: {shifts:?}");
    if let Some(script) = axe_script() {
        browser.evaluate(&format!("{script}; null"));
        // Colours depend on the scheme, and what must scroll on the width.
        for (variant, screen) in &SCREENS[..3] {
            browser.show_on(*screen);
            let findings = browser.evaluate(FINDINGS);
            assert_eq!(findings, Value::Array(Vec::new()), "{name} {variant}");
        }
    }
    let (_, narrow) = SCREENS[2];
    browser.show_on(narrow);
    let surplus = browser
        .evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(surplus, 0, "{name} is wider than a phone");
    browser.show_on(WIDE);
    browser.take_page_screenshots(name);
    assert_loads_nothing_else(browser, site, name);
}

/// Asserts that no page had an error, or loaded something from another host.
fn assert_loads_nothing_else(browser: &Browser, site: &Site, name: &str) {
    assert!(browser.errors.is_empty(), "{name}: {:?}", browser.errors);
    let own = site.url("/");
    let mut foreign = browser.requested.iter();
    let foreign = foreign.find(|url| {
        !url.starts_with(&own) && !url.starts_with("data:") && !url.starts_with("about:")
    });
    assert_eq!(foreign, None, "{name}");
}
