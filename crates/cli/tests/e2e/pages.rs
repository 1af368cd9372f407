//! The pages as a person reads them, without a script: a canary under way, a release that came back, a red run.

use crate::{
    site::{Site, said, until},
    strategies::{load, serving},
};

/// A canary that stays at its first step.
const LONG_CANARY: &str = "{ canary: { steps: [{ weight: 50, hold: 50s }] } }";

/// A page, with what must be on it.
pub fn shows(site: &Site, path: &str, words: &[&str]) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::from(agent.build());
    let mut answer = agent.get(site.url(path)).call().unwrap();
    let page = answer.body_mut().read_to_string().unwrap();
    for word in words {
        assert!(page.contains(word), "{word:?} is not on {path}:\n{page}");
    }
}

#[test]
fn a_canary_under_way_and_after_its_end() {
    let (site, shop) = serving(LONG_CANARY);
    let load = load(&site);
    shop.commit("<b>1.1</b> & more");
    let push = shop.push_begun("main");
    until("the canary to be judged good", || {
        let rollout = site.rollout("production", 2).unwrap_or_default();
        rollout["judgement"].to_string().contains("pass")
    });
    let both = [
        "#1",
        "#2",
        "50% to",
        "holding",
        "&lt;b&gt;1.1&lt;/b&gt; &amp; more",
    ];
    shows(&site, "/rollouts/shop/2", &both);
    shows(
        &site,
        "/rollouts/shop/2",
        &[
            "shipway abort shop/ro2",
            "All traffic of production returns to #1 immediately",
            "pass</span>",
            "Held until",
        ],
    );
    shows(
        &site,
        "/",
        &[
            "shop",
            "production",
            "moving to #2, 50%",
            "holding",
            "healthy",
        ],
    );
    shows(
        &site,
        "/services/shop",
        &[
            "/rollouts/shop/2",
            "/runs/shop/2",
            "holding",
            "3 of 3 instances ready",
        ],
    );
    shows(&site, "/runs/shop/2", &["build", "success", "/log"]);

    let aborted = site.shipway(&["abort", "shop/ro2", "--reason", "customers call"]);
    assert!(aborted.status.success(), "{}", said(&aborted));
    push.wait_with_output().unwrap();
    site.ended_rollout("production", 2);
    shows(
        &site,
        "/rollouts/shop/2",
        &[
            "aborted",
            "customers call; #1 serves all traffic",
            "100% to",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\"",
            "rolled back after",
        ],
    );
    judged(&site);
    load.stop();

    shows(&site, "/rollouts/shop/7", &["Not found"]);
    shows(&site, "/services/nothing", &["Not found", "nothing"]);
}

/// The numbers behind the plots, and the plots by themselves.
fn judged(site: &Site) {
    let judged = site.get("/api/v1/rollouts/shop/2/analysis").unwrap();
    let series = &judged["series"][0];
    assert_eq!(series["metric"], "error-rate", "{judged}");
    assert_eq!(
        (&series["canary"], &series["stable"]),
        (&"#2".into(), &"#1".into())
    );
    let last = series["points"].as_array().unwrap().last().unwrap();
    assert_eq!(last["weight"], 0.5, "{last}");
    assert_eq!(last["canary"]["value"], 0.0, "{last}");
    assert!(last["canary"]["high"].as_f64().unwrap() < 1.0, "{last}");
    assert_eq!(series["decision"]["is_bad"], true, "{judged}");
    let whole = "/api/v1/rollouts/shop/2/analysis/error-rate.svg";
    shows(site, whole, &["prefers-color-scheme: dark", "50%</text>"]);
    let none = "/api/v1/rollouts/shop/2/analysis/luck";
    shows(
        site,
        none,
        &["has not judged `luck`: it has judged error-rate"],
    );
}

#[test]
fn a_red_run_says_which_step() {
    let site = Site::started();
    shows(&site, "/", &["git push", "/git/my-service main"]);
    let shop = site.shop();
    shop.edit(
        ".github/workflows/cd.yml",
        "python3 -m py_compile shop.py",
        "exit 3",
    );
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("run r1 failed"), "{told}");
    shows(
        &site,
        "/runs/shop/1",
        &["failure", "exit code 3", "log of build"],
    );
}
