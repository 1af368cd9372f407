//! The log alone: what the engine calls, as the engine calls it.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use shipway_engine::{Append, Store};
use tokio::task::JoinSet;

use crate::{at_least, at_most, cpu_seconds, median, open};

const STREAMS: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const LONG: usize = 10_000;

pub async fn measure(folder: &Path) {
    for events in [1, 4] {
        let (mut rates, mut appended, cpu) = (Vec::new(), 0.0, cpu_seconds());
        let mut waits = Vec::new();
        for round in 0..ROUNDS {
            waits.push(fsync(folder));
            let store = open(&folder.join(format!("append-{events}-{round}")));
            let (count, seconds) = append_for_a_while(store, events).await;
            rates.push(count / seconds);
            appended += count;
        }
        let what = format!("events/s, {STREAMS} streams, {events} an append");
        at_least(&what, rates, 50_000.0);
        println!(
            "    {:.0} per CPU second; meanwhile an fsync alone took {:.0} µs",
            appended / (cpu_seconds() - cpu),
            median(waits) * 1e6
        );
    }
    let took = long_read(open(&folder.join("read"))).await;
    at_most(
        "a stream of 10,000 events read",
        took,
        Duration::from_millis(20),
    );
}

/// The median time of a small write and an fsync, in seconds: what the disk alone takes for a commit.
fn fsync(folder: &Path) -> f64 {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let mut file = File::create(folder.join("fsync")).expect("a file can be made");
    let once = |_| {
        file.write_all(&[0; 4_096]).expect("the disk has room");
        let start = Instant::now();
        file.sync_data().expect("the disk works");
        start.elapsed().as_secs_f64()
    };
    median((0..50).map(once).collect())
}

/// An event of the usual size.
fn event() -> String {
    let body = r#"{"at":"2026-11-21T09:00:00Z","by":{"shipway":"action-1-3"},"body":{"action_done":{"index":3,"note":"10% of the traffic goes to #4","smoke":null}}}"#;
    body.to_owned()
}

/// Appends to some streams at once, each waiting until it is durable before it goes on.
async fn append_for_a_while(store: Arc<dyn Store>, events: usize) -> (f64, f64) {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in 0..STREAMS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut version = 0;
            while start.elapsed() < ROUND {
                let append = Append {
                    stream: format!("rollout/shop/{stream}"),
                    expected: version,
                    events: vec![event(); events],
                    rows: Vec::new(),
                    snapshot: None,
                    live: true,
                };
                store.append(append).await.expect("nobody else appends");
                version += events as u64;
            }
            version
        });
    }
    let appended: u64 = tasks.join_all().await.into_iter().sum();
    (appended as f64, start.elapsed().as_secs_f64())
}

async fn long_read(store: Arc<dyn Store>) -> Duration {
    // Beside others, so that its events are not the only ones in their pages.
    for version in (0..LONG).step_by(10) {
        for stream in ["rollout/shop/1", "rollout/shop/2"] {
            let append = Append {
                stream: stream.to_owned(),
                expected: version as u64,
                events: vec![event(); 10],
                rows: Vec::new(),
                snapshot: None,
                live: true,
            };
            store.append(append).await.expect("nobody else appends");
        }
    }
    let mut took = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let read = store
            .read("rollout/shop/1", 0)
            .await
            .expect("it can be read");
        took.push(start.elapsed());
        assert_eq!(read.len(), LONG);
    }
    median(took)
}
