//! The log in one SQLite file: one writer thread, concurrent readers.

use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use shipway_core::aggregate::ViewRow;
use shipway_engine::{
    Append, AppendError, OrderedRow, ProjectionSave, RowPage, RowQuery, Snapshot, Store,
    StoreError, Subscription,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    reader_pool::{ReaderPool, find_position},
    row_reading::RowReading,
    schema::{self, FileKind},
    stored_row::read_row,
    subscribe,
    writer::{self, LastFailure, WriterJob},
};

/// Queued jobs of the writer; callers wait beyond that.
const QUEUE: usize = 4_096;

/// Options of a store. The defaults are for servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteOptions {
    /// For tests of crashes: the process aborts right after this many events are durable.
    pub crash_after_events: Option<u64>,
    /// For tests of full disks: limit of pages in the file.
    pub pages_max: Option<u32>,
}

/// Why a file can't be opened as a log.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer Shipway wrote it.
    #[error(
        "{path} has schema version {found}, but this binary supports {known}: use the newer shipway that wrote it; nothing was changed"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
        /// The version of this binary.
        known: i64,
    },
    /// It is the database of another program.
    #[error(
        "{path} can't be opened as an event log: it is the database of another program; nothing was changed"
    )]
    Foreign {
        /// The file.
        path: String,
    },
    /// It is not a database, is damaged, or the disk fails.
    #[error("{path} can't be opened as an event log: {source}")]
    Sqlite {
        /// The file.
        path: String,
        /// SQLite's error.
        source: rusqlite::Error,
    },
}

/// The log in one SQLite file. Only one process may use it: see [`crate::DataDir`].
pub struct SqliteStore {
    path: PathBuf,
    jobs: mpsc::Sender<WriterJob>,
    readers: ReaderPool,
    position: watch::Receiver<u64>,
    failure: LastFailure,
}

impl SqliteStore {
    /// Opens the file, creating it if missing.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Sqlite {
            path: path.display().to_string(),
            source,
        };
        let is_new = !path.exists();
        if is_new {
            create_private(path);
        }
        let connection = Connection::open(path).map_err(failed)?;
        let shown = || path.display().to_string();
        match schema::inspect_file(&connection).map_err(failed)? {
            FileKind::Newer(found) => {
                return Err(OpenError::Newer {
                    path: shown(),
                    found,
                    known: schema::VERSION,
                });
            }
            FileKind::Foreign => return Err(OpenError::Foreign { path: shown() }),
            FileKind::Empty => {
                schema::configure(&connection).map_err(failed)?;
                schema::create_tables(&connection).map_err(failed)?;
            }
            FileKind::Current => schema::configure(&connection).map_err(failed)?,
            FileKind::First => {
                schema::configure(&connection).map_err(failed)?;
                schema::add_facets(&connection).map_err(failed)?;
            }
        }
        if is_new && let Some(folder) = path.parent() {
            // Make the file's name durable as well.
            let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        }
        if let Some(pages) = options.pages_max {
            connection
                .pragma_update(None, "max_page_count", pages)
                .map_err(failed)?;
        }
        let last = writer::last_position(&connection).map_err(failed)?;
        let (position_sender, position) = watch::channel(last);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let failure = LastFailure::default();
        writer::start_writer(
            connection,
            queue,
            position_sender,
            failure.clone(),
            options.crash_after_events,
        );
        Ok(Self {
            path: path.to_owned(),
            jobs,
            readers: ReaderPool::default(),
            position,
            failure,
        })
    }

    async fn send_job<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<T>) -> WriterJob,
    ) -> Result<T, StoreError> {
        let gone = || StoreError("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.query(self.path.clone(), query).await
    }
}

/// Creates the file with mode 0600; SQLite gives its companion files the same mode. A failure is reported when it is opened.
fn create_private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
}

