//! The interface of the event log.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use shipway_core::aggregate::ViewRow;

/// Events to append to one stream, with the caches that change with them. Stored completely or not at all.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream, such as `rollout/shop/7`. The first segment is its kind.
    pub stream: String,
    /// The version at which the events were decided: the number of events in the stream.
    pub expected: u64,
    /// The events as JSON, in order; never empty.
    pub events: Vec<String>,
    /// Changed rows of read models.
    pub rows: Vec<ViewRow>,
    /// The state after these events, as a cache that may be deleted.
    pub snapshot: Option<String>,
    /// Whether the stream must be loaded at the next start.
    pub live: bool,
}

/// Why events were not appended. None of them is stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The stream has changed: reload and decide again.
    #[error("the stream is at version {actual}")]
    Conflict {
        /// The current version.
        actual: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which rows of a read model are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowScope {
    /// Every row.
    All,
    /// The rows whose aggregate is in progress.
    Live,
}

/// The store failed: disk, file or connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the event log failed: {0}")]
pub struct StoreError(pub String);

/// An event as delivered to subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Position in the log; increasing, with gaps.
    pub position: u64,
    /// The stream.
    pub stream: String,
    /// Position in the stream, from 1.
    pub version: u64,
    /// The event as JSON.
    pub event: String,
}

/// A stored state that shortens the next load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the stream.
    pub version: u64,
    /// The state as JSON.
    pub state: String,
}

/// A page of a read model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowPage {
    /// The rows, the newest change first.
    pub rows: Vec<ViewRow>,
    /// The cursor of the next page, if there is one.
    pub next: Option<u64>,
}

/// An endless stream of events in log order: stored ones first, then new ones.
pub type Subscription = BoxStream<'static, Result<Recorded, StoreError>>;

/// The event log with its caches and read models.
#[async_trait]
pub trait Store: Send + Sync {
    /// Appends to one stream, completely or not at all. The events are durable when this returns; a crash before that may or may
    /// not have stored them.
    async fn append(&self, append: Append) -> Result<(), AppendError>;

    /// Checks that events can be appended: fails with the reason of the last failed append until one succeeds. After a failure
    /// it writes a test row, so that it recovers without an append. A store that can't fail has nothing to check.
    async fn check_appends(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Moves all events into the store's main file, so that a copy of that file is a backup. Called at shutdown.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The events of a stream after a version, in order. Only reads, so a crash has no effect.
    async fn read(&self, stream: &str, after: u64) -> Result<Vec<String>, StoreError>;

    /// The newest snapshot of a stream, if it has one.
    async fn snapshot(&self, stream: &str) -> Result<Option<Snapshot>, StoreError>;

    /// Deletes all snapshots, which are caches.
    async fn forget_snapshots(&self) -> Result<(), StoreError>;

    /// Deletes streams with their events and snapshots; only for streams whose events may expire, see
    /// `shipway_core::keyed_request`. The stream with the newest event of the log stays, so that no position is reused. A crash
    /// deletes all of them or none.
    async fn forget_streams(&self, streams: Vec<String>) -> Result<(), StoreError>;

    /// The streams of a kind that must be loaded at startup.
    async fn live(&self, kind: &str) -> Result<Vec<String>, StoreError>;

    /// All streams of a kind.
    async fn streams(&self, kind: &str) -> Result<Vec<String>, StoreError>;

    /// All events after a position, then each new one, exactly once. A slow reader blocks no one else.
    async fn subscribe(&self, after: u64) -> Result<Subscription, StoreError>;

    /// The position of the newest event; 0 in an empty log.
    async fn last_position(&self) -> Result<u64, StoreError>;

    /// One row of a read model.
    async fn row(&self, kind: &str, key: &str) -> Result<Option<ViewRow>, StoreError>;

    /// Rows of a kind, the newest change first, optionally of one service, and from a cursor.
    async fn rows(
        &self,
        kind: &str,
        service: Option<&str>,
        scope: RowScope,
        cursor: Option<u64>,
        limit: u32,
    ) -> Result<RowPage, StoreError>;

    /// Replaces rows without an append, to rebuild read models.
    async fn replace_rows(&self, kind: &str, rows: Vec<ViewRow>) -> Result<(), StoreError>;

    /// All rows of a kind; for small read models.
    async fn all_rows(&self, kind: &str) -> Result<Vec<ViewRow>, StoreError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.rows(kind, None, RowScope::All, cursor, 1_000).await?;
            all.extend(page.rows);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }
}
