//! The interface of the event log.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_core::{aggregate::ViewRow, ids::ServiceName, row_facets::RowFacet};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowScope {
    /// Every row.
    #[default]
    All,
    /// The rows whose aggregate is in progress.
    Live,
}

/// A condition on a text or number in the document of a row. `path` names it by fields with dots between them: `commit.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFilter<'a> {
    /// As text it is `value`.
    Equals {
        /// Where it is.
        path: &'a str,
        /// The whole text.
        value: &'a str,
    },
    /// As text it starts with `prefix`.
    StartsWith {
        /// Where it is.
        path: &'a str,
        /// The start of the text.
        prefix: &'a str,
    },
}

/// The indexed properties that rows must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowFacets<'a> {
    /// The status.
    pub state: Option<&'a str>,
    /// The environment.
    pub environment: Option<&'a str>,
    /// The branch.
    pub branch: Option<&'a str>,
    /// Who pushed it or asked for it; case and address don't count.
    pub person: Option<&'a str>,
}

impl RowFacets<'_> {
    /// The facets that are given, with their values as stores compare them.
    #[must_use]
    pub fn normalized(&self) -> Vec<(RowFacet, String)> {
        let given = RowFacet::ALL.map(|facet| match facet {
            RowFacet::State => (facet, self.state),
            RowFacet::Environment => (facet, self.environment),
            RowFacet::Branch => (facet, self.branch),
            RowFacet::Person => (facet, self.person),
        });
        let given = given.into_iter();
        given
            .filter_map(|(facet, value)| Some((facet, facet.normalize(value?))))
            .collect()
    }
}

/// The order number of a row in lists: the position of its last change (or of its creation) in the log, then its index among the rows of
/// that change. Cursors are such numbers.
#[must_use]
pub const fn row_order(position: u64, index: u64) -> u64 {
    /// Rows of one append that can be ordered.
    const ROWS_MAX: u64 = 1 << 16;
    let index = if index < ROWS_MAX {
        index
    } else {
        ROWS_MAX - 1
    };
    position.saturating_mul(ROWS_MAX).saturating_add(index)
}

/// A row with its order number, to rebuild a read model.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderedRow {
    /// See [`row_order`].
    pub order: u64,
    /// The row.
    pub row: ViewRow,
}

/// The rows that are read: one page of a list. The store applies all conditions, so that a page is full unless it is the last one.
#[derive(Clone, Copy, Debug)]
pub struct RowQuery<'a> {
    /// The kind of the rows.
    pub kind: &'a str,
    /// Only those of this service.
    pub service: Option<&'a str>,
    /// Only those of services that the reader may see; none when it may see all rows.
    pub visible: Option<&'a BTreeSet<ServiceName>>,
    /// Whether rows of ended aggregates are read.
    pub scope: RowScope,
    /// Only those with these properties. An index finds them.
    pub facets: RowFacets<'a>,
    /// Only those with this in their document. The rows that the other conditions leave are searched for it.
    pub filter: Option<RowFilter<'a>>,
    /// Only those with this order number or a higher one: see [`row_order`].
    pub floor: Option<u64>,
    /// `next` of the page before.
    pub cursor: Option<u64>,
    /// The number of rows on a page.
    pub limit: u32,
}

impl<'a> RowQuery<'a> {
    /// Rows of a page when all pages are read.
    const LIMIT: u32 = 1_000;

    /// All rows of a kind, from the first page.
    #[must_use]
    pub const fn new(kind: &'a str) -> Self {
        Self {
            kind,
            service: None,
            visible: None,
            scope: RowScope::All,
            facets: RowFacets {
                state: None,
                environment: None,
                branch: None,
                person: None,
            },
            filter: None,
            floor: None,
            cursor: None,
            limit: Self::LIMIT,
        }
    }
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

impl Recorded {
    /// When it was recorded; none if the event can't be read.
    #[must_use]
    pub fn recorded_at(&self) -> Option<Timestamp> {
        /// What every event has.
        #[derive(Deserialize)]
        struct EventTime {
            at: Timestamp,
        }
        let time = serde_json::from_str::<EventTime>(&self.event);
        time.ok().map(|time| time.at)
    }
}

/// A stored state that shortens the next load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the stream.
    pub version: u64,
    /// The state as JSON.
    pub state: String,
}

