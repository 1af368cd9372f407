//! Caches of a service: entries are found by key with GitHub's rules.
//!
//! # Invariants
//!
//! - An entry is never changed.
//! - A branch sees only its own entries and those of its base and default branch.
//! - An incomplete entry is never returned.

pub(crate) mod cache_archive;
mod cache_store;

use std::{io, path::Path, sync::Arc};

use shipway_workflow::{expr::ExprValue, job::JobSpec};

pub(crate) use cache_store::{CacheEntry, CacheStore, SaveCacheError};

/// Limit for all caches of a service, like GitHub's for a repository.
const BYTES_MAX: u64 = 10 << 30;
/// GitHub's limits.
const KEY_CHARS_MAX: usize = 512;
const KEYS_MAX: usize = 10;
/// Default branches to try if the event doesn't name one.
const FIRST_BRANCHES: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// Why a cache can't be looked up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindCacheError {
    #[error("at most {KEYS_MAX} keys are searched")]
    TooManyKeys,
    #[error(transparent)]
    Key(#[from] CacheKeyError),
    #[error("the caches can't be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Why a text can't be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CacheKeyError {
    #[error("the cache key is empty")]
    Empty,
    #[error("{0:?} is not a valid cache key: at most {KEY_CHARS_MAX} characters, no comma")]
    Invalid(String),
}

/// The caches that a job can access.
#[derive(Clone, Debug)]
pub(crate) struct JobCaches {
    store: Arc<CacheStore>,
    /// The refs whose caches the job sees, in order of precedence: its own, its base branch, the default branch.
    scopes: Vec<String>,
}

impl JobCaches {
    /// `None` if the job has no cache store.
    pub(crate) fn for_job(spec: &JobSpec) -> Option<Self> {
        Some(Self {
            store: Arc::new(CacheStore::new(spec.mounts.caches.as_deref()?, BYTES_MAX)),
            scopes: visible_scopes(&spec.contexts.github),
        })
    }

    #[cfg(test)]
    pub(crate) fn for_folder(folder: &Path, github: &ExprValue) -> Self {
        Self {
            store: Arc::new(CacheStore::new(folder, BYTES_MAX)),
            scopes: visible_scopes(github),
        }
    }

    /// Finds an entry: in each scope first an exact match of `key`, then the newest entry with a prefix from `key`
    /// and `restore_keys`, in this order.
    pub(crate) fn find_entry(
        &self,
        version: &str,
        key: &str,
        restore_keys: &[String],
    ) -> Result<Option<CacheEntry>, FindCacheError> {
        if restore_keys.len() >= KEYS_MAX {
            return Err(FindCacheError::TooManyKeys);
        }
        for key in restore_keys.iter().map(String::as_str).chain([key]) {
            check_key(key)?;
        }
        let found = self
            .store
            .find_entry(&self.scopes, version, key, restore_keys);
        Ok(found?)
    }

    /// Whether the job's own scope has an entry for `key`.
    pub(crate) fn has_entry(&self, version: &str, key: &str) -> bool {
        self.store.has_entry(self.own_scope(), version, key)
    }

    /// Saves the file at `blob` as an entry; the file is moved.
    pub(crate) fn save_entry(
        &self,
        version: &str,
        key: &str,
        blob: &Path,
    ) -> Result<CacheEntry, SaveCacheError> {
        check_key(key).map_err(SaveCacheError::Key)?;
        self.store.save_entry(self.own_scope(), version, key, blob)
    }

    /// Hard-links the blob of an entry to `to`, so that it survives eviction; returns the entry's own path if that is
    /// impossible.
    pub(crate) fn link_entry(
        &self,
        entry: &CacheEntry,
        to: &Path,
    ) -> io::Result<std::path::PathBuf> {
        self.store.link_entry(entry, to)
    }

    fn own_scope(&self) -> &str {
        &self.scopes[0]
    }
}

fn visible_scopes(github: &ExprValue) -> Vec<String> {
    let text = |value: ExprValue| value.to_text().to_string();
    let mut scopes = vec![text(github.get("ref"))];
    let base = text(github.get("base_ref"));
    if !base.is_empty() {
        scopes.push(branch_ref(&base));
    }
    let default = github.get("event").get("repository").get("default_branch");
    match text(default) {
        default if default.is_empty() => scopes.extend(FIRST_BRANCHES.map(str::to_owned)),
        default => scopes.push(branch_ref(&default)),
    }
    let mut seen = Vec::new();
    scopes.retain(|scope| {
        let new = !seen.contains(scope);
        seen.push(scope.clone());
        new
    });
    scopes
}

fn branch_ref(name: &str) -> String {
    if name.starts_with("refs/") {
        name.to_owned()
    } else {
        format!("refs/heads/{name}")
    }
}

/// Validates a key.
pub(crate) fn check_key(key: &str) -> Result<&str, CacheKeyError> {
    if key.is_empty() {
        return Err(CacheKeyError::Empty);
    }
    if key.chars().count() > KEY_CHARS_MAX || key.contains(',') {
        let begin: String = key.chars().take(60).collect();
        return Err(CacheKeyError::Invalid(begin));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_sees_the_caches_of_its_own_ref_and_of_the_branches_it_comes_from() {
        let github = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (*name, ExprValue::from(*value)));
            ExprValue::object(pairs)
        };
        let of = |pairs: &[(&'static str, &str)]| visible_scopes(&github(pairs));
        assert_eq!(
            of(&[("ref", "refs/heads/topic")]),
            ["refs/heads/topic", "refs/heads/main", "refs/heads/master"]
        );
        assert_eq!(
            of(&[("ref", "refs/pull/7/merge"), ("base_ref", "next")]),
            [
                "refs/pull/7/merge",
                "refs/heads/next",
                "refs/heads/main",
                "refs/heads/master"
            ]
        );
        let payload =
            ExprValue::from(&serde_json::json!({"repository": {"default_branch": "trunk"}}));
        let mut with_payload = vec![("ref", ExprValue::from("refs/heads/trunk"))];
        with_payload.push(("event", payload));
        assert_eq!(
            visible_scopes(&ExprValue::object(with_payload)),
            ["refs/heads/trunk"]
        );
    }

    #[test]
    fn keys_are_as_github_takes_them() {
        assert!(check_key("").is_err() && check_key("a,b").is_err());
        assert!(check_key(&"x".repeat(513)).is_err());
        assert!(check_key("Linux-é-/..").is_ok());
    }
}
