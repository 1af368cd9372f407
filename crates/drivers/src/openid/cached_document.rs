//! A fetched document with its age.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A document is fetched again after this time.
const FRESH_FOR: Duration = Duration::from_secs(60 * 60);
/// For this long it is used while it can't be fetched again.
const USABLE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The last version of a document.
#[derive(Debug)]
pub(super) struct CachedDocument<T>(Option<(Instant, Arc<T>)>);

impl<T> Default for CachedDocument<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> CachedDocument<T> {
    pub(super) fn store(&mut self, document: Arc<T>, now: Instant) {
        self.0 = Some((now, document));
    }

    pub(super) fn fresh(&self, now: Instant) -> Option<Arc<T>> {
        self.younger_than(FRESH_FOR, now)
    }

    pub(super) fn usable(&self, now: Instant) -> Option<Arc<T>> {
        self.younger_than(USABLE_FOR, now)
    }

    fn younger_than(&self, age: Duration, now: Instant) -> Option<Arc<T>> {
        let (fetched_at, document) = self.0.as_ref()?;
        (now.saturating_duration_since(*fetched_at) < age).then(|| document.clone())
    }
}
