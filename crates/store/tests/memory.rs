//! The log in memory does what every store must do: what is tested with it holds for the others.

mod conformance;

use std::sync::Arc;

use conformance::Place;
use shipway_engine::{MemoryStore, Store};

impl Place for MemoryStore {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }
}

conformance!(MemoryStore::default());
