//! The tables and their version.

use rusqlite::{Connection, config::DbConfig};

/// The schema version of this binary.
pub(crate) const VERSION: i64 = 1;

/// `streams.name` is the engine's name of a stream; events refer to its short id. `rows.changed` orders lists by their last
/// change.
const TABLES: &str = "
CREATE TABLE streams(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  version INTEGER NOT NULL,
  live INTEGER NOT NULL
) STRICT;
CREATE INDEX streams_live ON streams(kind) WHERE live = 1;
CREATE TABLE events(
  position INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  version INTEGER NOT NULL,
  body TEXT NOT NULL,
  UNIQUE(stream, version)
) STRICT;
CREATE TABLE snapshots(
  stream INTEGER PRIMARY KEY,
  version INTEGER NOT NULL,
  state TEXT NOT NULL
) STRICT;
CREATE TABLE rows(
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  service TEXT NOT NULL,
  live INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  doc TEXT NOT NULL,
  PRIMARY KEY(kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX rows_changed ON rows(kind, changed);
CREATE INDEX rows_service ON rows(kind, service, changed);
CREATE INDEX rows_live ON rows(kind, changed) WHERE live = 1;
";

/// Settings of every connection. FULL: a commit returns after the write-ahead log is fsynced.
pub(crate) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "busy_timeout", 5_000)?;
    // 16 MB of write-ahead log between checkpoints: pages that change often are copied once.
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    connection.pragma_update(None, "cache_size", -16_000)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The kind of a file, before it is changed.
pub(crate) enum FileKind {
    /// Empty: new, or its creator was killed before creating the tables.
    Empty,
    /// A log of this version.
    Current,
    /// A log of this newer version.
    Newer(i64),
    /// Another database.
    Foreign,
}

/// Inspects a file without changing it or its write-ahead log, even when the connection is closed afterwards.
pub(crate) fn inspect_file(connection: &Connection) -> rusqlite::Result<FileKind> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let has_tables: bool =
        connection.query_row("SELECT count(*) > 0 FROM sqlite_schema", [], |row| {
            row.get(0)
        })?;
    let has_events = connection.table_exists(None, "events")?;
    let found = match (version, has_events) {
        (0, _) if !has_tables => FileKind::Empty,
        (VERSION, true) => FileKind::Current,
        (newer, _) if newer > VERSION => FileKind::Newer(newer),
        _ => FileKind::Foreign,
    };
    if matches!(found, FileKind::Empty | FileKind::Current) {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    }
    Ok(found)
}

/// Creates the tables.
pub(crate) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
