//! The only writer: a thread that takes all queued jobs, stores their appends in one transaction with one fsync, and replies.
//!
//! # Why
//!
//! An fsync costs about a millisecond. Group commit lets concurrent appends share one.
//!
//! # Invariants
//!
//! - A reply is sent after the commit.
//! - A conflict of one append doesn't affect the others of its group.
//!
//! # Failure modes
//!
//! The transaction fails: all appends of the group fail, and cached versions are discarded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use shipway_core::{aggregate::ViewRow, row_facets::RowFacet};
use shipway_engine::{
    Append, AppendError, EarlierRows, OrderedRow, ProjectionSave, StoreError, row_order,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::reader_pool::store_error;

/// Most jobs per transaction.
const GROUP_MAX: usize = 1_024;
/// Longest wait for a group: about one commit on a good disk.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// Interval of checking for expected jobs.
const GATHER_STEP: Duration = Duration::from_micros(20);
/// Cached stream versions; the cache is cleared when it is full.
const KNOWN_MAX: usize = 100_000;

/// Bounds for the bytes that a probe writes.
const PROBE_BYTES_MIN: usize = 4 << 10;
const PROBE_BYTES_MAX: usize = 1 << 20;

/// Why the last append failed; `None` after a success.
pub(crate) type LastFailure = Arc<Mutex<Option<StoreError>>>;

/// A job for the writer.
pub(crate) enum WriterJob {
    Append {
        append: Box<Append>,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    ReplaceRows {
        kind: String,
        rows: Vec<OrderedRow>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    SaveProjection {
        save: Box<ProjectionSave>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    ForgetSnapshots {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    ForgetStreams {
        streams: Vec<String>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Writes a test row to check that a transaction can be committed.
    Probe {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Copies the write-ahead log into the database file and empties it.
    Checkpoint {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
}

struct LogWriter {
    connection: Connection,
    position: u64,
    known: HashMap<String, KnownStream>,
    /// SQLite's `data_version` when `position` and the cached versions were last valid.
    others: Option<i64>,
    published: watch::Sender<u64>,
    failure: LastFailure,
    /// Size of the last failed append.
    failed_bytes: usize,
    crash_after: Option<u64>,
    written: u64,
}

#[derive(Clone, Copy)]
struct KnownStream {
    id: i64,
    version: u64,
}

/// Starts the thread; it ends when all senders are dropped.
pub(crate) fn start_writer(
    connection: Connection,
    mut jobs: mpsc::Receiver<WriterJob>,
    published: watch::Sender<u64>,
    failure: LastFailure,
    crash_after: Option<u64>,
) {
    let position = *published.borrow();
    let mut writer = LogWriter {
        connection,
        position,
        known: HashMap::new(),
        others: None,
        published,
        failure,
        failed_bytes: PROBE_BYTES_MIN,
        crash_after,
        written: 0,
    };
    std::thread::Builder::new()
        .name("event-log".to_owned())
        .spawn(move || {
            let mut group = Vec::with_capacity(GROUP_MAX);
            let (mut last, mut took) = (0, Duration::ZERO);
            while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
                gather_group(&mut jobs, &mut group, last, took / 2);
                last = group.len();
                let began = Instant::now();
                writer.handle_group(std::mem::take(&mut group));
                took = began.elapsed();
            }
        })
        .expect("a thread can be started at the start of the process");
}

/// Waits briefly for as many jobs as the last group had. Callers that got their replies together usually come back together:
/// committing the first one alone would delay the others. A single caller never waits.
fn gather_group(
    jobs: &mut mpsc::Receiver<WriterJob>,
    group: &mut Vec<WriterJob>,
    last: usize,
    patience: Duration,
) {
    let until = Instant::now() + patience.min(GATHER_MAX);
    while group.len() < last.min(GROUP_MAX) {
        match jobs.try_recv() {
            Ok(job) => group.push(job),
            Err(_) if Instant::now() < until => std::thread::sleep(GATHER_STEP),
            Err(_) => return,
        }
    }
}

impl LogWriter {
    fn handle_group(&mut self, jobs: Vec<WriterJob>) {
        let (mut appends, mut replies) = (
            Vec::with_capacity(jobs.len()),
            Vec::with_capacity(jobs.len()),
        );
        for job in jobs {
            match job {
                WriterJob::Append { append, reply } => {
                    appends.push(append);
                    replies.push(reply);
                }
                WriterJob::ReplaceRows { kind, rows, reply } => {
                    let _ = reply.send(self.replace_rows(&kind, &rows).map_err(store_error));
                }
                WriterJob::SaveProjection { save, reply } => {
                    let _ = reply.send(self.save_projection(&save).map_err(store_error));
                }
                WriterJob::ForgetStreams { streams, reply } => {
                    let _ = reply.send(self.forget_streams(&streams).map_err(store_error));
                }
                WriterJob::ForgetSnapshots { reply } => {
                    let forgotten = self.connection.execute("DELETE FROM snapshots", []);
                    let _ = reply.send(forgotten.map(|_| ()).map_err(store_error));
                }
                WriterJob::Probe { reply } => {
                    let probed = self.probe().map_err(store_error);
                    if probed.is_ok() {
                        self.set_failure(None, 0);
                    }
                    let _ = reply.send(probed);
                }
                WriterJob::Checkpoint { reply } => {
                    let _ = reply.send(self.checkpoint());
                }
            }
        }
        if !appends.is_empty() {
            self.handle_appends(&appends, replies);
        }
    }

    /// Stores a group of appends and replies to each. When the file can't be written, all of them fail.
    fn handle_appends(
        &mut self,
        appends: &[Box<Append>],
        replies: Vec<oneshot::Sender<Result<(), AppendError>>>,
    ) {
        let before = self.position;
        match self.store_group(appends) {
            Ok(results) => {
                self.written += self.position - before;
                if self.crash_after.is_some_and(|limit| self.written >= limit) {
                    std::process::abort();
                }
                self.set_failure(None, 0);
                self.published.send_replace(self.position);
                for (result, reply) in results.into_iter().zip(replies) {
                    let _ = reply.send(result);
                }
            }
            Err(error) => {
                // Nothing of the group is stored; cached versions may be ahead of the file.
                self.position = before;
                self.others = None;
                let error = store_error(error);
                self.set_failure(Some(&error), total_bytes(appends));
                for reply in replies {
                    let _ = reply.send(Err(AppendError::Store(error.clone())));
                }
            }
        }
    }

    fn set_failure(&mut self, failure: Option<&StoreError>, bytes: usize) {
        self.failed_bytes = bytes.clamp(PROBE_BYTES_MIN, PROBE_BYTES_MAX);
        let mut known = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() || failure.is_some() {
            *known = failure.cloned();
        }
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        let is_busy: bool = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(store_error)?;
        if is_busy {
            return Err(StoreError(
                "the write-ahead log is still being read".to_owned(),
            ));
        }
        Ok(())
    }

    /// Writes as much as the failed append, durably, and removes it again.
    fn probe(&self) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO rows(kind, key, service, live, changed, doc) VALUES ('', 'probe', '', 0, 0, hex(zeroblob(?1)))";
        self.connection.execute(sql, [self.failed_bytes / 2])?;
        let sql = "DELETE FROM rows WHERE kind = '' AND key = 'probe'";
        self.connection.execute(sql, [])?;
        Ok(())
    }

    /// Stores a group in one transaction with one fsync. A conflict has no effect on the other appends.
    fn store_group(
        &mut self,
        appends: &[Box<Append>],
    ) -> rusqlite::Result<Vec<Result<(), AppendError>>> {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        // IMMEDIATE: no other connection writes from here on, so cached versions stay valid until the commit.
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let others = others_version(&transaction)?;
        if self.others != Some(others) {
            self.known.clear();
            self.position = last_position(&transaction)?;
        }
        let mut results = Vec::with_capacity(appends.len());
        for append in appends {
            let known = match self.known.get(&append.stream) {
                Some(known) => Some(*known),
                None => find_stream(&transaction, &append.stream)?,
            };
            let actual = known.map_or(0, |known| known.version);
            if actual != append.expected {
                results.push(Err(AppendError::Conflict { actual }));
                continue;
            }
            let known = match known {
                Some(known) => known,
                None => insert_stream(&transaction, &append.stream)?,
            };
            self.position = write_append(&transaction, append, known, self.position)?;
            let version = known.version + append.events.len() as u64;
            self.known
                .insert(append.stream.clone(), KnownStream { version, ..known });
            results.push(Ok(()));
        }
        transaction.commit()?;
        self.others = Some(others);
        Ok(results)
    }

    fn forget_streams(&mut self, streams: &[String]) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        let newest = last_position(&transaction)?;
        for name in streams {
            let Some(known) = find_stream(&transaction, name)? else {
                continue;
            };
            let has_newest: bool = transaction
                .prepare_cached(
                    "SELECT EXISTS(SELECT 1 FROM events WHERE stream = ?1 AND position = ?2)",
                )?
                .query_row(params![known.id, newest], |row| row.get(0))?;
            if has_newest {
                continue;
            }
            for sql in [
                "DELETE FROM events WHERE stream = ?1",
                "DELETE FROM snapshots WHERE stream = ?1",
                "DELETE FROM streams WHERE id = ?1",
            ] {
                transaction.prepare_cached(sql)?.execute([known.id])?;
            }
            self.known.remove(name);
        }
        transaction.commit()
    }

    fn replace_rows(&mut self, kind: &str, rows: &[OrderedRow]) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM rows WHERE kind = ?1", [kind])?;
        for OrderedRow { order, row } in rows {
            upsert_row(&transaction, row, *order)?;
        }
        transaction.commit()
    }

    fn save_projection(&mut self, save: &ProjectionSave) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        if save.earlier == EarlierRows::Delete {
            transaction.execute("DELETE FROM rows WHERE kind = ?1", [&save.name])?;
        }
        let position = save.checkpoint.position;
        for (index, row) in save.rows.iter().enumerate() {
            upsert_row(&transaction, row, row_order(position, index as u64))?;
        }
        upsert_row(&transaction, &save.checkpoint_row(), position)?;
        transaction.commit()
    }
}

fn total_bytes(appends: &[Box<Append>]) -> usize {
    let events = appends.iter().flat_map(|append| &append.events);
    events.map(String::len).sum()
}

/// Changes when another connection commits; not by this one's commits.
fn others_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// The position of the newest event.
pub(crate) fn last_position(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(max(position), 0) FROM events")?
        .query_row([], |row| row.get(0))
}

fn find_stream(connection: &Connection, name: &str) -> rusqlite::Result<Option<KnownStream>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(KnownStream {
            id: row.get(0)?,
            version: row.get(1)?,
        })
    };
    connection
        .prepare_cached("SELECT id, version FROM streams WHERE name = ?1")?
        .query_row([name], read)
        .optional()
}

fn insert_stream(connection: &Connection, name: &str) -> rusqlite::Result<KnownStream> {
    let kind = name.split('/').next().unwrap_or(name);
    connection
        .prepare_cached("INSERT INTO streams(name, kind, version, live) VALUES (?1, ?2, 0, 0)")?
        .execute([name, kind])?;
    Ok(KnownStream {
        id: connection.last_insert_rowid(),
        version: 0,
    })
}

/// Writes one append; returns the position of its last event.
fn write_append(
    connection: &Connection,
    append: &Append,
    known: KnownStream,
    mut position: u64,
) -> rusqlite::Result<u64> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO events(position, stream, version, body) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut version = known.version;
    for event in &append.events {
        position += 1;
        version += 1;
        insert.execute(params![position, known.id, version, event])?;
    }
    connection
        .prepare_cached("UPDATE streams SET version = ?2, live = ?3 WHERE id = ?1")?
        .execute(params![known.id, version, append.live])?;
    for (index, row) in append.rows.iter().enumerate() {
        upsert_row(connection, row, row_order(position, index as u64))?;
    }
    if let Some(state) = &append.snapshot {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO snapshots(stream, version, state) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![known.id, version, state])?;
    }
    Ok(position)
}

fn upsert_row(connection: &Connection, row: &ViewRow, changed: u64) -> rusqlite::Result<()> {
    if row.doc.is_null() {
        connection
            .prepare_cached("DELETE FROM rows WHERE kind = ?1 AND key = ?2")?
            .execute(params![row.kind, row.key])?;
        return Ok(());
    }
    let doc = serde_json::to_string(&row.doc)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let [state, environment, branch, person] = RowFacet::ALL.map(|facet| row.facet(facet));
    connection
        .prepare_cached(
            "INSERT INTO rows(kind, key, service, live, changed, doc, state, environment, branch, person) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?8, ?9, ?10, ?11)
             ON CONFLICT(kind, key) DO UPDATE SET service = excluded.service, live = excluded.live, changed = CASE WHEN ?7 THEN changed ELSE excluded.changed END, doc = excluded.doc,
               state = excluded.state, environment = excluded.environment, branch = excluded.branch, person = excluded.person",
        )?
        .execute(params![row.kind, row.key, row.service, row.live, changed, doc, row.is_listed_by_creation(), state, environment, branch, person])?;
    Ok(())
}
