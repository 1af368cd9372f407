//! The guard sees what users see: a release whose instances lose their readiness is never promoted, and is rolled back in its
//! hold, while the previous set is kept warm, and after its promotion.

use std::fs;

use crate::{
    listener::Listener,
    load::Load,
    shop::Shop,
    site::{Site, said, until},
    words::assert_says,
};

fn config(strategy: &str) -> String {
    format!(
        "
service: shop
run:
  command: exec python3 shop.py
  health: {{ http: /ready, interval: 100ms, timeout: 2s }}
environments:
  production:
    instances: 2
    strategy: {strategy}
    drain: 1s
    watch: 30m
"
    )
}

/// 1.0 serves; 1.1 answers its readiness probe with 503 from the moment on that [`lose_readiness`] is called.
fn serving(strategy: &str) -> (Site, Shop) {
    let site = Site::started();
    let shop = site.shop();
    shop.edit(
        "shop.py",
        "ready = mood",
        "ready = not os.path.exists(mood.removeprefix(\"unready-if \")) and mood",
    );
    shop.write("shipway.yaml", &config(strategy));
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    let switch = site.folder.path().join("unready");
    shop.write("MOOD", &format!("unready-if {}\n", switch.display()));
    (site, shop)
}

fn lose_readiness(site: &Site) {
    fs::write(site.folder.path().join("unready"), "").unwrap();
}

fn assert_rolled_back(site: &Site) {
    until("the rollback", || {
        site.rollout("production", 2)
            .is_some_and(|rollout| rollout["status"] == "rolled_back")
    });
    let rollout = site.rollout("production", 2).unwrap();
    let why = rollout["ended"]["why"].as_str().unwrap();
    assert!(why.contains("instances of #2 ready"), "{why}");
    assert_eq!(site.place("production")["stable"]["number"], 1);
    let (status, version) = site.ask("/shop").unwrap();
    assert_eq!((status, version.as_str()), (200, "1.0"));
}

#[test]
fn a_canary_that_loses_its_readiness_is_rolled_back_and_never_gets_more_traffic() {
    let canary = "{ canary: { steps: [{ weight: 50, hold: 60s }], min_hold: 50s } }";
    let (site, shop) = serving(canary);
    let load = Load::start(&format!("http://{}/shop", site.proxy));
    let mut push = shop.ship_begun("1.1");
    until("traffic of 1.1", || load.of("1.1") > 20);
    lose_readiness(&site);
    push.wait().unwrap();
    assert_rolled_back(&site);
    let notes = site.rollout("production", 2).unwrap()["notes"].to_string();
    assert!(!notes.contains("100% to #2"), "{notes}");
    load.stop();
}

#[test]
fn a_set_that_loses_its_readiness_while_the_old_one_is_warm_gives_the_traffic_back() {
    let (site, shop) = serving("{ blue-green: { keep: 10m } }");
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
    assert_eq!(site.ask("/shop").unwrap().1, "1.1");
    lose_readiness(&site);
    assert_rolled_back(&site);
}

#[test]
fn a_promoted_release_that_loses_its_readiness_is_rolled_back_in_its_watch() {
    for strategy in ["rolling", "recreate"] {
        let (site, shop) = serving(strategy);
        assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);
        let rollout = site.ended_rollout("production", 2);
        assert!(rollout["guarded_until"].is_string(), "{rollout:#}");
        assert!(
            site.instances("production")
                .iter()
                .all(|it| it.contains(".2."))
        );
        lose_readiness(&site);
        assert_rolled_back(&site);
    }
}

#[test]
fn an_outage_after_the_watch_is_reported_to_people_and_so_is_its_end() {
    let listener = Listener::start();
    let mut site = Site::started();
    let shop = site.shop();
    let config = config("rolling").replace("watch: 30m", "watch: none");
    let notify = format!(
        "    notify: [{{ webhook: 'http://{}/hook' }}]\n",
        listener.address
    );
    shop.write("shipway.yaml", &(config + &notify));
    let mood = site.folder.path().join("unready");
    shop.edit(
        "shop.py",
        "ready = mood",
        &format!(
            "ready = not os.path.exists({:?}) and mood",
            mood.display().to_string()
        ),
    );
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    site.ended_rollout("production", 1);
    let titled = |title: &str| {
        let bodies = listener.at("/hook");
        bodies.into_iter().find(|body| body["title"] == title)
    };

    lose_readiness(&site);
    until("the notification", || {
        titled("shop production is down").is_some()
    });
    let down = titled("shop production is down").unwrap();
    assert_eq!(down["severity"], "bad");
    assert_says(
        &down.to_string(),
        &[
            "0 of 2 instances of #1 ready",
            "503",
            "there is no automatic rollback",
        ],
    );
    assert_eq!(site.place("production")["degradation"]["ready"], 0);
    let status = said(&site.shipway(&["status"]));
    assert_says(&status, &["degraded", "0 of 2 instances of #1 ready"]);

    // The next server knows what was reported, and sees the end of it.
    site.stop();
    site.start();
    fs::remove_file(mood).unwrap();
    until("the recovery", || {
        titled("shop production is healthy again").is_some()
    });
    assert!(site.place("production")["degradation"].is_null());
    let reports = listener.at("/hook");
    let down = reports.iter().filter(|it| it["title"] == down["title"]);
    assert_eq!(down.count(), 1, "reported once");
}

#[test]
fn while_a_rollback_keeps_failing_a_pushed_fix_goes_out() {
    let site = Site::started();
    let shop = site.shop();
    shop.edit(
        "shop.py",
        "ready = mood",
        "ready = not os.path.exists(mood.removeprefix(\"unready-if \")) and mood",
    );
    let config = config("rolling") + "    progress_deadline: 4s\n";
    shop.write("shipway.yaml", &config);
    let [never, unready] = ["never", "unready"].map(|name| site.folder.path().join(name));
    shop.write("MOOD", &format!("unready-if {}\n", never.display()));
    assert_says(&said(&shop.ship("1.0")), &["#1 serves production"]);
    shop.write("MOOD", &format!("unready-if {}\n", unready.display()));
    assert_says(&said(&shop.ship("1.1")), &["#2 serves production"]);

    // The previous release can't be started any more, and the new one fails.
    fs::write(never, "").unwrap();
    fs::write(unready, "").unwrap();
    until("a failed attempt of the rollback", || {
        let rollout = site.rollout("production", 2).unwrap();
        rollout["rollback_retry"]["attempt"].as_u64() > Some(0)
    });
    shop.write("MOOD", "good\n");
    assert_says(&said(&shop.ship("1.2")), &["#3 serves production"]);
    assert_eq!(site.ask("/shop").unwrap(), (200, "1.2".to_owned()));
    assert_eq!(site.rollout("production", 2).unwrap()["status"], "failed");
}
