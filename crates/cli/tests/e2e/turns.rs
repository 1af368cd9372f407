//! What may happen around a rollout: another push, another configuration, somebody who goes back, connections that last.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
};

use serde_json::{Value, json};

use crate::{
    load::{Load, assert_all_good},
    shop::Shop,
    site::{PATIENCE, Site, said, until},
    strategies::{
        BLUE_GREEN, CANARY, RECREATE, ROLLING, assert_serves_alone, config, load, production,
        running, serving, ship,
    },
};

/// A canary that stays at its first step until somebody hurries it or takes its place; a push follows a hold of up to a minute.
const LONG_CANARY: &str = "{ canary: { steps: [{ weight: 50, hold: 50s }] } }";

/// Begins a push and waits until its canary has users.
fn canary_begun(site: &Site, shop: &Shop, version: &str, release: u64) -> std::process::Child {
    shop.commit(version);
    let push = shop.push_begun("main");
    until(&format!("users of #{release}"), || {
        let split = production(site)["split"].clone();
        split.as_array().is_some_and(|split| split.len() == 2)
    });
    push
}

fn steer(site: &Site, rollout: u64, verb: &str) {
    let path = format!("/api/v1/rollouts/shop/{rollout}/{verb}");
    let (status, answer) = site.post(&path, &json!({ "reason": "the test says so" }));
    assert_eq!(status, 200, "{verb}: {answer:#}");
}

fn status(site: &Site, release: u64) -> Value {
    let rollout = site.rollout("production", release);
    rollout.map_or(Value::Null, |rollout| rollout["status"].clone())
}

#[test]
fn rolling_back_while_the_old_set_is_warm_is_one_shift() {
    let (site, shop) = serving("{ blue-green: { keep: 10m } }");
    let load = load(&site);
    let told = ship(&shop, "1.1", "good");
    assert!(told.contains("#2 serves production"), "{told}");
    assert_eq!(running(&site, 1), 2, "the old set is kept warm");

    let back = site.shipway(&["rollback", "shop", "--env", "production", "--watch"]);
    assert!(back.status.success(), "{}", said(&back));
    site.ended_rollout("production", 2);
    assert_serves_alone(&site, 1, 2);
    let rollout = site.rollout("production", 2).unwrap();
    let started = rollout["plan"].to_string();
    assert!(started.contains("#1"), "{started}");
    assert_all_good(&load.stop());
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));

    // Nobody watches for as long as a set is kept warm.
    let words = ["deploy", "shop", "--release", "2", "--env", "production"];
    let again = [&words[..], &["--force", "--watch"]].concat();
    let again = site.shipway(&again);
    let told = said(&again);
    assert!(again.status.success(), "{told}");
    assert!(
        told.contains("the previous instances are kept warm"),
        "{told}"
    );
    assert_eq!(status(&site, 2), "kept_warm");
}

#[test]
fn who_watches_a_deploy_that_takes_another_s_place_sees_its_own_end() {
    let (site, shop) = serving(LONG_CANARY);
    let push = canary_begun(&site, &shop, "1.1", 2);
    let words = ["deploy", "shop", "--release", "1", "--env", "production"];
    let deploy = site.shipway(&[&words[..], &["--watch"]].concat());
    let told = said(&deploy);
    assert!(deploy.status.success(), "{told}");
    assert!(told.contains("superseded by #1"), "{told}");
    assert!(told.contains("stable release already"), "{told}");
    push.wait_with_output().unwrap();
    assert_serves_alone(&site, 1, 2);
}

#[test]
fn a_newer_push_takes_the_place_of_a_running_canary() {
    let (site, shop) = serving(LONG_CANARY);
    let load = load(&site);
    let first = canary_begun(&site, &shop, "1.1", 2);
    shop.write("shipway.yaml", &config(CANARY));
    let told = said(&shop.ship("1.2"));
    assert!(told.contains("#3 serves production"), "{told}");
    let told = said(&first.wait_with_output().unwrap());
    assert!(told.contains("superseded by #3"), "{told}");
    assert_eq!(status(&site, 2), "superseded");
    assert_eq!(site.ended_rollout("production", 3)["status"], "promoted");
    assert_serves_alone(&site, 3, 2);
    assert_all_good(&load.stop());
}

