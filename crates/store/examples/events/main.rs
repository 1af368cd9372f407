//! Measures the log and the engine on this machine's disk, and fills a data folder for measuring a start. Run by
//! `bench/log/run` and `bench/engine/run`, which say what the numbers should be.
//!
//! ```text
//! events log FOLDER              events appended a second, and a long stream read
//! events engine FOLDER           whole rollouts a second
//! events fill FOLDER ROLLOUTS    a data folder with so many past rollouts
//! ```

mod delivery;
mod engine;
mod fill;
mod log;

use std::{path::Path, sync::Arc, time::Duration};

use shipway_engine::Store;
use shipway_store::{SqliteOptions, SqliteStore};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.expect("threads can be started").block_on(async {
        match *arguments {
            ["log", folder] => log::measure(Path::new(folder)).await,
            ["engine", folder] => engine::measure(Path::new(folder)).await,
            ["fill", folder, rollouts] => {
                let rollouts = rollouts.parse().expect("a number of rollouts");
                fill::fill(Path::new(folder), rollouts).await;
            }
            _ => {
                eprintln!("usage: bench log|engine FOLDER, bench fill FOLDER ROLLOUTS");
                std::process::exit(2);
            }
        }
    });
}

/// A log as the server opens it.
fn open(folder: &Path) -> Arc<dyn Store> {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let store = SqliteStore::open(&folder.join("shipway.db"), SqliteOptions::default());
    Arc::new(store.expect("the log can be opened"))
}

/// One line: what, the median of some rounds, what it should be at least, the ratio, and the best round: on a machine that is
/// busy with other things it says more.
fn at_least(what: &str, rates: Vec<f64>, target: f64) {
    let best = rates.iter().copied().fold(0.0, f64::max);
    let rate = median(rates);
    let ratio = rate / target;
    println!(
        "{what:40} {rate:>10.0}     at least {target:>6.0}      ratio {ratio:<6.2} best round {best:.0}"
    );
}

/// One line: what, how long, how long at most, and the ratio.
fn at_most(what: &str, value: Duration, target: Duration) {
    let (value, target) = (value.as_secs_f64() * 1e3, target.as_secs_f64() * 1e3);
    let ratio = target / value;
    println!("{what:40} {value:>10.1} ms  at most {target:>7.0} ms   ratio {ratio:.2}");
}

/// The CPU seconds this process has used, with those the kernel used for it.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().expect("a number"))
        .sum::<f64>()
        / 100.0
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures can be compared"));
    values[values.len() / 2]
}
