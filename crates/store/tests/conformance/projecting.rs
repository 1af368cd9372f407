//! Rows of projections are stored with the position that they belong to.

use serde_json::json;
use shipway_engine::{EarlierRows, ProjectionCheckpoint, ProjectionSave, RowQuery, Store};

use super::{Place, facts, row};

fn save(position: u64, earlier: EarlierRows, rows: &[(&str, u64)]) -> ProjectionSave {
    let row = |(key, value): &(&str, u64)| row("counts", key, "shop", false, *value);
    ProjectionSave {
        name: "counts".to_owned(),
        checkpoint: ProjectionCheckpoint {
            version: 1,
            position,
            state: json!({ "folded": position }),
        },
        earlier,
        rows: rows.iter().map(row).collect(),
    }
}

/// Keys and values of the projection's rows, the newest change first.
async fn counts(store: &dyn Store) -> Vec<(String, u64)> {
    let rows = store.all_rows("counts").await.unwrap().into_iter();
    rows.map(|row| (row.key, row.doc["value"].as_u64().unwrap()))
        .collect()
}

fn values(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let value = |(key, value): &(&str, u64)| ((*key).to_owned(), *value);
    expected.iter().map(value).collect()
}

pub async fn a_projection_has_the_rows_and_the_checkpoint_of_its_last_save(place: &impl Place) {
    let store = place.open();
    assert_eq!(store.projection_checkpoint("counts").await.unwrap(), None);
    store
        .append(facts("run/1", 0, &["1", "2", "3"]))
        .await
        .unwrap();
    let first = save(1, EarlierRows::Keep, &[("a", 1), ("b", 1)]);
    store.save_projection(first).await.unwrap();
    let second = save(2, EarlierRows::Keep, &[("a", 2)]);
    store.save_projection(second.clone()).await.unwrap();
    let store = place.open();
    let found = store.projection_checkpoint("counts").await.unwrap();
    assert_eq!(found, Some(second.checkpoint));
    assert_eq!(counts(&*store).await, values(&[("a", 2), ("b", 1)]));
    assert_eq!(store.projection_checkpoint("other").await.unwrap(), None);
}

pub async fn a_projection_that_begins_anew_loses_its_own_rows_alone(place: &impl Place) {
    let store = place.open();
    let other = row("other", "a", "shop", false, 7);
    store
        .replace_rows("other", vec![other.clone()])
        .await
        .unwrap();
    let first = save(5, EarlierRows::Keep, &[("a", 1), ("b", 1)]);
    store.save_projection(first).await.unwrap();
    let anew = save(1, EarlierRows::Delete, &[("b", 9)]);
    store.save_projection(anew.clone()).await.unwrap();
    assert_eq!(counts(&*store).await, values(&[("b", 9)]));
    let found = store.projection_checkpoint("counts").await.unwrap();
    assert_eq!(found, Some(anew.checkpoint));
    let page = store.rows(RowQuery::new("other")).await.unwrap();
    assert_eq!(page.rows, [other]);
}
