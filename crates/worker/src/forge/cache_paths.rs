//! Paths in the cache of repositories.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use super::forge_error::ForgeError;

/// A unique folder name.
pub(super) fn unique_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("temp-{}-{count}", std::process::id())
}

/// Adds the path in the cache to an error.
pub(super) fn cache_error(path: &Path) -> impl Fn(io::Error) -> ForgeError {
    move |source| ForgeError::Cache {
        path: path.to_owned(),
        source,
    }
}
