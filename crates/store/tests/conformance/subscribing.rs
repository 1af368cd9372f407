//! The log told to readers: none missed, none twice, from wherever they left.

use futures_util::{FutureExt, StreamExt};
use shipway_engine::Recorded;
use tokio::task::JoinSet;

use super::{Place, facts, next, soon};

fn texts(events: &[Recorded]) -> Vec<&str> {
    events.iter().map(|event| event.event.as_str()).collect()
}

pub async fn a_subscription_tells_what_was_there_and_then_what_comes(place: &impl Place) {
    let store = place.open();
    store.append(facts("run/1", 0, &["1", "2"])).await.unwrap();
    let mut log = store.subscribe(0).await.unwrap();
    let there = next(&mut log, 2).await;
    assert_eq!(texts(&there), ["1", "2"]);
    assert_eq!((there[1].stream.as_str(), there[1].version), ("run/1", 2));
    assert!(there[0].position < there[1].position);

    assert!(log.next().now_or_never().is_none(), "there is no more yet");
    store.append(facts("rollout/1", 0, &["3"])).await.unwrap();
    let come = next(&mut log, 1).await;
    assert_eq!((come[0].stream.as_str(), come[0].version), ("rollout/1", 1));
    assert!(there[1].position < come[0].position);
}

pub async fn a_subscription_goes_on_where_it_was_left(place: &impl Place) {
    let store = place.open();
    store
        .append(facts("run/1", 0, &["1", "2", "3", "4"]))
        .await
        .unwrap();
    let all = next(&mut store.subscribe(0).await.unwrap(), 4).await;
    for (index, left) in all.iter().enumerate() {
        let mut log = store.subscribe(left.position).await.unwrap();
        let rest = next(&mut log, 3 - index).await;
        assert_eq!(rest, all[index + 1..]);
    }
}

pub async fn a_subscription_survives_a_reopening_by_its_position(place: &impl Place) {
    let mut seen: Vec<Recorded> = Vec::new();
    for version in 0..5 {
        let store = place.open();
        let position = seen.last().map_or(0, |event| event.position);
        let mut log = store.subscribe(position).await.unwrap();
        let text = version.to_string();
        store
            .append(facts("run/1", version * 2, &[&text, "unseen"]))
            .await
            .unwrap();
        // Only the first is read before the store goes: the second is told by the next one.
        let due = if version == 0 { 1 } else { 2 };
        seen.extend(next(&mut log, due).await);
    }
    let store = place.open();
    let all = next(&mut store.subscribe(0).await.unwrap(), 10).await;
    assert_eq!(seen, all[..9]);
}

pub async fn a_subscription_from_the_end_waits_for_what_comes(place: &impl Place) {
    let store = place.open();
    store.append(facts("run/1", 0, &["old"])).await.unwrap();
    let position = store.last_position().await.unwrap();
    let mut log = store.subscribe(position).await.unwrap();
    assert!(log.next().now_or_never().is_none());
    store.append(facts("run/1", 1, &["new"])).await.unwrap();
    assert_eq!(texts(&next(&mut log, 1).await), ["new"]);
}

pub async fn a_slow_reader_misses_nothing_and_holds_nobody(place: &impl Place) {
    const EVENTS: u64 = 3_000;
    let store = place.open();
    let mut slow = store.subscribe(0).await.unwrap();
    store.append(facts("run/1", 0, &["first"])).await.unwrap();
    next(&mut slow, 1).await;
    // It reads no further while all of this is written.
    for version in 1..EVENTS / 100 {
        let batch = vec!["{}"; 100];
        soon(store.append(facts("run/1", 1 + (version - 1) * 100, &batch)))
            .await
            .unwrap();
    }
    let rest = next(&mut slow, (EVENTS - 100) as usize).await;
    let versions: Vec<_> = rest.iter().map(|event| event.version).collect();
    assert_eq!(versions, (2..=EVENTS - 99).collect::<Vec<_>>());
}

pub async fn everybody_is_told_the_same_in_the_same_order(place: &impl Place) {
    const STREAMS: u64 = 16;
    const APPENDS: u64 = 20;
    let store = place.open();
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let mut log = store.subscribe(0).await.unwrap();
        readers.spawn(async move { next(&mut log, (STREAMS * APPENDS) as usize).await });
    }
    let mut writers = JoinSet::new();
    for number in 0..STREAMS {
        let store = store.clone();
        writers.spawn(async move {
            for version in 0..APPENDS {
                let append = facts(&format!("run/{number}"), version, &["{}"]);
                store.append(append).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let told = readers.join_all().await;
    let mut reference = store.subscribe(0).await.unwrap();
    let reference = next(&mut reference, (STREAMS * APPENDS) as usize).await;
    assert!(reference.is_sorted_by(|a, b| a.position < b.position));
    for number in 0..STREAMS {
        let stream = format!("run/{number}");
        let versions = reference
            .iter()
            .filter(|event| event.stream == stream)
            .map(|event| event.version);
        assert!(versions.eq(1..=APPENDS), "{stream}");
    }
    for told in told {
        assert_eq!(told, reference);
    }
}

pub async fn the_last_position_is_that_of_the_last_event(place: &impl Place) {
    let store = place.open();
    let mut log = store.subscribe(0).await.unwrap();
    for version in 0..3 {
        let append = facts("run/1", version * 2, &["1", "2"]);
        store.append(append).await.unwrap();
        let told = next(&mut log, 2).await;
        assert_eq!(store.last_position().await.unwrap(), told[1].position);
    }
}
