//! The tables, and which version of them a file has.

use rusqlite::Connection;

/// The version this binary writes.
pub(crate) const VERSION: i64 = 1;

/// `streams.name` is what the engine says; events refer to its short id. `rows.changed` orders lists by their last change.
pub(crate) const TABLES: &str = "
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

/// What every connection is set to. FULL: a commit returns after the write-ahead log is fsynced.
pub(crate) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "busy_timeout", 5_000)?;
    connection.pragma_update(None, "cache_size", -16_000)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// The version of a file; 0 when it is new.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