#[test]
fn a_queue_keeps_every_release_in_order() {
    let (site, shop) = serving(LONG_CANARY);
    let queued = |strategy| format!("{}    when_busy: queue\n", config(strategy));
    shop.write("shipway.yaml", &queued(LONG_CANARY));
    let first = canary_begun(&site, &shop, "1.1", 2);
    shop.write("shipway.yaml", &queued(ROLLING));
    shop.commit("1.2");
    let second = shop.push_begun("main");
    until("#3 to be queued", || {
        production(&site)["queue"] == json!([3])
    });
    shop.commit("1.3");
    let third = shop.push_begun("main");
    until("#4 to be queued", || {
        production(&site)["queue"] == json!([3, 4])
    });
    assert_eq!(status(&site, 2), "holding");
    steer(&site, 2, "promote");
    for (push, release) in [(first, 2), (second, 3), (third, 4)] {
        let told = said(&push.wait_with_output().unwrap());
        let serves = format!("#{release} serves production");
        assert!(told.contains(&serves), "{told}");
        assert_eq!(
            site.ended_rollout("production", release)["status"],
            "promoted"
        );
    }
    assert_serves_alone(&site, 4, 2);
}

#[test]
fn a_busy_environment_can_refuse() {
    let (site, shop) = serving(LONG_CANARY);
    let first = canary_begun(&site, &shop, "1.1", 2);
    let refusing = format!("{}    when_busy: refuse\n", config(CANARY));
    shop.write("shipway.yaml", &refusing);
    let told = said(&shop.ship("1.2"));
    assert!(told.contains("busy"), "{told}");
    assert_eq!(site.rollout("production", 3), None);
    steer(&site, 2, "promote");
    let told = said(&first.wait_with_output().unwrap());
    assert!(told.contains("#2 serves production"), "{told}");
    site.ended_rollout("production", 2);
    assert_serves_alone(&site, 2, 2);
}

#[test]
fn instances_and_strategy_change_with_the_release() {
    let (site, shop) = serving(CANARY);
    let load = load(&site);
    let strategies = [(ROLLING, 3), (BLUE_GREEN, 1), (RECREATE, 2), (CANARY, 3)];
    for (release, (strategy, instances)) in (2..).zip(strategies) {
        let text = config(strategy);
        let changed = text.replace("instances: 2", &format!("instances: {instances}"));
        shop.write("shipway.yaml", &changed);
        let told = said(&shop.ship(&format!("1.{release}")));
        let serves = format!("#{release} serves production");
        assert!(told.contains(&serves), "{told}");
        site.ended_rollout("production", release);
        assert_serves_alone(&site, release, instances);
    }
    assert_all_good(&load.stop());

    let back = site.shipway(&["rollback", "shop", "--env", "production", "--watch"]);
    assert!(back.status.success(), "{}", said(&back));
    // Going back restores the configuration with the release.
    assert_serves_alone(&site, 4, 2);
}

#[test]
fn a_release_with_the_bytes_of_the_stable_one_is_a_release_like_any() {
    let (site, shop) = serving(ROLLING);
    let load = load(&site);
    shop.git(&["commit", "--quiet", "--allow-empty", "--message", "again"]);
    let told = said(&shop.push("main"));
    assert!(told.contains("#2 serves production"), "{told}");
    site.ended_rollout("production", 2);
    assert_serves_alone(&site, 2, 2);

    let again = site.shipway(&["deploy", "shop", "--env", "production", "--watch"]);
    let told = said(&again);
    assert!(again.status.success(), "{told}");
    assert!(told.contains("stable release already"), "{told}");
    assert_serves_alone(&site, 2, 2);
    assert_all_good(&load.stop());
}

#[test]
fn a_first_release_that_is_bad_leaves_nothing_behind() {
    let site = Site::started();
    let shop = site.shop();
    shop.write("shipway.yaml", &config(CANARY));
    for (release, version, mood) in [(1, "1.0", "never-ready"), (2, "1.1", "exits")] {
        let told = ship(&shop, version, mood);
        assert!(!told.contains("serves production"), "{told}");
        let rollout = site.ended_rollout("production", release);
        assert_ne!(rollout["status"], "promoted", "{rollout:#}");
        assert_eq!(running(&site, release), 0);
        assert_eq!(production(&site)["stable"], Value::Null);
    }
    let told = ship(&shop, "1.2", "good");
    assert!(told.contains("#3 serves production"), "{told}");
    assert_serves_alone(&site, 3, 2);
}

/// A request on a connection of its own; what comes back is read from it.
fn asked(site: &Site, head: &str) -> BufReader<TcpStream> {
    let mut connection = TcpStream::connect(&site.proxy).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{head}\r\nHost: 127.0.0.1\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    BufReader::new(connection)
}

