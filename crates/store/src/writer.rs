//! The only writer: a thread that takes what waits, stores all of it in one transaction with one fsync, and answers.

use std::{
    collections::HashMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use shipway_core::aggregate::Row;
use shipway_engine::{Append, AppendError, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::sqlite::{Failure, store_error};

/// Appends stored in one transaction, at most.
const GROUP_MAX: usize = 1_024;
/// The longest wait for a group to come together: a commit takes about as long on a good disk.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// Between two looks for those who are awaited.
const GATHER_STEP: Duration = Duration::from_micros(20);
/// Streams whose version is remembered; all are forgotten when there are more.
const KNOWN_MAX: usize = 100_000;

/// What a probe writes at least and at most.
const PROBE_BYTES_MIN: usize = 4 << 10;
const PROBE_BYTES_MAX: usize = 1 << 20;

/// Rows that one append may change and still have an order among themselves.
const ROWS_MAX: u64 = 1 << 16;

/// What the writer is asked.
pub(crate) enum Job {
    Append {
        append: Box<Append>,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    ReplaceRows {
        kind: String,
        rows: Vec<Row>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    ForgetSnapshots {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    ForgetStreams {
        streams: Vec<String>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Write something: whether a transaction can be committed.
    Probe {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Copy the write-ahead log into the database file and empty it.
    Checkpoint {
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
}

struct Writer {
    connection: Connection,
    position: u64,
    known: HashMap<String, Known>,
    /// SQLite's count of what other connections have written, when `position` and `known` were last right.
    others: Option<i64>,
    published: watch::Sender<u64>,
    failure: Failure,
    /// How much the last append that failed would have written.
    failed_bytes: usize,
    crash_after: Option<u64>,
    written: u64,
}

#[derive(Clone, Copy)]
struct Known {
    id: i64,
    version: u64,
}

/// Starts the thread; it ends when nobody can ask any more.
pub(crate) fn start(
    connection: Connection,
    mut jobs: mpsc::Receiver<Job>,
    published: watch::Sender<u64>,
    failure: Failure,
    crash_after: Option<u64>,
) {
    let position = *published.borrow();
    let mut writer = Writer {
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
                gather(&mut jobs, &mut group, last, took / 2);
                last = group.len();
                let began = Instant::now();
                writer.handle(std::mem::take(&mut group));
                took = began.elapsed();
            }
        })
        .expect("a thread can be started at the start of the process");
}

/// Waits a moment for as many as came the last time. Those who were answered together mostly come back together, one shortly
/// after the other: a commit for the first alone would make all others wait for it. A lone writer never waits.
fn gather(jobs: &mut mpsc::Receiver<Job>, group: &mut Vec<Job>, last: usize, patience: Duration) {
    let until = Instant::now() + patience.min(GATHER_MAX);
    while group.len() < last.min(GROUP_MAX) {
        match jobs.try_recv() {
            Ok(job) => group.push(job),
            Err(_) if Instant::now() < until => std::thread::sleep(GATHER_STEP),
            Err(_) => return,
        }
    }
}

impl Writer {
    fn handle(&mut self, jobs: Vec<Job>) {
        let (mut appends, mut replies) = (
            Vec::with_capacity(jobs.len()),
            Vec::with_capacity(jobs.len()),
        );
        for job in jobs {
            match job {
                Job::Append { append, reply } => {
                    appends.push(append);
                    replies.push(reply);
                }
                Job::ReplaceRows { kind, rows, reply } => {
                    let _ = reply.send(self.replace_rows(&kind, &rows).map_err(store_error));
                }
                Job::ForgetStreams { streams, reply } => {
                    let _ = reply.send(self.forget_streams(&streams).map_err(store_error));
                }
                Job::ForgetSnapshots { reply } => {
                    let _ = reply.send(
                        self.connection
                            .execute("DELETE FROM snapshots", [])
                            .map(|_| ())
                            .map_err(store_error),
                    );
                }
                Job::Probe { reply } => {
                    let probed = self.probe().map_err(store_error);
                    if probed.is_ok() {
                        self.set_failure(None, 0);
                    }
                    let _ = reply.send(probed);
                }
                Job::Checkpoint { reply } => {
                    let _ = reply.send(self.checkpoint());
                }
            }
        }
        if appends.is_empty() {
            return;
        }
        let before = self.position;
        match self.store(&appends) {
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
                // Nothing of the group is stored; what was remembered of its streams may be ahead of the file.
                self.position = before;
                self.others = None;
                let error = store_error(error);
                self.set_failure(Some(&error), size_of(&appends));
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

    /// Writes as much as the append that failed, durably, and removes it again.
    fn probe(&self) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO rows(kind, key, service, live, changed, doc) VALUES ('', 'probe', '', 0, 0, hex(zeroblob(?1)))";
        self.connection.execute(sql, [self.failed_bytes / 2])?;
        let sql = "DELETE FROM rows WHERE kind = '' AND key = 'probe'";
        self.connection.execute(sql, [])?;
        Ok(())
    }

    /// One transaction, one fsync. A conflict touches nothing, so that its neighbours are stored all the same.
    fn store(&mut self, appends: &[Box<Append>]) -> rusqlite::Result<Vec<Result<(), AppendError>>> {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        // Immediate: from here on nobody else writes, so that what is looked up stays right until the commit.
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
                None => find(&transaction, &append.stream)?,
            };
            let actual = known.map_or(0, |known| known.version);
            if actual != append.expected {
                results.push(Err(AppendError::Conflict { actual }));
                continue;
            }
            let known = match known {
                Some(known) => known,
                None => add(&transaction, &append.stream)?,
            };
            self.position = write(&transaction, append, known, self.position)?;
            let version = known.version + append.events.len() as u64;
            self.known
                .insert(append.stream.clone(), Known { version, ..known });
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
            let Some(known) = find(&transaction, name)? else {
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

    fn replace_rows(&mut self, kind: &str, rows: &[Row]) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM rows WHERE kind = ?1", [kind])?;
        for (index, row) in rows.iter().enumerate() {
            put_row(&transaction, row, index as u64)?;
        }
        transaction.commit()
    }
}

fn size_of(appends: &[Box<Append>]) -> usize {
    let events = appends.iter().flat_map(|append| &append.events);
    events.map(String::len).sum()
}

/// Changes when another connection has committed; what this one does leaves it as it is.
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

fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<Known>> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Known {
            id: row.get(0)?,
            version: row.get(1)?,
        })
    };
    connection
        .prepare_cached("SELECT id, version FROM streams WHERE name = ?1")?
        .query_row([name], read)
        .optional()
}

fn add(connection: &Connection, name: &str) -> rusqlite::Result<Known> {
    let kind = name.split('/').next().unwrap_or(name);
    connection
        .prepare_cached("INSERT INTO streams(name, kind, version, live) VALUES (?1, ?2, 0, 0)")?
        .execute([name, kind])?;
    Ok(Known {
        id: connection.last_insert_rowid(),
        version: 0,
    })
}

/// Writes one append; gives the position of its last event.
fn write(
    connection: &Connection,
    append: &Append,
    known: Known,
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
        put_row(connection, row, changed(position, index as u64))?;
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

/// When a row was changed: a number that no two rows share, so that a page can be cut anywhere. Rising with the position of the
/// append, then with the place among its rows.
const fn changed(position: u64, index: u64) -> u64 {
    position * ROWS_MAX
        + if index < ROWS_MAX {
            index
        } else {
            ROWS_MAX - 1
        }
}

fn put_row(connection: &Connection, row: &Row, changed: u64) -> rusqlite::Result<()> {
    let doc = serde_json::to_string(&row.doc)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO rows(kind, key, service, live, changed, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(kind, key) DO UPDATE SET service = excluded.service, live = excluded.live, changed = excluded.changed, doc = excluded.doc",
        )?
        .execute(params![row.kind, row.key, row.service, row.live, changed, doc])?;
    Ok(())
}
