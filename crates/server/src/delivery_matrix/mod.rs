//! The overview in memory: what runs in each environment of each service, kept current from the log and from the instances.
//!
//! # Why
//!
//! A page of 500 services must not read 500 services from the disk, and 1,000 open pages must not each follow the log. One task follows
//! it, reads the rows that an event changed, and publishes a snapshot; pages are made of the snapshot.
//!
//! # Invariants
//!
//! - The snapshot is a cache of rows: a start reads it again.
//! - The log is followed from a position before the rows are read, so that no change is missed. Reading a row twice is harmless.

mod follower;
mod model;
mod snapshot;

pub(crate) use follower::{MatrixFeed, follow_matrix};
pub(crate) use snapshot::{MatrixEntry, MatrixSnapshot};
