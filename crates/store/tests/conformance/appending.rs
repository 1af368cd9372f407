//! Facts go in once, at the version they were decided at, and stay.

use std::sync::Arc;

use shipway_engine::{AppendError, Store};
use tokio::{sync::Barrier, task::JoinSet};

use super::{Place, changing, facts, row};

pub async fn what_was_appended_is_read_in_order(place: &impl Place) {
    let store = place.open();
    store.append(facts("run/1", 0, &["1", "2"])).await.unwrap();
    store.append(facts("run/1", 2, &["3"])).await.unwrap();
    assert_eq!(store.read("run/1", 0).await.unwrap(), ["1", "2", "3"]);
}

pub async fn reading_begins_after_the_version_asked_for(place: &impl Place) {
    let store = place.open();
    store
        .append(facts("run/1", 0, &["1", "2", "3"]))
        .await
        .unwrap();
    assert_eq!(store.read("run/1", 2).await.unwrap(), ["3"]);
    assert!(store.read("run/1", 3).await.unwrap().is_empty());
    assert!(store.read("run/1", 99).await.unwrap().is_empty());
}

pub async fn a_stream_that_nobody_wrote_is_empty(place: &impl Place) {
    let store = place.open();
    assert!(store.read("run/1", 0).await.unwrap().is_empty());
    assert_eq!(store.snapshot("run/1").await.unwrap(), None);
    assert_eq!(store.last_position().await.unwrap(), 0);
}

