//! The corner of the table of faults that takes less than two minutes. `bench/faults/run` runs all of it.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::site::{SHIPWAY, said};

fn table_of_faults(rows: &str, columns: &str) -> Output {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/faults/run");
    Command::new("python3")
        .arg(run)
        .args(["--rows", rows, "--columns", columns])
        .args(["--jobs", "2", "--limit", "60", "--after", "20"])
        .env("SHIPWAY", SHIPWAY)
        .output()
        .unwrap()
}

#[test]
fn users_get_stable_back_within_seconds_when_every_request_fails() {
    let output = table_of_faults("errors-100,closed", "rolling init,blue-green init");
    assert!(output.status.success(), "{}", said(&output));
}