/// How far a projection has folded the log, and what it remembers there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectionCheckpoint {
    /// [`shipway_core::projection::LogProjection::VERSION`] of the fold.
    pub version: u32,
    /// The position of the last event folded.
    pub position: u64,
    /// The projection's value as JSON.
    pub state: serde_json::Value,
}

/// What becomes of the rows that a projection saved before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlierRows {
    /// They stay unless a new one has the same key.
    Keep,
    /// The log is folded anew.
    Delete,
}

/// A checkpoint with the rows that belong to it. Stored completely or not at all.
#[derive(Clone, Debug)]
pub struct ProjectionSave {
    /// The projection's name, which is the kind of its rows.
    pub name: String,
    /// What the rows belong to.
    pub checkpoint: ProjectionCheckpoint,
    /// What becomes of the rows of earlier saves.
    pub earlier: EarlierRows,
    /// Changed rows.
    pub rows: Vec<ViewRow>,
}

impl ProjectionSave {
    /// Kind of the rows that hold checkpoints.
    pub const CHECKPOINTS: &str = "projection";

    /// The row that holds the checkpoint.
    #[must_use]
    pub fn checkpoint_row(&self) -> ViewRow {
        ViewRow {
            kind: Self::CHECKPOINTS.to_owned(),
            key: self.name.clone(),
            service: String::new(),
            live: false,
            doc: serde_json::to_value(&self.checkpoint).expect("a checkpoint is plain data"),
        }
    }
}

/// A page of a read model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowPage {
    /// The rows, the newest change first; those that keep their place, the newest first.
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

    /// Whether a stream has events.
    async fn has_stream(&self, stream: &str) -> Result<bool, StoreError>;

    /// All events after a position, then each new one, exactly once. A slow reader blocks no one else.
    async fn subscribe(&self, after: u64) -> Result<Subscription, StoreError>;

    /// The position of the newest event; 0 in an empty log.
    async fn last_position(&self) -> Result<u64, StoreError>;

    /// One row of a read model.
    async fn row(&self, kind: &str, key: &str) -> Result<Option<ViewRow>, StoreError>;

    /// A page of rows, the newest change first; those that keep their place, the newest first.
    async fn rows(&self, query: RowQuery<'_>) -> Result<RowPage, StoreError>;

    /// The position of the first event that was recorded at this moment or later; one more than the last position if there is none.
    async fn position_at(&self, at: Timestamp) -> Result<u64, StoreError>;

    /// Replaces rows without an append, to rebuild read models. They keep the order numbers that are given.
    async fn replace_ordered_rows(
        &self,
        kind: &str,
        rows: Vec<OrderedRow>,
    ) -> Result<(), StoreError>;

    /// Replaces rows without an append. Their order is the order of the list, the last one the newest; all are older than any append.
    async fn replace_rows(&self, kind: &str, rows: Vec<ViewRow>) -> Result<(), StoreError> {
        let ordered = (0..).zip(rows).map(|(index, row)| OrderedRow {
            order: row_order(0, index),
            row,
        });
        self.replace_ordered_rows(kind, ordered.collect()).await
    }

    /// Stores rows of a projection and its checkpoint in one transaction: a crash leaves both or neither, so that no event counts twice
    /// and none is lost.
    async fn save_projection(&self, save: ProjectionSave) -> Result<(), StoreError>;

    /// The last saved checkpoint of a projection. None where another build wrote what can't be read.
    async fn projection_checkpoint(
        &self,
        name: &str,
    ) -> Result<Option<ProjectionCheckpoint>, StoreError> {
        let row = self.row(ProjectionSave::CHECKPOINTS, name).await?;
        Ok(row.and_then(|row| serde_json::from_value(row.doc).ok()))
    }

    /// All rows of a kind; for small read models.
    async fn all_rows(&self, kind: &str) -> Result<Vec<ViewRow>, StoreError> {
        self.rows_of_all_pages(RowQuery::new(kind)).await
    }

    /// The rows of a page and of all pages after it; for small read models.
    async fn rows_of_all_pages(&self, query: RowQuery<'_>) -> Result<Vec<ViewRow>, StoreError> {
        let (mut all, mut page_query) = (Vec::new(), query);
        loop {
            let page = self.rows(page_query).await?;
            all.extend(page.rows);
            match page.next {
                Some(_) => page_query.cursor = page.next,
                None => return Ok(all),
            }
        }
    }
}
