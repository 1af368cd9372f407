//! Read models made anew are those that were there, in the same order.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shipway_core::aggregate::{Actor, Aggregate, Event, PendingWork, ViewRow};
use shipway_engine::{
    Driver, Engine, MemoryStore, Options, RealClock, RowQuery, RowScope, Store, Work,
};
use shipway_store::{SqliteOptions, SqliteStore, rebuild_rows};

/// A shelf: what is put on it, each thing a row of its own, and the shelf a row.
struct Shelves;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Shelf {
    name: String,
    things: Vec<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Body {
    Put { shelf: String, thing: u32 },
    Dusted,
}

#[derive(Clone, Debug)]
enum Input {
    Put(String, Vec<u32>),
    Dust,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Shelves {
    const KIND: &'static str = "shelf";
    type State = Shelf;
    type Body = Body;
    type Input = Input;
    type Effect = ();
    type Rejection = Never;

    fn decide(
        _: &Shelf,
        input: Input,
        by: Actor,
        at: Timestamp,
    ) -> Result<Vec<Event<Body>>, Never> {
        let bodies = match input {
            Input::Put(shelf, things) => {
                let put = |thing| Body::Put {
                    shelf: shelf.clone(),
                    thing,
                };
                things.into_iter().map(put).collect()
            }
            Input::Dust => vec![Body::Dusted],
        };
        let event = |body| Event {
            at,
            by: by.clone(),
            body,
        };
        Ok(bodies.into_iter().map(event).collect())
    }

    fn apply(state: &mut Shelf, event: &Event<Body>) {
        if let Body::Put { shelf, thing } = &event.body {
            state.name.clone_from(shelf);
            state.things.push(*thing);
        }
    }

    fn pending(_: &Shelf, _: Timestamp) -> PendingWork<()> {
        PendingWork::nothing()
    }

    fn rows(state: &Shelf, events: &[Event<Body>]) -> Vec<ViewRow> {
        let row = |kind: &str, key: String, doc| ViewRow {
            kind: kind.to_owned(),
            key,
            service: state.name.clone(),
            live: state.things.len() < 3,
            doc,
        };
        let put = events.iter().filter_map(|event| match &event.body {
            Body::Put { thing, .. } => {
                Some(row("thing", thing.to_string(), json!({ "thing": thing })))
            }
            Body::Dusted => None,
        });
        let shelf = row("shelf", state.name.clone(), json!(state.things));
        put.chain([shelf]).collect()
    }

    fn timer_fired() -> Input {
        Input::Dust
    }
}

struct Nobody;

#[async_trait::async_trait]
impl Driver<Shelves> for Nobody {
    async fn carry_out(&self, _: Work<Shelves>) -> Input {
        unreachable!("a shelf asks for nothing")
    }
}

async fn fill(store: Arc<dyn Store>) {
    let clock = Arc::new(RealClock::default());
    let engine: Engine<Shelves> = Engine::start(store, Arc::new(Nobody), clock, Options::default());
    let say = async |shelf: &str, input| {
        let by = shipway_core::access::Principal::person("ada").actor();
        engine
            .send(&format!("shelf/{shelf}"), input, by)
            .await
            .unwrap();
    };
    for number in 0..30u32 {
        let shelf = ["a", "b", "c"][number as usize % 3];
        let things = vec![number * 10, number * 10 + 1];
        say(shelf, Input::Put(shelf.to_owned(), things)).await;
    }
    // The first shelf changes last: lists show it first.
    say("b", Input::Put("b".to_owned(), vec![11, 10])).await;
    say("a", Input::Dust).await;
    engine.stop().await;
}

/// Everything lists show.
async fn lists(store: &dyn Store) -> Vec<Vec<ViewRow>> {
    let mut lists = Vec::new();
    for kind in ["shelf", "thing", "other"] {
        for service in [None, Some("a"), Some("b")] {
            for scope in [RowScope::All, RowScope::Live] {
                let query = RowQuery {
                    service,
                    scope,
                    ..RowQuery::new(kind)
                };
                let page = store.rows(query).await.unwrap();
                lists.push(page.rows);
            }
        }
    }
    lists
}

async fn rebuilding_changes_nothing(store: Arc<dyn Store>) {
    fill(store.clone()).await;
    let before = lists(&*store).await;
    assert_eq!((before[0].len(), before[6].len()), (3, 60));
    assert_eq!(
        (before[0][0].key.as_str(), before[6][0].key.as_str()),
        ("a", "10")
    );
    for _ in 0..2 {
        assert_eq!(rebuild_rows::<Shelves>(&*store).await.unwrap(), 63);
        assert!(lists(&*store).await == before);
    }
    // Deleted and damaged rows come back as well.
    store.replace_rows("thing", Vec::new()).await.unwrap();
    let mut damaged = before[0].clone();
    damaged[0].doc = json!("damaged");
    store.replace_rows("shelf", damaged).await.unwrap();
    rebuild_rows::<Shelves>(&*store).await.unwrap();
    assert!(lists(&*store).await == before);
}

#[tokio::test]
async fn rebuilding_gives_the_rows_that_were_there_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shipway.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    rebuilding_changes_nothing(Arc::new(store)).await;
}

#[tokio::test]
async fn rebuilding_in_memory_does_the_same() {
    rebuilding_changes_nothing(Arc::new(MemoryStore::default())).await;
}

#[tokio::test]
async fn rebuilding_an_empty_log_is_nothing() {
    let store = MemoryStore::default();
    assert_eq!(rebuild_rows::<Shelves>(&store).await.unwrap(), 0);
}
