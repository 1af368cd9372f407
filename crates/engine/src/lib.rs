//! The engine loop: read, decide, append, dispatch effects, wait for timers. It owns the traits that the outside implements:
//! [`Store`], [`Blobs`], [`Driver`], [`Clock`].
//!
//! One task per loaded stream owns its state. Queued inputs are decided together and appended as one batch; their senders get a
//! reply when the events are durable. Effects are derived from the state after every commit
//! ([`shipway_core::aggregate::Aggregate::pending`]): new keys are dispatched, keys that are no longer pending are cancelled. So
//! after a crash at any point the engine continues by loading the live streams.
//!
//! # Invariants
//!
//! - Nothing is acted on before its events are durable.
//! - The engine makes no domain decision.
//! - Nothing polls.

mod actor;
mod blobs;
mod clock;
mod driver;
mod effects;
mod engine;
mod engine_state;
mod memory;
mod outcome;
mod projection_runner;
mod store;
mod stream_message;

pub use blobs::{BlobError, Blobs, Reader, StoredBlob};
pub use clock::{Clock, ManualClock, RealClock};
pub use driver::{Driver, Reporter, Work};
pub use engine::Engine;
pub use engine_state::Options;
pub use memory::MemoryStore;
pub use outcome::{EngineError, Outcome};
pub use projection_runner::{ProjectionError, ProjectionRunner};
pub use store::{
    Append, AppendError, EarlierRows, OrderedRow, ProjectionCheckpoint, ProjectionSave, Recorded,
    RowFacets, RowFilter, RowPage, RowQuery, RowScope, Snapshot, Store, StoreError, Subscription,
    row_order,
};