/// Whether the file is a log with at least one event. Changes neither the file nor its write-ahead log.
pub(crate) fn has_events(path: &Path) -> rusqlite::Result<bool> {
    if std::fs::metadata(path).map_or(0, |it| it.len()) == 0 {
        return Ok(false);
    }
    let connection = Connection::open(path)?;
    match schema::inspect_file(&connection)? {
        FileKind::Empty => Ok(false),
        FileKind::Current | FileKind::First => Ok(writer::last_position(&connection)? > 0),
        FileKind::Newer(_) | FileKind::Foreign => Ok(true),
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.send_job(|reply| WriterJob::Append {
            append: Box::new(append),
            reply,
        })
        .await?
    }

    async fn check_appends(&self) -> Result<(), StoreError> {
        let is_well = || {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.is_none()
        };
        if is_well() {
            return Ok(());
        }
        self.send_job(|reply| WriterJob::Probe { reply }).await?
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.send_job(|reply| WriterJob::Checkpoint { reply })
            .await?
    }

    async fn read(&self, stream: &str, after: u64) -> Result<Vec<String>, StoreError> {
        let stream = stream.to_owned();
        self.query(move |connection| {
            let sql = "SELECT body FROM events WHERE stream = (SELECT id FROM streams WHERE name = ?1) AND version > ?2 ORDER BY version";
            connection.prepare_cached(sql)?.query_map(params![stream, after], |row| row.get(0))?.collect()
        })
        .await
    }

    async fn snapshot(&self, stream: &str) -> Result<Option<Snapshot>, StoreError> {
        let stream = stream.to_owned();
        self.query(move |connection| {
            let sql = "SELECT s.version, s.state FROM snapshots s JOIN streams t ON t.id = s.stream WHERE t.name = ?1";
            let read = |row: &rusqlite::Row<'_>| Ok(Snapshot { version: row.get(0)?, state: row.get(1)? });
            connection.prepare_cached(sql)?.query_row([stream], read).optional()
        })
        .await
    }

    async fn forget_snapshots(&self) -> Result<(), StoreError> {
        self.send_job(|reply| WriterJob::ForgetSnapshots { reply })
            .await?
    }

    async fn forget_streams(&self, streams: Vec<String>) -> Result<(), StoreError> {
        self.send_job(|reply| WriterJob::ForgetStreams { streams, reply })
            .await?
    }

    async fn live(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        let kind = kind.to_owned();
        self.query(move |connection| {
            let sql = "SELECT name FROM streams WHERE kind = ?1 AND live = 1 ORDER BY id";
            connection
                .prepare_cached(sql)?
                .query_map([kind], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn streams(&self, kind: &str) -> Result<Vec<String>, StoreError> {
        let kind = kind.to_owned();
        self.query(move |connection| {
            connection
                .prepare_cached("SELECT name FROM streams WHERE kind = ?1 ORDER BY id")?
                .query_map([kind], |row| row.get(0))?
                .collect()
        })
        .await
    }

    async fn has_stream(&self, stream: &str) -> Result<bool, StoreError> {
        let stream = stream.to_owned();
        self.query(move |connection| {
            connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM streams WHERE name = ?1)")?
                .query_row([stream], |row| row.get(0))
        })
        .await
    }

    async fn subscribe(&self, after: u64) -> Result<Subscription, StoreError> {
        Ok(subscribe::stream_events(
            self.readers.clone(),
            self.path.clone(),
            self.position.clone(),
            after,
        ))
    }

    async fn last_position(&self) -> Result<u64, StoreError> {
        Ok(*self.position.borrow())
    }

    async fn row(&self, kind: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
        let (kind, key) = (kind.to_owned(), key.to_owned());
        self.query(move |connection| {
            let sql = "SELECT kind, key, service, live, doc FROM rows WHERE kind = ?1 AND key = ?2";
            connection
                .prepare_cached(sql)?
                .query_row([kind, key], read_row)
                .optional()
        })
        .await
    }

    async fn rows(&self, query: RowQuery<'_>) -> Result<RowPage, StoreError> {
        let reading = RowReading::new(&query);
        self.query(move |connection| reading.read_page(connection))
            .await
    }

    async fn position_at(&self, at: Timestamp) -> Result<u64, StoreError> {
        self.query(move |connection| find_position(connection, at))
            .await
    }

    async fn replace_ordered_rows(
        &self,
        kind: &str,
        rows: Vec<OrderedRow>,
    ) -> Result<(), StoreError> {
        let kind = kind.to_owned();
        self.send_job(|reply| WriterJob::ReplaceRows { kind, rows, reply })
            .await?
    }

    async fn save_projection(&self, save: ProjectionSave) -> Result<(), StoreError> {
        let save = Box::new(save);
        self.send_job(|reply| WriterJob::SaveProjection { save, reply })
            .await?
    }
}
