//! The examples as their readers use them: pushed as they are, and pushed again while `wrk` asks as fast as it can.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    shop::Shop,
    site::{SHIPWAY, Site, processes_with, said, signal, until},
};

/// The workspace.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// A copy of what git has of an example, or would have; not what a build left behind.
pub fn copied(site: &Site, name: &str) -> Shop {
    let (from, to) = (
        root().join("examples").join(name),
        site.folder.path().join(name),
    );
    let words = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let listed = Command::new("git").args(words).current_dir(&from).output();
    for file in String::from_utf8(listed.unwrap().stdout)
        .unwrap()
        .split_terminator('\0')
    {
        let copy = to.join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(from.join(file), copy).unwrap();
    }
    Shop::of(&to, &site.url(&format!("/git/{name}")))
}

/// `wrk`, which asks until it is told to stop, with this Host.
pub fn wrk_at(url: &str, host: &str) -> Child {
    wrk_with(url, &["--header", &format!("Host: {host}")])
}

fn wrk(url: &str) -> Child {
    wrk_with(url, &[])
}

fn wrk_with(url: &str, more: &[&str]) -> Child {
    let words = [
        "--threads",
        "1",
        "--connections",
        "8",
        "--timeout",
        "20s",
        "--duration",
        "10m",
    ];
    let mut wrk = Command::new("wrk");
    wrk.args(words).args(more).arg(url).stdout(Stdio::piped());
    wrk.spawn().expect("wrk is installed by ./test")
}

/// Ends it, and asserts that all it has asked was answered well; how many requests that were.
pub fn assert_no_failed_request(wrk: Child) -> u64 {
    signal(wrk.id(), "INT");
    let told = said(&wrk.wait_with_output().unwrap());
    let requests = told
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "));
    let (requests, _) = requests.unwrap_or_else(|| panic!("wrk says {told}"));
    let requests = requests.parse::<u64>().unwrap();
    assert!(requests > 100, "{told}");
    for failure in ["Non-2xx", "Socket errors"] {
        assert!(!told.contains(failure), "{told}");
    }
    requests
}

/// Whether a version answers through the proxy.
fn answers(site: &Site, name: &str, version: &str) -> bool {
    let (status, body) = site.ask(&format!("/{name}")).unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    status == 200 && answer["version"] == version
}

/// Twice from a push through staging into production, the second time under load.
fn is_shipped_and_shipped_again(site: &Site, shop: &Shop, name: &str) {
    shop.edit("shipway.yaml", "hold: 5s", "hold: 1s");
    let told = said(&shop.ship("1.0.0"));
    for line in ["#1 serves staging", "#1 serves production"] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
    assert!(
        answers(site, name, "1.0.0"),
        "{:?}",
        site.ask(&format!("/{name}"))
    );

    let wrk = wrk(&format!("http://{}/{name}/", site.proxy));
    let told = said(&shop.ship("1.1.0"));
    assert!(told.contains("#2 serves production"), "{told}");
    until("1.1.0 to answer", || answers(site, name, "1.1.0"));
    assert_no_failed_request(wrk);
}

#[test]
fn shop_rust_is_shipped_and_shipped_again_under_load() {
    let site = Site::started();
    let shop = copied(&site, "shop-rust");
    let target = root().join("target/examples");
    fs::create_dir_all(&target).unwrap();
    let target = target.display();
    // What it is made of is built once for all tests and all their runs; the lock is for those that run at the same time.
    let build = format!(
        "|\n          exec 9> {target}/e2e.lock && flock 9
          cargo build --release --locked --target-dir {target}
          mkdir -p target/release && cp {target}/release/shop target/release/"
    );
    let test =
        format!("flock {target}/e2e.lock cargo test --release --locked --target-dir {target}");
    let workflow = ".github/workflows/cd.yml";
    shop.edit(workflow, "cargo build --release --locked", &build);
    shop.edit(workflow, "cargo test --release --locked", &test);
    is_shipped_and_shipped_again(&site, &shop, "shop-rust");
}

/// Whether the example's packages can be had; without a network this is nobody's fault.
fn packages_can_be_had(folder: &Path) -> bool {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(folder.join("packages"))
        .arg("--requirement")
        .arg(root().join("examples/shop-python/requirements.txt"));
    let output = pip.output().unwrap();
    if output.status.success() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "{}", said(&output));
    println!(
        "skipped, because pip can't reach its packages: {}",
        said(&output)
    );
    false
}

#[test]
fn shop_python_is_shipped_and_shipped_again_under_load() {
    let mut site = Site::new();
    if !packages_can_be_had(site.folder.path()) {
        return;
    }
    site.start();
    let shop = copied(&site, "shop-python");
    is_shipped_and_shipped_again(&site, &shop, "shop-python");
}

#[test]
fn the_demo_ends_as_it_promises_and_leaves_nothing() {
    let folder = tempfile::Builder::new()
        .prefix("shipway-e2e-")
        .tempdir()
        .unwrap();
    let mut demo = Command::new(SHIPWAY);
    demo.args(["demo", "--exit"])
        .env("TMPDIR", folder.path())
        .env_remove("SHIPWAY_TOKEN")
        .stdin(Stdio::null());
    let output = demo.output().unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    let summary = told.split("What happened").nth(1).unwrap();
    for (version, outcome) in [
        ("1.0 (#1)", "promoted"),
        ("1.1 (#2)", "promoted"),
        ("1.2 (#3)", "rolled back"),
    ] {
        let mut lines = summary.lines();
        let line = lines.find(|line| line.contains(version)).unwrap();
        assert!(line.contains(outcome), "{line}");
    }
    assert!(summary.contains("error rate"), "{summary}");
    assert!(
        summary.contains(" 0 failed because of Shipway itself"),
        "{summary}"
    );
    let inside = folder.path().to_string_lossy().into_owned();
    until("nothing to run any more", || {
        processes_with(&[&inside]).is_empty()
    });
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
