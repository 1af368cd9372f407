//! Bad days: what dies, lies, fills up or comes twice.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{
    load::{Load, assert_all_good},
    shop::Shop,
    site::{Site, processes_with, said, signal, until},
};

/// A site where 1.0 serves production.
fn serving() -> (Site, Shop) {
    let site = Site::started();
    let shop = site.shop();
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("#1 serves production"), "{told}");
    (site, shop)
}

/// The canary of this release holds: the first step of its traffic is shifted, and nothing is decided.
fn is_holding(site: &Site, release: u64) -> bool {
    let rollout = site.rollout("production", release).unwrap_or_default();
    !rollout["hold_until"].is_null()
}

#[test]
fn a_killed_server_goes_on_with_the_canary_where_it_was() {
    let (mut site, shop) = serving();
    shop.edit("shipway.yaml", "hold: 1s", "hold: 3s");
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    let push = shop.ship_begun("1.1");
    until("the canary", || is_holding(&site, 2));
    let before = site.rollout("production", 2).unwrap();
    site.kill();
    let asked = load.of("1.1");
    until("requests to both while no server runs", || {
        load.of("1.1") > asked + 5 && load.of("1.0") > 0
    });
    site.start();
    let after = site.rollout("production", 2).unwrap();
    for same in ["id", "split", "opened_at", "hold_until"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    let rollout = site.ended_rollout("production", 2);
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    assert_all_good(&load.stop());
    push.wait_with_output().unwrap();
}

#[test]
fn a_killed_proxy_is_there_again_with_the_same_routes() {
    let (site, _shop) = serving();
    let control = site.data().join("proxy/control.sock");
    let proxies = || processes_with(&[" proxy ", control.to_str().unwrap()]);
    let [old] = proxies()[..] else {
        panic!("not one proxy: {:?}", proxies());
    };
    signal(old, "KILL");
    until("another proxy", || proxies().iter().any(|pid| *pid != old));
    until("the same routes", || {
        site.ask("/shop/") == Some((200, "1.0".to_owned()))
    });
    assert_eq!(proxies().len(), 1);
}

#[test]
fn a_killed_proxy_and_no_server_is_served_by_the_next_server() {
    let (mut site, _shop) = serving();
    site.kill();
    let control = site.data().join("proxy/control.sock");
    for proxy in processes_with(&[" proxy ", control.to_str().unwrap()]) {
        signal(proxy, "KILL");
    }
    until("silence", || site.ask("/shop/").is_none());
    site.start();
    until("service", || {
        site.ask("/shop/") == Some((200, "1.0".to_owned()))
    });
}

#[test]
fn a_killed_worker_fails_its_job_and_leaves_nothing() {
    let site = Site::started();
    let shop = site.shop();
    shop.edit(
        ".github/workflows/cd.yml",
        "- run: python3 -m py_compile shop.py",
        "- run: sleep 1000",
    );
    let push = shop.ship_begun("1.0");
    let folder = site.data().display().to_string();
    let worker = || processes_with(&[" worker ", &folder]);
    let sleeper = || {
        processes_with(&["sleep 1000"])
            .iter()
            .any(|pid| below(*pid, &folder))
    };
    until("the step", || !worker().is_empty() && sleeper());
    for pid in worker() {
        signal(pid, "KILL");
    }
    let told = said(&push.wait_with_output().unwrap());
    assert!(told.contains("✗ build"), "{told}");
    assert!(told.contains("worker"), "{told}");
    until("the end of what the worker ran", || !sleeper());
}

/// Whether a process works below a folder.
fn below(pid: u32, folder: &str) -> bool {
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
    cwd.is_ok_and(|cwd| cwd.starts_with(folder))
}

#[test]
fn a_second_server_on_the_same_data_is_told_who_has_it() {
    let site = Site::started();
    let second = site.command().output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{}", said(&second));
    let pid = fs::read_to_string(site.data().join("shipway.lock")).unwrap();
    let told = said(&second);
    assert!(told.contains("another server"), "{told}");
    assert!(
        !pid.trim().is_empty() && told.contains(pid.trim()),
        "{pid:?} is not in {told}"
    );
    assert!(site.get("/readyz").is_some(), "the first one serves on");
}

#[test]
fn a_log_of_a_newer_version_is_refused_and_stays_as_it_is() {
    let (mut site, _shop) = serving();
    site.stop();
    let path = site.data().join("shipway.db");
    let log = rusqlite::Connection::open(&path).unwrap();
    log.pragma_update(None, "user_version", 1_000).unwrap();
    drop(log);
    let before = fs::read(&path).unwrap();
    let refused = site.command().output().unwrap();
    let told = said(&refused);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("newer"), "{told}");
    assert!(fs::read(&path).unwrap() == before, "the file was touched");
    assert_eq!(site.ask("/shop/"), Some((200, "1.0".to_owned())));
}

