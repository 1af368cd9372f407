//! Rebuilds read models, which are caches, from the events.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt;
use shipway_core::{
    aggregate::{Aggregate, Event, ViewRow},
    projection::LogProjection,
};
use shipway_engine::{OrderedRow, ProjectionError, ProjectionRunner, Store, StoreError, row_order};

/// When a row was last changed, or created: position of the event, and index among its rows.
type RowChange = (u64, u64);

/// Folds every stream of an aggregate again and replaces its rows, in the order of their last changes, so that lists keep their
/// order. Nothing may append to the log meanwhile.
pub async fn rebuild_rows<A: Aggregate>(store: &dyn Store) -> Result<usize, StoreError> {
    let positions = event_positions(store, A::KIND).await?;
    let mut by_kind: BTreeMap<String, HashMap<String, (RowChange, ViewRow)>> = BTreeMap::new();
    for (stream, positions) in positions {
        let mut state = A::State::default();
        let events = store.read(&stream, 0).await?;
        for (text, position) in events.iter().zip(positions) {
            let event: Event<A::Body> = serde_json::from_str(text)
                .map_err(|error| StoreError(format!("{stream}: {error}")))?;
            A::apply(&mut state, &event);
            let rows = A::rows(&state, std::slice::from_ref(&event));
            for (index, row) in (0..).zip(rows) {
                let rows = by_kind.entry(row.kind.clone()).or_default();
                let known = rows.get(&row.key).map(|(place, _)| *place);
                let place = known.filter(|_| row.is_listed_by_creation());
                rows.insert(row.key.clone(), (place.unwrap_or((position, index)), row));
            }
        }
    }
    let mut count = 0;
    for (kind, rows) in by_kind {
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|(changed, _)| *changed);
        count += rows.len();
        let ordered = rows.into_iter().map(|((position, index), row)| OrderedRow {
            order: row_order(position, index),
            row,
        });
        store.replace_ordered_rows(&kind, ordered.collect()).await?;
    }
    Ok(count)
}

/// Folds the whole log into a projection again and replaces its rows; returns how many there are.
pub async fn rebuild_projection<P: LogProjection>(
    store: &dyn Store,
) -> Result<usize, ProjectionError> {
    ProjectionRunner::<P>::from_start().catch_up(store).await?;
    Ok(store.all_rows(P::NAME).await?.len())
}

/// The positions of the events of each stream of a kind.
async fn event_positions(
    store: &dyn Store,
    kind: &str,
) -> Result<BTreeMap<String, Vec<u64>>, StoreError> {
    let last = store.last_position().await?;
    let mut positions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut log = store.subscribe(0).await?;
    let mut at = 0;
    while at < last {
        let Some(event) = log.next().await.transpose()? else {
            break;
        };
        at = event.position;
        if event.stream.split('/').next() != Some(kind) {
            continue;
        }
        match positions.get_mut(&event.stream) {
            Some(known) => known.push(at),
            None => drop(positions.insert(event.stream, vec![at])),
        }
    }
    Ok(positions)
}