pub async fn texts_come_back_byte_by_byte(place: &impl Place) {
    let store = place.open();
    let events = [r#"{"b":1,"a":  "ä\u0000\n🚢"}"#, r#"{"n":0.1000}"#, "[]"];
    let stream = "run/ein Dienst/mit 'Namen' %_\"🚢\"";
    store.append(facts(stream, 0, &events)).await.unwrap();
    assert_eq!(store.read(stream, 0).await.unwrap(), events);
    assert_eq!(store.streams("run").await.unwrap(), [stream]);
    assert!(store.has_stream(stream).await.unwrap());
    assert!(!store.has_stream("run/ein Dienst").await.unwrap());
}

pub async fn one_append_may_hold_many_and_large_events(place: &impl Place) {
    let store = place.open();
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let mut events = vec!["{}"; 10_000];
    events.push(&large);
    store.append(facts("run/1", 0, &events)).await.unwrap();
    let read = store.read("run/1", 0).await.unwrap();
    assert_eq!((read.len(), read[10_000] == large), (10_001, true));
    assert!(is_conflict(
        store.append(facts("run/1", 10_000, &["{}"])).await,
        10_001
    ));
}

pub async fn an_append_at_another_version_is_refused_and_changes_nothing(place: &impl Place) {
    let store = place.open();
    store.append(facts("run/1", 0, &["1", "2"])).await.unwrap();
    let position = store.last_position().await.unwrap();
    for expected in [0, 1, 3, 1_000] {
        let refused = store.append(facts("run/1", expected, &["no"])).await;
        assert!(is_conflict(refused, 2), "expected {expected}");
    }
    assert_eq!(store.read("run/1", 0).await.unwrap(), ["1", "2"]);
    assert_eq!(store.last_position().await.unwrap(), position);
    store.append(facts("run/1", 2, &["3"])).await.unwrap();
}

pub async fn a_refused_append_leaves_no_stream_behind(place: &impl Place) {
    let store = place.open();
    let mut refused = facts("run/1", 1, &["2"]);
    refused.live = true;
    assert!(is_conflict(store.append(refused).await, 0));
    assert!(store.streams("run").await.unwrap().is_empty());
    assert!(store.live("run").await.unwrap().is_empty());
    store.append(facts("run/1", 0, &["1"])).await.unwrap();
}

pub async fn a_refused_append_does_not_hurt_those_beside_it(place: &impl Place) {
    let store = place.open();
    // Asked for at once, so that a store that groups appends has them in one group.
    let (first, refused, last) = tokio::join!(
        store.append(facts("run/1", 0, &["1"])),
        store.append(facts("run/2", 7, &["no"])),
        store.append(facts("run/3", 0, &["3"])),
    );
    assert!(first.is_ok() && last.is_ok());
    assert!(is_conflict(refused, 0));
    assert_eq!(store.read("run/1", 0).await.unwrap(), ["1"]);
    assert_eq!(store.read("run/3", 0).await.unwrap(), ["3"]);
}

pub async fn of_many_appends_at_one_version_exactly_one_wins(place: &impl Place) {
    const TASKS: usize = 32;
    const VERSIONS: u64 = 20;
    let store = place.open();
    let winners = race(&vec![store.clone(); TASKS], VERSIONS).await;
    assert_eq!(store.read("run/1", 0).await.unwrap(), winners);
}

pub async fn two_openings_that_race_never_both_win(place: &impl Place) {
    const VERSIONS: u64 = 50;
    let stores = [place.open(), place.open(), place.open()];
    let winners = race(&stores, VERSIONS).await;
    for store in stores {
        assert_eq!(store.read("run/1", 0).await.unwrap(), winners);
    }
}

/// Everybody appends at the same version at the same time, version after version. Gives who won, in order.
async fn race(stores: &[Arc<dyn Store>], versions: u64) -> Vec<String> {
    let barrier = Arc::new(Barrier::new(stores.len()));
    let mut tasks = JoinSet::new();
    for (index, store) in stores.iter().cloned().enumerate() {
        let barrier = barrier.clone();
        tasks.spawn(async move {
            let mut won = Vec::new();
            for version in 0..versions {
                barrier.wait().await;
                let event = format!("\"task {index}\"");
                match store.append(facts("run/1", version, &[&event])).await {
                    Ok(()) => won.push((version, event)),
                    Err(AppendError::Conflict { actual }) => assert_eq!(actual, version + 1),
                    Err(error) => panic!("{error}"),
                }
            }
            won
        });
    }
    let mut winners: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    winners.sort();
    let won: Vec<_> = winners.iter().map(|(version, _)| *version).collect();
    assert_eq!(won, (0..versions).collect::<Vec<_>>(), "one winner each");
    winners.into_iter().map(|(_, event)| event).collect()
}

pub async fn many_streams_appended_to_at_once_lose_nothing(place: &impl Place) {
    const STREAMS: u64 = 64;
    const APPENDS: u64 = 25;
    let store = place.open();
    let mut tasks = JoinSet::new();
    for number in 0..STREAMS {
        let store = store.clone();
        tasks.spawn(async move {
            let stream = format!("run/{number}");
            for index in 0..APPENDS {
                let events = [format!("{number}"), format!("{index}")];
                let events: Vec<&str> = events.iter().map(String::as_str).collect();
                store
                    .append(facts(&stream, index * 2, &events))
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    for number in 0..STREAMS {
        let expected: Vec<_> = (0..APPENDS)
            .flat_map(|index| [number.to_string(), index.to_string()])
            .collect();
        let read = store.read(&format!("run/{number}"), 0).await.unwrap();
        assert_eq!(read, expected);
    }
}

pub async fn an_opening_learns_what_another_has_appended(place: &impl Place) {
    let (one, other) = (place.open(), place.open());
    for version in 0..10 {
        let (ahead, behind) = if version % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        ahead.append(facts("run/1", version, &["1"])).await.unwrap();
        let late = behind.append(facts("run/1", version, &["no"])).await;
        assert!(is_conflict(late, version + 1));
        let neighbour = format!("run/beside {version}");
        behind.append(facts(&neighbour, 0, &["1"])).await.unwrap();
    }
    assert_eq!(one.read("run/1", 0).await.unwrap().len(), 10);
    assert_eq!(one.streams("run").await.unwrap().len(), 11);
}

pub async fn what_was_acknowledged_survives_a_reopening(place: &impl Place) {
    for version in 0..5 {
        let store = place.open();
        let row = row("run", "1", "shop", true, version);
        store
            .append(changing("run/1", version, vec![row.clone()]))
            .await
            .unwrap();
        drop(store);
        let store = place.open();
        let read = store.read("run/1", 0).await.unwrap();
        assert_eq!(read.len() as u64, version + 1);
        assert_eq!(store.row("run", "1").await.unwrap(), Some(row));
    }
}

fn is_conflict(result: Result<(), AppendError>, at: u64) -> bool {
    matches!(result, Err(AppendError::Conflict { actual }) if actual == at)
}
