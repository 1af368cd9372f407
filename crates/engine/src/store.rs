//! The log as the engine needs it. SQLite implements it; PostgreSQL will.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use shipway_core::aggregate::Row;

/// Facts to be appended to one stream, with the caches that change with them. All of it is stored, or nothing.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream: `rollout/shop/7`. Its first segment is its kind.
    pub stream: String,
    /// The version the facts were decided at: the number of events in the stream.
    pub expected: u64,
    /// The facts as JSON, in order; never empty.
    pub events: Vec<String>,
    /// Rows of read models to be replaced.
    pub rows: Vec<Row>,
    /// The state after these facts, as a cache that may be deleted.
    pub snapshot: Option<String>,
    /// Whether the stream must be loaded at the next start.
    pub live: bool,
}

/// Why facts were not appended. Nothing of them is stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else was faster: reload and decide again.
    #[error("the stream is at version {actual}")]
    Conflict {
        /// The version it is at.
        actual: u64,
    },
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store can't do what was asked: disk, file, connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the event log failed: {0}")]
pub struct StoreError(pub String);

/// An event as the log tells it to subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the whole log, rising, with gaps.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream, from 1.
    pub version: u64,
    /// The event as JSON.
    pub event: String,
}

/// A state that was stored to shorten the next load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the stream it belongs to.
    pub version: u64,
    /// The state as JSON.
    pub state: String,
}

/// A page of a read model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowPage {
    /// The rows, the newest change first.
    pub rows: Vec<Row>,
    /// The cursor of the next page, when there is one.
    pub next: Option<u64>,
}

/// Events in the order of the log, for ever: what is stored first, then what comes.
pub type Subscription = BoxStream<'static, Result<Recorded, StoreError>>;

/// The log, its caches, its read models.
#[async_trait]
pub trait Store: Send + Sync {
    /// Appends to one stream. Acknowledged means durable: a crash before the answer may or may not have stored it, a crash
    /// after it has. Never stores a part.
    async fn append(&self, append: Append) -> Result<(), AppendError>;

    /// Whether facts can be appended: fails with the reason of the last append that failed, until one succeeds again. After a
    /// failure it tries to write, so that it recovers although nothing is appended. A store that can't fail has nothing to check.
    async fn check_appends(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes what was appended whole in the store's main file, so that a copy of that file is a backup. For the end of a process.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The events of a stream after `version`, in order. A crash loses nothing: it only reads.
    async fn read(&self, stream: &str, after: u64) -> Result<Vec<String>, StoreError>;

    /// The newest snapshot of a stream, if it has one.
    async fn snapshot(&self, stream: &str) -> Result<Option<Snapshot>, StoreError>;

    /// Forgets all snapshots: they are caches.
    async fn forget_snapshots(&self) -> Result<(), StoreError>;

    /// Forgets whole streams with their events and snapshots; only for streams whose facts may expire, see
    /// `shipway_core::keyed_request`. A stream that has the newest event of the log stays, so that no position is given twice. A crash
    /// forgets all of them or none.
    async fn forget_streams(&self, streams: Vec<String>) -> Result<(), StoreError>;

    /// The streams of a kind that must be loaded at the start.
    async fn live(&self, kind: &str) -> Result<Vec<String>, StoreError>;

    /// All streams of a kind.
    async fn streams(&self, kind: &str) -> Result<Vec<String>, StoreError>;

    /// All events after a position, then each new one; none missed, none twice. A slow reader holds nobody.
    async fn subscribe(&self, after: u64) -> Result<Subscription, StoreError>;

    /// The position of the newest event; 0 in an empty log.
    async fn last_position(&self) -> Result<u64, StoreError>;

    /// One row of a read model.
    async fn row(&self, kind: &str, key: &str) -> Result<Option<Row>, StoreError>;

    /// Rows of a kind, the newest change first: of one service, of those still moving, from a cursor on.
    async fn rows(
        &self,
        kind: &str,
        service: Option<&str>,
        live: bool,
        cursor: Option<u64>,
        limit: u32,
    ) -> Result<RowPage, StoreError>;

    /// Replaces rows outside of an append: for rebuilding read models, never for facts.
    async fn replace_rows(&self, kind: &str, rows: Vec<Row>) -> Result<(), StoreError>;

    /// All rows of a kind; for those that are few.
    async fn all_rows(&self, kind: &str) -> Result<Vec<Row>, StoreError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.rows(kind, None, false, cursor, 1_000).await?;
            all.extend(page.rows);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }
}
