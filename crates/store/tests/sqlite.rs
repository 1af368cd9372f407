//! The event log on SQLite: what every store must do, and what only a file on a disk can go through.

mod conformance;

use std::{fs, path::PathBuf, sync::Arc};

use conformance::{Place, facts};
use shipway_engine::{AppendError, RowFacets, RowQuery, Store};
use shipway_store::{OpenError, SqliteOptions, SqliteStore};
use tempfile::TempDir;

/// A log in a folder of its own.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("shipway.db")
    }

    fn open_with(&self, options: SqliteOptions) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(&self.file(), options).unwrap())
    }
}

impl Place for Folder {
    fn open(&self) -> Arc<dyn Store> {
        self.open_with(SqliteOptions::default())
    }
}

conformance!(Folder::new());

#[test]
fn a_file_of_a_newer_shipway_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let newer = rusqlite::Connection::open(folder.file()).unwrap();
    newer.pragma_update(None, "journal_mode", "WAL").unwrap();
    newer
        .execute_batch(
            "CREATE TABLE things(id); PRAGMA user_version = 9; INSERT INTO things VALUES (1);",
        )
        .unwrap();
    // As the newer one was killed: what it wrote last is still in the write-ahead log.
    let killed = tempfile::tempdir().unwrap();
    let names = ["shipway.db", "shipway.db-wal"];
    for name in names {
        fs::copy(folder.0.path().join(name), killed.path().join(name)).unwrap();
    }
    let before = names.map(|name| fs::read(killed.path().join(name)).unwrap());

    let path = killed.path().join("shipway.db");
    let error = SqliteStore::open(&path, SqliteOptions::default())
        .err()
        .unwrap();
    assert!(
        matches!(error, OpenError::Newer { found: 9, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("schema version 9") && text.contains("use the newer shipway"),
        "{text}"
    );
    let after = names.map(|name| fs::read(killed.path().join(name)).unwrap());
    assert!(before == after, "nothing was changed");
}

/// The tables as the first version created them.
const FIRST_VERSION: &str = "
CREATE TABLE streams(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, version INTEGER NOT NULL, live INTEGER NOT NULL) STRICT;
CREATE INDEX streams_live ON streams(kind) WHERE live = 1;
CREATE TABLE events(position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE(stream, version)) STRICT;
CREATE TABLE snapshots(stream INTEGER PRIMARY KEY, version INTEGER NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE rows(kind TEXT NOT NULL, key TEXT NOT NULL, service TEXT NOT NULL, live INTEGER NOT NULL, changed INTEGER NOT NULL, doc TEXT NOT NULL, PRIMARY KEY(kind, key)) STRICT, WITHOUT ROWID;
CREATE INDEX rows_changed ON rows(kind, changed);
CREATE INDEX rows_service ON rows(kind, service, changed);
CREATE INDEX rows_live ON rows(kind, changed) WHERE live = 1;
PRAGMA user_version = 1;
INSERT INTO streams VALUES (1, 'run/shop/1', 'run', 1, 0);
INSERT INTO events VALUES (1, 1, 1, '{}');
";

#[tokio::test]
async fn a_log_of_the_first_version_gets_its_facets_and_keeps_what_it_has() {
    let folder = Folder::new();
    let first = rusqlite::Connection::open(folder.file()).unwrap();
    first.execute_batch(FIRST_VERSION).unwrap();
    let insert = "INSERT INTO rows VALUES ('run', ?1, 'shop', 0, ?1, ?2)";
    for number in 0..1_203 {
        let state = if number == 701 { "failure" } else { "success" };
        let doc = format!("{{\"status\":\"{state}\",\"by\":\"ada\"}}");
        first
            .execute(insert, rusqlite::params![number, doc])
            .unwrap();
    }
    drop(first);
    // Twice: the second opening finds the current version.
    for _ in 0..2 {
        let store = folder.open();
        let facets = RowFacets {
            state: Some("failure"),
            person: Some("Ada"),
            ..RowFacets::default()
        };
        let query = RowQuery {
            facets,
            ..RowQuery::new("run")
        };
        let found = store.rows_of_all_pages(query).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].key, "701");
        assert_eq!(store.read("run/shop/1", 0).await.unwrap(), ["{}"]);
        assert_eq!(store.all_rows("run").await.unwrap().len(), 1_203);
    }
}

#[test]
fn a_file_that_is_no_log_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let foreign = rusqlite::Connection::open(folder.file()).unwrap();
    foreign.execute_batch("CREATE TABLE things(id)").unwrap();
    drop(foreign);
    let database = fs::read(folder.file()).unwrap();
    for bytes in [database, b"a text of some length, no database".repeat(100)] {
        fs::write(folder.file(), &bytes).unwrap();
        let error = SqliteStore::open(&folder.file(), SqliteOptions::default())
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("can't be opened as an event log"),
            "{error}"
        );
        assert!(
            fs::read(folder.file()).unwrap() == bytes,
            "nothing was changed"
        );
    }
}

