//! The API does what its description says: schemathesis sends requests that the description allows and requests that it doesn't, and
//! compares the answers with it.

use std::process::Command;

use crate::site::{Site, said};

/// Requests for each operation. More find little: most faults show with the boundaries that are tried first.
const EXAMPLES: &str = "5";

/// Where `./test` has installed it; none where it is not.
fn schemathesis() -> Option<String> {
    let program = std::env::var("SHIPWAY_TEST_SCHEMATHESIS").unwrap_or_else(|_| "st".to_owned());
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|it| it.status.success()) {
        return Some(program);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI has no schemathesis; ./test installs it"
    );
    println!("skipped, because schemathesis is not installed");
    None
}

#[test]
fn schemathesis_finds_nothing() {
    let Some(program) = schemathesis() else {
        return;
    };
    let site = Site::started();
    assert!(said(&site.shop().ship("1.0")).contains("#1 serves production"));
    let mut command = Command::new(program);
    command
        .current_dir(site.folder.path())
        .args(["run", &site.url("/api/openapi.json")])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", EXAMPLES, "--seed", "1"])
        .args(["--continue-on-failure", "--warnings", "off"])
        // An event stream has no end.
        .args(["--exclude-path-regex", "/api/v1/events"])
        // Most objects that it invents don't exist. Media type and origin are checked before the method: a PUT without JSON gets 415
        // also where there is no PUT.
        .args([
            "--exclude-checks",
            "positive_data_acceptance,unsupported_method",
        ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(site.ask("/shop/").map(|it| it.0), Some(200), "still serves");
}
