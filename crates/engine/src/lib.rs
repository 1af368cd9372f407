//! The loop: read, decide, append, dispatch; timers. It owns the traits that the outside implements: [`Store`], [`Blobs`],
//! [`Driver`], [`Clock`].
//!
//! One task per loaded stream owns its state. Inputs that wait together are decided together and appended as one batch; who
//! said them is answered when the facts are durable. Effects are derived from the state after every commit
//! ([`shipway_core::aggregate::Aggregate::pending`]): new keys are dispatched, keys that no longer come out are cancelled. So a
//! server that was killed at any point goes on by loading the streams that are live.
//!
//! What it must never do: act before the facts are durable, decide anything itself, or poll.

mod actor;
mod blobs;
mod clock;
mod driver;
mod effects;
mod engine;
mod memory;
mod store;

pub use blobs::{BlobError, Blobs, Reader, StoredBlob};
pub use clock::{Clock, ManualClock, RealClock};
pub use driver::{Driver, Reporter, Work};
pub use engine::{Engine, EngineError, Options, Outcome};
pub use memory::MemoryStore;
pub use store::{
    Append, AppendError, Recorded, RowPage, Snapshot, Store, StoreError, Subscription,
};
