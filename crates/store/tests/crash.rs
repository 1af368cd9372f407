//! A process that appends is killed at any moment: whatever it said was durable is there.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use shipway_engine::{Append, Store};
use shipway_store::{SqliteOptions, SqliteStore};

const FOLDER: &str = "SHIPWAY_TEST_APPENDS_TO";
const STREAMS: usize = 8;

fn open(folder: &Path) -> Arc<SqliteStore> {
    let path = folder.join("shipway.db");
    Arc::new(SqliteStore::open(&path, SqliteOptions::default()).unwrap())
}

/// The version of a stream, checked: events are numbered without a gap, as is the last snapshot.
async fn version(store: &SqliteStore, stream: usize) -> u64 {
    let name = format!("run/{stream}");
    let events = store.read(&name, 0).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.parse().unwrap()).collect();
    let count = numbers.len() as u64;
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    if let Some(snapshot) = store.snapshot(&name).await.unwrap() {
        assert_eq!(
            (snapshot.version, snapshot.state),
            (count, count.to_string())
        );
    }
    count
}

/// The child: appends two events at a time to each of some streams, and says what is acknowledged, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of another test"]
async fn a_child_that_appends() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = open(Path::new(&folder));
    let mut tasks = tokio::task::JoinSet::new();
    for stream in 0..STREAMS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut at = version(&store, stream).await;
            loop {
                let append = Append {
                    stream: format!("run/{stream}"),
                    expected: at,
                    events: vec![(at + 1).to_string(), (at + 2).to_string()],
                    rows: Vec::new(),
                    snapshot: Some((at + 2).to_string()),
                    live: true,
                };
                store.append(append).await.unwrap();
                at += 2;
                println!("acknowledged {stream} {at}");
            }
        });
    }
    tasks.join_all().await;
}

/// Starts the child, kills it after it has said this many lines; gives the last acknowledged version of each stream.
fn run_and_kill(folder: &Path, lines: usize) -> [u64; STREAMS] {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_child_that_appends",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = [0; STREAMS];
    let mut said = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // A line that the kill has cut short proves nothing; its number would be too small at worst.
        if let ["acknowledged", stream, at] = *line.split(' ').collect::<Vec<_>>() {
            let stream: usize = stream.parse().unwrap();
            acknowledged[stream] = at.parse::<u64>().unwrap_or(0).max(acknowledged[stream]);
            said += 1;
            if said == lines {
                // SIGKILL; what is still in the pipe is read to its end.
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(
        said >= lines,
        "the child ended by itself after {said} lines"
    );
    acknowledged
}

#[tokio::test]
async fn what_a_killed_process_had_acknowledged_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let acknowledged = run_and_kill(folder.path(), 1 + round * 67);
        let store = open(folder.path());
        for (stream, acknowledged) in acknowledged.into_iter().enumerate() {
            let version = version(&store, stream).await;
            assert!(
                version >= acknowledged,
                "{version} of {acknowledged} of run/{stream}"
            );
            assert_eq!(version % 2, 0, "an append is stored whole or not at all");
        }
    }
}

/// Every cut of the write-ahead log that a power cut may leave: what is before the cut is there, and it can be appended to.
#[tokio::test]
async fn a_log_cut_short_opens_with_what_came_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for at in 0..20u64 {
        let append = Append {
            stream: "run/0".to_owned(),
            expected: at,
            events: vec![(at + 1).to_string()],
            rows: Vec::new(),
            snapshot: Some((at + 1).to_string()),
            live: true,
        };
        store.append(append).await.unwrap();
    }
    let database = std::fs::read(folder.path().join("shipway.db")).unwrap();
    let log = std::fs::read(folder.path().join("shipway.db-wal")).unwrap();
    let mut before = 0;
    // The first transaction made the tables: from its end on, in steps that hit frames and their middles.
    for cut in (0..=log.len()).step_by(2_060).chain([log.len()]) {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("shipway.db"), &database).unwrap();
        std::fs::write(place.path().join("shipway.db-wal"), &log[..cut]).unwrap();
        let store = open(place.path());
        let count = version(&store, 0).await;
        assert!(count >= before, "a longer log has no fewer events");
        before = count;
        let append = Append {
            stream: "run/0".to_owned(),
            expected: count,
            events: vec![(count + 1).to_string()],
            rows: Vec::new(),
            snapshot: None,
            live: true,
        };
        store.append(append).await.unwrap();
    }
    assert_eq!(before, 20);
}
