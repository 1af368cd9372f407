//! The pages without scripts: everything can be read, and every form works.

use crate::{browser::Browser, walk::Team};

/// Presses the button of a form on a page, with a reason if it has a field for one.
fn submit(browser: &mut Browser, url: &str, button: &str, reason: &str) {
    browser.open(url);
    browser.wait_for(&format!("document.querySelector({button:?})"));
    let form = format!("form:has({button})");
    let field = format!("{form} input[name=reason]");
    if !reason.is_empty() {
        let is_shown = browser.evaluate(&format!(
            "document.querySelector({field:?}).checkVisibility()"
        ));
        assert_eq!(is_shown, true, "the field for a reason of {button}");
        browser.fill(&field, reason);
    }
    browser.evaluate("document.body.dataset.isBefore = '1'");
    browser.click(button);
    browser.wait_for("document.readyState === 'complete' && !document.body.dataset.isBefore");
}

#[test]
fn every_page_is_readable_and_every_form_works_without_a_script() {
    let Some(mut team) = Team::set_up(|browser, _, _| browser.allow_scripts(false)) else {
        return;
    };
    let (push, number) = team.push_until_waiting("1.0");
    let rollout = team.site.url(&format!("/rollouts/shop/{number}"));
    let overview = team.site.url("/");

    // A refused action is answered with a page: the reason, and a link back.
    submit(
        &mut team.ada,
        &rollout,
        "button[data-post$='/approve']",
        "please",
    );
    let text = team.ada.text();
    assert!(text.contains("Not done") && text.contains("bob"), "{text}");
    assert!(text.contains("See how it is now"), "{text}");
    let inbox = team.site.url("/approvals");
    submit(
        &mut team.bob,
        &inbox,
        "button[data-post$='/approve']",
        "looks good",
    );
    assert_eq!(team.bob.evaluate("location.pathname"), "/approvals");
    team.wait_for_status(number, "promoted");
    push.wait_with_output().unwrap();

    let (push, second) = team.push_until_waiting("1.1");
    submit(&mut team.bob, &inbox, "button[data-post$='/approve']", "");
    team.wait_for_status(second, "holding");
    let rollout = team.site.url(&format!("/rollouts/shop/{second}"));
    submit(
        &mut team.bob,
        &rollout,
        "button[data-post$='/abort']",
        "customers <call>",
    );
    team.wait_for_status(second, "aborted");
    push.wait_with_output().unwrap();
    team.bob.open(&rollout);
    let text = team.bob.text();
    assert!(text.contains("customers <call>"), "{text}");

    // The hold of the abort ends by the button of the overview.
    team.ada.open(&overview);
    assert!(team.ada.text().contains("held by bob"));
    submit(&mut team.ada, &overview, "button[data-post$='/resume']", "");
    assert_eq!(team.ada.evaluate("location.pathname"), "/");
    assert!(!team.ada.text().contains("held by"));

    // Deploying the release again, which asks for its approval again.
    let release = team.site.url("/services/shop/releases/2");
    submit(
        &mut team.ada,
        &release,
        "button[data-post$='/deploys']",
        "once more",
    );
    team.ada
        .wait_for("location.pathname.startsWith('/rollouts/shop/')");
    for (path, words) in [
        ("/", "shop"),
        ("/runs", "shop/r1"),
        ("/runs/shop/1?job=lint", "the key has 13 letters"),
        ("/rollouts", "shop/ro1"),
        ("/releases", "1.1"),
        ("/services/shop", "Releases"),
        ("/services/shop/environments/production", "History"),
        ("/services/shop/compare?from=1&to=2", "1.1"),
        ("/settings/users", "bob"),
        ("/settings/secrets", "API_KEY"),
        ("/settings/webhooks", "shipway forge connect"),
        ("/settings/retention", "Show what would be removed"),
        ("/settings/audit", "set secret API_KEY"),
    ] {
        team.ada.open(&team.site.url(path));
        let text = team.ada.text();
        assert!(text.contains(words), "{words} is not on {path}: {text}");
    }
    assert!(
        team.ada.errors.iter().all(|it| it.contains("403")),
        "{:?}",
        team.ada.errors
    );
}