/// Until the empty line at the end of the answer's head.
fn skip_head(answer: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(answer.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head
}

#[test]
fn a_long_answer_survives_a_promotion() {
    for strategy in [CANARY, RECREATE] {
        let (site, shop) = serving(strategy);
        let load = load(&site);
        let mut stream = asked(&site, "GET /shop/stream HTTP/1.1\r\nConnection: close");
        stream.get_mut().write_all(b"\r\n").unwrap();
        assert!(skip_head(&mut stream).starts_with("HTTP/1.1 200"));
        let reader = thread::spawn(move || {
            let mut all = String::new();
            stream.read_to_string(&mut all).map(|_| all)
        });
        let told = said(&shop.ship("1.1"));
        assert!(told.contains("#2 serves production"), "{told}");
        let all = reader.join().unwrap().unwrap();
        assert_eq!(all.matches("1.0").count(), 30, "{all:?}");
        assert!(all.ends_with("0\r\n\r\n"), "{all:?}");
        assert_all_good(&load.stop());
        site.ended_rollout("production", 2);
        assert_serves_alone(&site, 2, 2);
    }
}

#[test]
fn a_switched_connection_survives_a_promotion_as_long_as_the_drain() {
    let (site, shop) = serving(CANARY);
    let load = load(&site);
    let mut socket = asked(
        &site,
        "GET /shop/socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket",
    );
    socket.get_mut().write_all(b"\r\n").unwrap();
    assert!(skip_head(&mut socket).starts_with("HTTP/1.1 101"));
    let echoes = |socket: &mut BufReader<TcpStream>, word: &str| {
        let line = format!("{word}\n");
        socket.get_mut().write_all(line.as_bytes()).unwrap();
        let mut back = String::new();
        socket.read_line(&mut back).unwrap();
        assert_eq!(back, format!("1.0 {line}"));
    };
    echoes(&mut socket, "before");
    let told = said(&shop.ship("1.1"));
    assert!(told.contains("#2 serves production"), "{told}");
    assert_eq!(site.ask("/shop/"), Some((200, "1.1".to_owned())));
    echoes(&mut socket, "after");
    until("#1 to be drained", || {
        let rollout = site.rollout("production", 2).unwrap();
        let plan = rollout["plan"].as_array().unwrap().clone();
        let now = plan.into_iter().find(|line| line["progress"] == "now");
        now.is_some_and(|line| line["text"].to_string().contains("drain #1"))
    });
    echoes(&mut socket, "while the rest of its release is drained");
    assert_eq!(running(&site, 1), 2);
    drop(socket);
    assert_all_good(&load.stop());
    site.ended_rollout("production", 2);
    assert_serves_alone(&site, 2, 2);
}

/// A rollout turns back while stable is being taken down: all of stable is there again before it has all traffic.
#[test]
fn what_was_being_taken_down_is_brought_up_again() {
    for (release, strategy, moment) in [(2, RECREATE, "drain #1,"), (2, ROLLING, "drain #1 down")] {
        let (site, shop) = serving(strategy);
        // A drain lasts as long as the slowest request of its instance: each instance always has some.
        let url = format!("http://{}/shop/slow", site.proxy);
        let loads: Vec<Load> = (0..4).map(|_| Load::start(&url)).collect();
        let is_busy = || loads.iter().all(|load| load.of("1.0") > 4);
        until("slow requests to be open", is_busy);
        shop.commit("1.1");
        let push = shop.push_begun("main");
        until(moment, || {
            let rollout = site.rollout("production", release).unwrap_or_default();
            let plan = rollout["plan"].as_array().cloned().unwrap_or_default();
            let now = plan.into_iter().find(|line| line["progress"] == "now");
            now.is_some_and(|line| line["text"].to_string().contains(moment))
        });
        steer(&site, release, "abort");
        push.wait_with_output().unwrap();
        let rollout = site.ended_rollout("production", release);
        assert_eq!(rollout["status"], "aborted", "{rollout:#}");
        assert_serves_alone(&site, 1, 2);
        for load in loads {
            assert_all_good(&load.stop());
        }
    }
}

#[test]
fn slow_requests_finish_while_their_release_is_drained() {
    let (site, shop) = serving(ROLLING);
    let load = Load::start(&format!("http://{}/shop/slow", site.proxy));
    for (release, strategy) in [(2, CANARY), (3, RECREATE), (4, ROLLING)] {
        // Too few requests to judge by.
        let text = config(strategy).replace("    analysis", "#   analysis");
        shop.write("shipway.yaml", &text);
        let told = said(&shop.ship(&format!("1.{release}")));
        let serves = format!("#{release} serves production");
        assert!(told.contains(&serves), "{told}");
    }
    until("all traffic on 1.4", || load.of("1.4") > 4);
    assert_all_good(&load.stop());
    site.ended_rollout("production", 4);
    assert_serves_alone(&site, 4, 2);
}
