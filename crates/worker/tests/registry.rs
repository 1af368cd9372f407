//! Images of private registries: how the engine's command is called. The command is a fake that records its calls; no
//! registry is contacted.

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, os::unix::net::UnixListener, path::Path};

use shipway_workflow::job::Conclusion::*;
use support::Bench;

#[test]
#[ignore = "not a test: the worker that the tests start"]
fn as_the_worker() {
    support::be_the_worker();
}

const PASSWORD: &str = "registry-password-19c4";

/// Accepts the login of `me`, fails to pull, succeeds at everything else.
const DOCKER: &str = r#"#!/bin/sh
echo "$*" >> HEARD
case "$1" in
  version) echo 27 ;;
  login)
    config=${DOCKER_CONFIG:-none}
    echo "login in $config of mode $(stat -c %a "$config")" >> HEARD
    [ "$(cat)" = "PASSWORD" ] || { echo "Error: denied" >&2; exit 1; }
    echo logged-in > "$config/config.json" ;;
  pull)
    [ -e "${DOCKER_CONFIG:-none}/config.json" ] && echo "pull as who is logged in" >> HEARD
    echo "manifest unknown" >&2; exit 1 ;;
  image) exit 1 ;;
  *) echo id ;;
esac
"#;

fn run(password: &str) -> (support::Outcome, String, std::path::PathBuf, Bench) {
    let bench = Bench::job(
        "    container: { image: 'registry.test/app:1', credentials: { username: me, password: '${{ secrets.P }}' } }\n    steps: [{ run: echo }]\n",
    );
    let mut bench = bench.secrets(&[("P", password)]);
    let root = bench.root.path().to_owned();
    let heard = root.join("heard");
    let bin = root.join("bin");
    fs::create_dir(&bin).unwrap();
    let script = DOCKER
        .replace("HEARD", &heard.display().to_string())
        .replace("PASSWORD", PASSWORD);
    fs::write(bin.join("docker"), script).unwrap();
    fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = root.join("engine.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    bench.environment = vec![
        ("PATH".to_owned(), path),
        (
            "DOCKER_HOST".to_owned(),
            format!("unix://{}", socket.display()),
        ),
    ];
    let outcome = bench.run();
    let heard = fs::read_to_string(heard).unwrap_or_default();
    (outcome, heard, root, bench)
}

fn logged_in(folder: &Path) -> bool {
    let found = std::process::Command::new("grep")
        .args(["-rl", "logged-in"])
        .arg(folder)
        .output();
    !found.unwrap().stdout.is_empty()
}

#[test]
fn a_login_is_told_by_standard_input_into_a_folder_that_goes() {
    let (outcome, heard, _, bench) = run(PASSWORD);
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    let why = outcome.why.clone().unwrap_or_default();
    assert!(why.contains("manifest unknown"), "{why}\n{heard}");
    let login = "login --username me --password-stdin registry.test";
    assert!(heard.lines().any(|line| line == login), "{heard}");
    assert!(heard.contains("of mode 700"), "{heard}");
    assert!(heard.contains("pull as who is logged in"), "{heard}");
    // The password is in no argument and no file, and the login is removed.
    assert!(!heard.contains(PASSWORD), "{heard}");
    assert!(!outcome.log.contains(PASSWORD) && !outcome.journal().contains(PASSWORD));
    assert!(!logged_in(bench.folder()));
}

#[test]
fn a_login_that_is_refused_fails_the_job_and_says_so() {
    let (outcome, heard, _, bench) = run("wrong-password-77");
    assert_eq!(outcome.conclusion, Failure, "{}", outcome.log);
    let why = outcome.why.clone().unwrap_or_default();
    assert!(why.contains("denied"), "{why}\n{heard}");
    assert!(!why.contains("wrong-password-77") && !heard.contains("wrong-password-77"));
    assert!(
        !heard.lines().any(|line| line.starts_with("pull")),
        "{heard}"
    );
    assert!(!logged_in(bench.folder()));
}
