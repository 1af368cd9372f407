//! Read models made anew from the events: they are caches.

use std::collections::BTreeMap;

use shipway_core::aggregate::{Aggregate, Event, Row};
use shipway_engine::{Store, StoreError};

/// Folds every stream of an aggregate again and replaces the rows it gives. Rows come in the order of the streams' last events.
pub async fn rebuild_rows<A: Aggregate>(store: &dyn Store) -> Result<usize, StoreError> {
    let mut by_kind: BTreeMap<String, BTreeMap<String, (usize, Row)>> = BTreeMap::new();
    let mut order = 0;
    for stream in store.streams(A::KIND).await? {
        let mut state = A::State::default();
        for text in store.read(&stream, 0).await? {
            let event: Event<A::Body> = serde_json::from_str(&text)
                .map_err(|error| StoreError(format!("{stream}: {error}")))?;
            A::apply(&mut state, &event);
            for row in A::rows(&state, std::slice::from_ref(&event)) {
                order += 1;
                by_kind
                    .entry(row.kind.clone())
                    .or_default()
                    .insert(row.key.clone(), (order, row));
            }
        }
    }
    let mut count = 0;
    for (kind, rows) in by_kind {
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|(order, _)| *order);
        count += rows.len();
        store
            .replace_rows(&kind, rows.into_iter().map(|(_, row)| row).collect())
            .await?;
    }
    Ok(count)
}
