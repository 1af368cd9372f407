//! A projection counts every event of the log exactly once, wherever it was interrupted.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shipway_core::{aggregate::ViewRow, projection::LogProjection};
use shipway_engine::{Append, MemoryStore, ProjectionError, ProjectionRunner, Store};

/// Sums the numbers of each stream. Zeros count, and change no row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums<const VERSION: u32> {
    events: u64,
    sums: std::collections::BTreeMap<String, u64>,
}

impl<const VERSION: u32> LogProjection for Sums<VERSION> {
    const NAME: &'static str = "sums";
    const VERSION: u32 = VERSION;

    fn fold(&mut self, stream: &str, event: &str) -> Result<Vec<ViewRow>, serde_json::Error> {
        let number: u64 = serde_json::from_str(event)?;
        self.events += 1;
        let sum = self.sums.entry(stream.to_owned()).or_default();
        *sum += number;
        let row = ViewRow {
            kind: Self::NAME.to_owned(),
            key: stream.to_owned(),
            service: String::new(),
            live: false,
            doc: json!(*sum),
        };
        Ok(Some(row).filter(|_| number > 0).into_iter().collect())
    }
}

async fn append(store: &MemoryStore, stream: &str, event: &str) {
    let append = Append {
        stream: stream.to_owned(),
        expected: store.read(stream, 0).await.unwrap().len() as u64,
        events: vec![event.to_owned()],
        rows: Vec::new(),
        snapshot: None,
        live: false,
    };
    store.append(append).await.unwrap();
}

/// A log of numbers in three streams.
async fn fill(count: u64) -> MemoryStore {
    let store = MemoryStore::default();
    for number in 0..count {
        let stream = ["a/1", "a/2", "b/1"][number as usize % 3];
        append(&store, stream, &(number % 4).to_string()).await;
    }
    store
}

async fn rows(store: &MemoryStore) -> Vec<(String, Value)> {
    let rows = store.all_rows("sums").await.unwrap().into_iter();
    let mut rows: Vec<_> = rows.map(|row| (row.key, row.doc)).collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

async fn caught_up<P: LogProjection>(store: &MemoryStore) -> ProjectionRunner<P> {
    let mut runner = ProjectionRunner::<P>::load(store).await.unwrap();
    runner.catch_up(store).await.unwrap();
    runner
}

#[tokio::test]
async fn a_kill_after_any_event_neither_loses_nor_repeats_one() {
    let log = fill(40).await;
    let whole = caught_up::<Sums<1>>(&log).await;
    let expected = rows(&log).await;
    assert_eq!(whole.state().events, 40);
    for cut in 0..=40 {
        let store = log.cut(cut);
        drop(caught_up::<Sums<1>>(&store).await);
        // Killed: only what the store has is left, and the log goes on.
        for recorded in &log.events()[cut..] {
            append(&store, &recorded.stream, &recorded.event).await;
        }
        let continued = caught_up::<Sums<1>>(&store).await;
        assert_eq!(continued.state(), whole.state(), "after {cut} events");
        assert_eq!(rows(&store).await, expected, "after {cut} events");
    }
}

#[tokio::test]
async fn what_was_folded_and_not_saved_is_folded_again() {
    let store = fill(10).await;
    let following = tokio::spawn({
        let store = store.clone();
        async move {
            let mut runner = ProjectionRunner::<Sums<1>>::load(&store).await.unwrap();
            runner.follow(&store).await
        }
    });
    // Events that change no row are not saved by themselves; the last one saves them.
    for _ in 0..20 {
        append(&store, "c/1", "0").await;
    }
    append(&store, "c/1", "5").await;
    let saved = async {
        while store.row("sums", "c/1").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), saved)
        .await
        .expect("it follows the log");
    append(&store, "c/1", "0").await;
    following.abort();
    assert_eq!(caught_up::<Sums<1>>(&store).await.state().events, 32);
}

#[tokio::test]
async fn another_version_is_folded_from_the_start() {
    let store = fill(10).await;
    caught_up::<Sums<1>>(&store).await;
    let expected = rows(&store).await;
    let mut stale = store.row("sums", "a/1").await.unwrap().unwrap();
    stale.doc = json!(99);
    let mut gone = stale.clone();
    gone.key = "gone".to_owned();
    store.replace_rows("sums", vec![stale, gone]).await.unwrap();
    assert_eq!(caught_up::<Sums<2>>(&store).await.state().events, 10);
    assert_eq!(rows(&store).await, expected);
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_folded_from_the_start() {
    let log = fill(10).await;
    caught_up::<Sums<1>>(&log).await;
    let checkpoint = log.row("projection", "sums").await.unwrap().unwrap();
    let store = log.cut(4);
    let replaced = store.replace_rows("projection", vec![checkpoint]);
    replaced.await.unwrap();
    assert_eq!(caught_up::<Sums<1>>(&store).await.state().events, 4);
}

#[tokio::test]
async fn an_event_that_cant_be_read_stops_it_there() {
    let store = fill(3).await;
    append(&store, "a/1", "\"text\"").await;
    let mut runner = ProjectionRunner::<Sums<1>>::load(&store).await.unwrap();
    for _ in 0..2 {
        let stopped = runner.catch_up(&store).await;
        assert!(
            matches!(
                stopped,
                Err(ProjectionError::Unreadable { position: 4, .. })
            ),
            "{stopped:?}"
        );
    }
    assert_eq!(runner.state().events, 3);
}
