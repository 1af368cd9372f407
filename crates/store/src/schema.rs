//! The tables and their version.

use rusqlite::{Connection, config::DbConfig};
use shipway_core::row_facets::RowFacet;

use crate::stored_row::read_row;

/// The schema version of this binary.
pub(crate) const VERSION: i64 = 2;

/// The first version. It had no facets of rows.
const FIRST_VERSION: i64 = 1;

/// Rows whose facets are written at a time when a file of the first version is upgraded.
const UPGRADE_CHUNK: usize = 500;

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
CREATE INDEX rows_live ON rows(kind, changed) WHERE live = 1;
";

/// What version 2 adds: the properties by which lists are filtered ([`RowFacet`]). Each index holds all of them, so that a second
/// condition is checked without reading the row.
const FACETS: &str = "
ALTER TABLE rows ADD COLUMN state TEXT;
ALTER TABLE rows ADD COLUMN environment TEXT;
ALTER TABLE rows ADD COLUMN branch TEXT;
ALTER TABLE rows ADD COLUMN person TEXT;
DROP INDEX IF EXISTS rows_service;
CREATE INDEX rows_service ON rows(kind, service, changed, state, environment, branch, person);
CREATE INDEX rows_state ON rows(kind, state, changed, service, environment, branch, person) WHERE state IS NOT NULL;
CREATE INDEX rows_environment ON rows(kind, environment, changed, service, state, branch, person) WHERE environment IS NOT NULL;
CREATE INDEX rows_branch ON rows(kind, branch, changed, service, state, environment, person) WHERE branch IS NOT NULL;
CREATE INDEX rows_person ON rows(kind, person, changed, service, state, environment, branch) WHERE person IS NOT NULL;
";

/// The column of a facet.
pub(crate) const fn facet_column(facet: RowFacet) -> &'static str {
    match facet {
        RowFacet::State => "state",
        RowFacet::Environment => "environment",
        RowFacet::Branch => "branch",
        RowFacet::Person => "person",
    }
}

/// The index of a facet.
pub(crate) const fn facet_index(facet: RowFacet) -> &'static str {
    match facet {
        RowFacet::State => "rows_state",
        RowFacet::Environment => "rows_environment",
        RowFacet::Branch => "rows_branch",
        RowFacet::Person => "rows_person",
    }
}

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
    /// A log of the first version, which [`add_facets`] upgrades.
    First,
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
        (FIRST_VERSION, true) => FileKind::First,
        (newer, _) if newer > VERSION => FileKind::Newer(newer),
        _ => FileKind::Foreign,
    };
    if matches!(found, FileKind::Empty | FileKind::Current | FileKind::First) {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    }
    Ok(found)
}

/// Creates the tables.
pub(crate) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(FACETS)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Upgrades a file of the first version. A crash leaves it as it was.
pub(crate) fn add_facets(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(FACETS)?;
    let mut after = (String::new(), String::new());
    loop {
        let mut read = transaction.prepare_cached(
            "SELECT kind, key, service, live, doc FROM rows WHERE (kind, key) > (?1, ?2) ORDER BY kind, key LIMIT ?3",
        )?;
        let rows = read.query_map(rusqlite::params![after.0, after.1, UPGRADE_CHUNK], read_row)?;
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        let Some(last) = rows.last() else {
            break;
        };
        after = (last.kind.clone(), last.key.clone());
        let mut update = transaction.prepare_cached(
            "UPDATE rows SET state = ?3, environment = ?4, branch = ?5, person = ?6 WHERE kind = ?1 AND key = ?2",
        )?;
        for row in &rows {
            let [state, environment, branch, person] = RowFacet::ALL.map(|facet| row.facet(facet));
            let values = rusqlite::params![row.kind, row.key, state, environment, branch, person];
            update.execute(values)?;
        }
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