/// Appends until the disk is full; gives how many appends were acknowledged.
async fn fill(store: &dyn Store) -> u64 {
    let text = format!("\"{}\"", "x".repeat(2_000));
    for version in 0..10_000 {
        match store.append(facts("run/1", version, &[&text])).await {
            Ok(()) => {}
            Err(AppendError::Store(error)) => {
                assert!(error.to_string().contains("disk is full"), "{error}");
                return version;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk is never full");
}

fn of_pages(pages: u32) -> SqliteOptions {
    SqliteOptions {
        pages_max: Some(pages),
        ..SqliteOptions::default()
    }
}

#[tokio::test]
async fn on_a_full_disk_nothing_acknowledged_is_lost_and_it_goes_on_with_room() {
    let folder = Folder::new();
    let store = folder.open_with(of_pages(64));
    let acknowledged = fill(&*store).await;
    assert!(acknowledged > 10);
    let read = store.read("run/1", 0).await.unwrap();
    assert_eq!(read.len() as u64, acknowledged);
    drop(store);

    let store = folder.open_with(of_pages(512));
    let read = store.read("run/1", 0).await.unwrap();
    assert_eq!(read.len() as u64, acknowledged);
    store
        .append(facts("run/1", acknowledged, &["{}"]))
        .await
        .unwrap();
    store.append(facts("run/2", 0, &["{}"])).await.unwrap();
}

#[tokio::test]
async fn appends_are_not_well_while_the_disk_is_full_and_well_again_without_an_append() {
    let folder = Folder::new();
    let store = folder.open_with(of_pages(64));
    store.check_appends().await.unwrap();
    let acknowledged = fill(&*store).await;
    for _ in 0..2 {
        let error = store.check_appends().await.unwrap_err().to_string();
        assert!(error.contains("disk is full"), "{error}");
    }
    let free = rusqlite::Connection::open(folder.file()).unwrap();
    free.busy_timeout(std::time::Duration::from_secs(5))
        .unwrap();
    free.execute("DELETE FROM events WHERE version <= 5", [])
        .unwrap();
    store.check_appends().await.unwrap();
    let rows = store.all_rows("").await.unwrap();
    assert!(rows.is_empty(), "the probe leaves nothing");
    let next = facts("run/1", acknowledged, &["\"last\""]);
    store.append(next).await.unwrap();
    store.check_appends().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_that_gets_room_needs_no_restart() {
    let folder = Folder::new();
    let store = folder.open_with(of_pages(64));
    let acknowledged = fill(&*store).await;
    let mut log = store.subscribe(0).await.unwrap();
    // A large append still fails, a small one that fits into what is left may be stored: neither disturbs the versions.
    let large = format!("\"{}\"", "x".repeat(100_000));
    assert!(store.append(facts("run/2", 0, &[&large])).await.is_err());
    let free = rusqlite::Connection::open(folder.file()).unwrap();
    free.busy_timeout(std::time::Duration::from_secs(5))
        .unwrap();
    free.execute("DELETE FROM events WHERE version <= 5", [])
        .unwrap();
    store
        .append(facts("run/1", acknowledged, &["\"last\""]))
        .await
        .unwrap();
    let told = conformance::next(&mut log, acknowledged as usize - 5 + 1).await;
    let last = told.last().unwrap();
    assert_eq!(
        (last.version, last.event.as_str()),
        (acknowledged + 1, "\"last\"")
    );
    assert_eq!(
        last.position,
        acknowledged + 1,
        "positions were not used up by what was not stored"
    );
}

#[tokio::test]
async fn after_a_checkpoint_the_database_file_alone_is_a_whole_copy() {
    let folder = Folder::new();
    let store = folder.open_with(SqliteOptions::default());
    store.append(facts("run/1", 0, &["a", "b"])).await.unwrap();
    // A reader's connection is open while the write-ahead log is emptied.
    assert_eq!(store.read("run/1", 0).await.unwrap().len(), 2);
    store.checkpoint().await.unwrap();

    let copy = Folder::new();
    fs::copy(folder.file(), copy.file()).unwrap();
    let copied = copy.open();
    assert_eq!(copied.read("run/1", 0).await.unwrap().len(), 2);
    store.append(facts("run/1", 2, &["c"])).await.unwrap();
    assert_eq!(store.read("run/1", 0).await.unwrap().len(), 3);
}
