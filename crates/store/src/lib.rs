//! The event log on SQLite and content-addressed blobs on disk. The engine owns the traits.
//!
//! # Invariants
//!
//! - Nothing is acknowledged before it is fsynced.
//! - An append is stored completely or not at all.
//! - A slow reader never blocks the writer.

mod blobs;
mod data_dir;
mod reader_pool;
mod rebuild;
mod row_reading;
mod schema;
mod sqlite;
mod stored_row;
mod subscribe;
mod writer;

pub use blobs::FileBlobs;
pub use data_dir::{DataDir, DataDirError, SET_ASIDE};
pub use rebuild::{rebuild_projection, rebuild_rows};
pub use sqlite::{OpenError, SqliteOptions, SqliteStore};
