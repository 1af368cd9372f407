//! Connections for reading in blocking threads, and the queries that several parts of the store need.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use shipway_engine::{Recorded, StoreError};

use crate::schema;

/// Idle reader connections that are kept open.
const READERS_MAX: usize = 8;

/// Pages that a reader keeps in memory, in KiB. Small, as there are several readers and the system caches the file as well.
const READER_CACHE_KIB: i64 = 4_000;

/// A pool of connections for reading in blocking threads.
#[derive(Clone, Default)]
pub(crate) struct ReaderPool(Arc<Mutex<Vec<Connection>>>);

impl ReaderPool {
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        path: PathBuf,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let idle = self.0.clone();
        let work = move || {
            let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            let known = lock().pop();
            let connection = match known {
                Some(connection) => connection,
                None => {
                    let connection = Connection::open(&path)?;
                    schema::configure(&connection)?;
                    connection.pragma_update(None, "query_only", true)?;
                    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
                    connection
                }
            };
            let answer = query(&connection);
            let mut idle = lock();
            if idle.len() < READERS_MAX {
                idle.push(connection);
            }
            answer
        };
        let joined = tokio::task::spawn_blocking(work).await;
        joined
            .map_err(|error| StoreError(error.to_string()))?
            .map_err(store_error)
    }
}

/// Bytes of events that one query returns, but at least one event: each follower of the log holds one result, and may never read it.
const EVENT_BYTES_PER_QUERY: usize = 256 << 10;

/// Events after a position, at most `limit`, and only so many that their texts are not much larger than [`EVENT_BYTES_PER_QUERY`].
pub(crate) fn events_after(
    connection: &Connection,
    after: u64,
    limit: u32,
) -> rusqlite::Result<Vec<Recorded>> {
    let sql = "SELECT e.position, t.name, e.version, e.body FROM events e JOIN streams t ON t.id = e.stream WHERE e.position > ?1 ORDER BY e.position LIMIT ?2";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Recorded {
            position: row.get(0)?,
            stream: row.get(1)?,
            version: row.get(2)?,
            event: row.get(3)?,
        })
    };
    let mut query = connection.prepare_cached(sql)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    for event in query.query_map(params![after, limit], read)? {
        let event: Recorded = event?;
        bytes += event.event.len();
        events.push(event);
        if bytes >= EVENT_BYTES_PER_QUERY {
            break;
        }
    }
    Ok(events)
}

/// The error of the store for an error of SQLite, with what to do.
pub(crate) fn store_error(error: rusqlite::Error) -> StoreError {
    StoreError(match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => {
            "the disk is full; it continues when space is freed".to_owned()
        }
        Some(rusqlite::ErrorCode::ReadOnly) => "the file is read-only".to_owned(),
        _ => error.to_string(),
    })
}

/// The position of the first event that was recorded at this moment or later, by binary search: times in the log never go back. One more
/// than the last position if there is none.
pub(crate) fn find_position(connection: &Connection, at: Timestamp) -> rusqlite::Result<u64> {
    let last: u64 = connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM events")?
        .query_row([], |row| row.get(0))?;
    let (mut low, mut high) = (1, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        // Positions have gaps where streams were removed.
        let found = events_after(connection, middle - 1, 1)?;
        let Some(event) = found.first() else {
            high = middle;
            continue;
        };
        match event.recorded_at().is_none_or(|moment| moment < at) {
            true => low = event.position + 1,
            false => high = middle,
        }
    }
    Ok(low)
}