#[test]
fn a_full_disk_loses_nothing_and_the_traffic_goes_on() {
    let (mut site, shop) = serving();
    let load = Load::start(&format!("http://{}/shop/", site.proxy));
    site.stop();
    // A bound on each file is what an ordinary user can have of a full disk: 200 KiB, and writing more is an error.
    let bounded = "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"";
    site.under = ["sh", "-c", bounded].map(str::to_owned).to_vec();
    // What the server before said when it was stopped is not meant.
    let begun = site.log().len();
    site.start();
    shop.commit("1.1");
    let push = shop.push_begun("main");
    until("the log to fail", || {
        site.log()[begun..].contains("the event log failed")
    });
    let (status, problem) = site.post("/api/v1/services/shop/runs", &Value::Null);
    assert!(status >= 400, "{status} {problem}");
    site.stop();
    site.under.clear();
    site.start();
    let rollout = site.ended_rollout("production", 2);
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    until("1.1", || {
        site.ask("/shop/") == Some((200, "1.1".to_owned()))
    });
    assert_all_good(&load.stop());
    push.wait_with_output().unwrap();
}

/// The library that makes a process believe in another time, and the file that it reads the difference from.
pub struct OtherTime {
    library: PathBuf,
    difference: PathBuf,
}

impl OtherTime {
    /// A site in a time of its own, that of the machine at first; none, and said so, where that can't be.
    pub fn site() -> Option<(Site, Self)> {
        let mut site = Site::new();
        let time = Self::new(&site);
        if time.is_none() {
            assert!(
                std::env::var_os("CI").is_none(),
                "faketime is not installed"
            );
            println!("skipped, because faketime is not installed");
        }
        let time = time?;
        site.env = time.environment();
        site.start();
        Some((site, time))
    }

    fn new(site: &Site) -> Option<Self> {
        let folders = fs::read_dir("/usr/lib").ok()?.flatten();
        let library = folders
            .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.exists())?;
        let difference = site.folder.path().join("difference");
        let time = Self {
            library,
            difference,
        };
        time.set("+0");
        Some(time)
    }

    pub fn set(&self, difference: &str) {
        fs::write(&self.difference, difference).unwrap();
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                self.difference.display().to_string(),
            ),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

#[test]
fn a_clock_set_back_delays_nothing() {
    let Some((mut site, time)) = OtherTime::site() else {
        return;
    };
    let shop = site.shop();
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("#1 serves production"), "{told}");
    shop.edit("shipway.yaml", "hold: 1s", "hold: 2s");
    let load = Load::start(&format!("http://{}/shop/", site.proxy));

    let begun = std::time::Instant::now();
    let push = shop.ship_begun("1.1");
    until("the canary", || is_holding(&site, 2));
    time.set("-3600");
    let rollout = site.ended_rollout("production", 2);
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    push.wait_with_output().unwrap();

    let push = shop.ship_begun("1.2");
    until("the next canary", || is_holding(&site, 3));
    site.kill();
    time.set("-7200");
    site.start();
    let rollout = site.ended_rollout("production", 3);
    assert_eq!(rollout["status"], "promoted", "{rollout:#}");
    assert!(begun.elapsed() < Duration::from_secs(120));
    assert_all_good(&load.stop());
    push.wait_with_output().unwrap();
}
