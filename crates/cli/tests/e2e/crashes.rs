//! The server killed after every single event of a journey, good and bad: nothing is lost, done twice or left running.

use std::collections::BTreeMap;

use crate::{
    load::{Load, assert_all_good},
    shop::Shop,
    site::{Site, said, until},
};

/// A short canary, so that hundreds of them can be tried.
fn in_a_hurry(shop: &Shop) {
    shop.edit("shipway.yaml", "hold: 1s", "hold: 300ms");
    shop.edit("shipway.yaml", "hold: 500ms", "hold: 200ms");
    shop.edit("shipway.yaml", "interval: 500ms", "interval: 100ms");
}

/// No test here ships as many events.
const EVENTS_MAX: u64 = 200;

/// Ships versions on one site, one after the other, with a server that is killed after the `n`th event, for every `n` of the
/// shard, and started again; ends when a server outlives a whole journey. `check` looks at what each journey came to.
fn killed_at_every_event(shard: u64, shards: u64, mood: &str, check: impl Fn(&Site, u64)) {
    let mut site = Site::started();
    let shop = site.shop();
    in_a_hurry(&shop);
    let first = said(&shop.ship("1.0"));
    assert!(first.contains("#1 serves production"), "{first}");
    shop.write("MOOD", mood);
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    for (release, events) in (2..).zip((shard + 1..EVENTS_MAX).step_by(shards as usize)) {
        site.stop();
        site.env = vec![("SHIPWAY_CRASH_AFTER_EVENTS", events.to_string())];
        site.start();
        let mut push = shop.ship_begun(&format!("1.{}", release - 1));
        until("the end of the journey", || {
            site.ended() || is_over(&site, release)
        });
        push.wait().unwrap();
        // Its very last event may kill a server whose journey looks over: only how it ended tells.
        let is_killed = !site.stop().is_some_and(|status| status.success());
        site.env.clear();
        site.start();
        if is_killed {
            // A server that died before git took the commit in left nothing to go on with: people push again.
            shop.push("main");
        }
        check(&site, release);
        let rollouts = site.rollouts().len() as u64;
        assert_eq!(rollouts, 2 * release, "after {events} events");
        if !is_killed {
            assert_none_failed_but(&load.stop(), mood);
            return;
        }
    }
    panic!("a journey has more than {EVENTS_MAX} events");
}

/// Whether the release has gone all its way and everybody has been told.
fn is_over(site: &Site, release: u64) -> bool {
    let ended = |rollout: serde_json::Value| !rollout["ended"].is_null();
    site.rollout("production", release).is_some_and(ended)
        && site.place("production")["rollout"].is_null()
}

/// No request may fail because a server died; those that a bad release answered are its own.
fn assert_none_failed_but(counts: &BTreeMap<String, u64>, mood: &str) {
    if mood == "good" {
        return assert_all_good(counts);
    }
    let broken = |answer: &&String| !answer.starts_with("200 ") && !answer.starts_with("500 1.");
    assert_eq!(counts.keys().find(broken), None, "{counts:?}");
}

fn good_ends_in_production(site: &Site, release: u64) {
    let rollout = site.ended_rollout("production", release);
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    let version = format!("1.{}", release - 1);
    until("all traffic on the new version", || {
        site.ask("/shop/") == Some((200, version.clone()))
    });
    assert_running(site, release);
}

fn bad_comes_back(site: &Site, release: u64) {
    let rollout = site.ended_rollout("production", release);
    assert_eq!(rollout["status"], "rolled_back", "{rollout:#}");
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
    assert_running(site, 1);
}

/// Two instances of the release run in production, and nothing else.
fn assert_running(site: &Site, release: u64) {
    let ours = format!("shop.production.{release}.");
    until(&format!("two instances of #{release} alone"), || {
        let running = site.instances("production");
        running.len() == 2 && running.iter().all(|id| id.starts_with(&ours))
    });
}

#[test]
fn a_server_killed_at_any_event_of_a_good_journey_finishes_it_1() {
    killed_at_every_event(0, 3, "good", good_ends_in_production);
}

#[test]
fn a_server_killed_at_any_event_of_a_good_journey_finishes_it_2() {
    killed_at_every_event(1, 3, "good", good_ends_in_production);
}

#[test]
fn a_server_killed_at_any_event_of_a_good_journey_finishes_it_3() {
    killed_at_every_event(2, 3, "good", good_ends_in_production);
}

#[test]
fn a_server_killed_at_any_event_of_a_bad_journey_goes_back_1() {
    killed_at_every_event(0, 3, "bad", bad_comes_back);
}

#[test]
fn a_server_killed_at_any_event_of_a_bad_journey_goes_back_2() {
    killed_at_every_event(1, 3, "bad", bad_comes_back);
}

#[test]
fn a_server_killed_at_any_event_of_a_bad_journey_goes_back_3() {
    killed_at_every_event(2, 3, "bad", bad_comes_back);
}
