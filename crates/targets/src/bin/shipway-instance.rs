//! The shim of one instance as a program of its own: what `shipway instance` is, without the rest. The tests of the process target
//! run their instances under it.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(folder) => shipway_targets::process::shim::run_shim(Path::new(&folder)),
        None => {
            eprintln!("usage: shipway-instance FOLDER < what-to-run.json");
            ExitCode::from(2)
        }
    }
}
