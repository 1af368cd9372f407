//! The only writer: a thread that takes what waits, stores all of it in one transaction with one fsync, and answers.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use shipway_core::aggregate::Row;
use shipway_engine::{Append, AppendError, StoreError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::sqlite::store_error;

/// Appends stored in one transaction, at most.
const GROUP_MAX: usize = 1_024;
/// Streams whose version is remembered; all are forgotten when there are more.
const KNOWN_MAX: usize = 100_000;

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
}

struct Writer {
    connection: Connection,
    position: u64,
    known: HashMap<String, Known>,
    published: watch::Sender<u64>,
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
    crash_after: Option<u64>,
) {
    let position = *published.borrow();
    let mut writer = Writer {
        connection,
        position,
        known: HashMap::new(),
        published,
        crash_after,
        written: 0,
    };
    std::thread::Builder::new()
        .name("event-log".to_owned())
        .spawn(move || {
            let mut group = Vec::with_capacity(GROUP_MAX);
            while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
                writer.handle(std::mem::take(&mut group));
            }
        })
        .expect("a thread can be started at the start of the process");
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
                Job::ForgetSnapshots { reply } => {
                    let _ = reply.send(
                        self.connection
                            .execute("DELETE FROM snapshots", [])
                            .map(|_| ())
                            .map_err(store_error),
                    );
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
                self.published.send_replace(self.position);
                for (result, reply) in results.into_iter().zip(replies) {
                    let _ = reply.send(result);
                }
            }
            Err(error) => {
                // Nothing of the group is stored; what was remembered of its streams may be ahead of the file.
                self.position = before;
                self.known.clear();
                let error = store_error(error);
                for reply in replies {
                    let _ = reply.send(Err(AppendError::Store(error.clone())));
                }
            }
        }
    }

    /// One transaction, one fsync. A conflict touches nothing, so that its neighbours are stored all the same.
    fn store(&mut self, appends: &[Box<Append>]) -> rusqlite::Result<Vec<Result<(), AppendError>>> {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        let transaction = self.connection.unchecked_transaction()?;
        let mut results = Vec::with_capacity(appends.len());
        for append in appends {
            let known = match self.known.get(&append.stream) {
                Some(known) => *known,
                None => find_or_add(&transaction, &append.stream)?,
            };
            if known.version != append.expected {
                self.known.insert(append.stream.clone(), known);
                results.push(Err(AppendError::Conflict {
                    actual: known.version,
                }));
                continue;
            }
            self.position = write(&transaction, append, known, self.position)?;
            let version = known.version + append.events.len() as u64;
            self.known
                .insert(append.stream.clone(), Known { version, ..known });
            results.push(Ok(()));
        }
        transaction.commit()?;
        Ok(results)
    }

    fn replace_rows(&mut self, kind: &str, rows: &[Row]) -> rusqlite::Result<()> {
        let transaction = self.connection.unchecked_transaction()?;
        transaction.execute("DELETE FROM rows WHERE kind = ?1", [kind])?;
        for (index, row) in rows.iter().enumerate() {
            put_row(&transaction, row, index as u64 + 1)?;
        }
        transaction.commit()
    }
}

fn find_or_add(connection: &Connection, name: &str) -> rusqlite::Result<Known> {
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Known {
            id: row.get(0)?,
            version: row.get(1)?,
        })
    };
    if let Some(known) = connection
        .prepare_cached("SELECT id, version FROM streams WHERE name = ?1")?
        .query_row([name], read)
        .optional()?
    {
        return Ok(known);
    }
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
    for row in &append.rows {
        put_row(connection, row, position)?;
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
