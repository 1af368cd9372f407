//! The event log on SQLite and content-addressed blobs on disk. The engine owns the traits; PostgreSQL and object stores will
//! be neighbours here.
//!
//! What it must never do: acknowledge what is not fsynced, store a part of an append, or let a slow reader hold a writer.

mod blobs;
mod data_dir;
mod rebuild;
mod schema;
mod sqlite;
mod subscribe;
mod writer;

pub use blobs::FileBlobs;
pub use data_dir::{DataDir, DataDirError, SET_ASIDE};
pub use rebuild::rebuild_rows;
pub use sqlite::{OpenError, SqliteOptions, SqliteStore};
