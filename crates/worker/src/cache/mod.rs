//! Caches: files that later runs of a service may take up again, found by key as GitHub finds them.
//!
//! What it must never do: change an entry, show one to a branch that must not see it, or hand out one that didn't come whole.

pub(crate) mod archive;
mod store;

use std::{io, path::Path, sync::Arc};

use shipway_workflow::{expr::Value, job::JobSpec};

pub(crate) use store::{Entry, PutError, Store};

/// What the caches of a service may take up; GitHub's limit for a repository.
const BYTES_MAX: u64 = 10 << 30;
/// GitHub's limits for keys.
const KEY_CHARS_MAX: usize = 512;
const KEYS_MAX: usize = 10;
/// Branches that a service may have as its first, where nobody says which it is.
const FIRST_BRANCHES: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// The caches that a job may see.
#[derive(Clone, Debug)]
pub(crate) struct Caches {
    store: Arc<Store>,
    /// Whose caches it sees, the first being its own: its ref, the branch it would be merged to, the default branch.
    scopes: Vec<String>,
}

impl Caches {
    /// None for a job that has nowhere to keep them.
    pub(crate) fn of(spec: &JobSpec) -> Option<Self> {
        Some(Self {
            store: Arc::new(Store::new(spec.caches.as_deref()?, BYTES_MAX)),
            scopes: scopes(&spec.contexts.github),
        })
    }

    #[cfg(test)]
    pub(crate) fn at(folder: &Path, github: &Value) -> Self {
        Self {
            store: Arc::new(Store::new(folder, BYTES_MAX)),
            scopes: scopes(github),
        }
    }

    /// The entry that these keys find: in each scope first that of `key`, then the newest that begins with it or with one of
    /// the others, in their order.
    pub(crate) fn find(
        &self,
        version: &str,
        key: &str,
        restore_keys: &[String],
    ) -> Result<Option<Entry>, String> {
        if restore_keys.len() >= KEYS_MAX {
            return Err(format!("at most {KEYS_MAX} keys are looked for"));
        }
        for key in restore_keys.iter().map(String::as_str).chain([key]) {
            checked_key(key)?;
        }
        let found = self.store.find(&self.scopes, version, key, restore_keys);
        found.map_err(|error| format!("the caches can't be read: {error}"))
    }

    /// Whether this job could not save anything under `key`, because that is there.
    pub(crate) fn has(&self, version: &str, key: &str) -> bool {
        self.store.has(self.own(), version, key)
    }

    /// Keeps the file at `blob`, which is taken away.
    pub(crate) fn put(&self, version: &str, key: &str, blob: &Path) -> Result<Entry, PutError> {
        checked_key(key).map_err(PutError::Key)?;
        self.store.put(self.own(), version, key, blob)
    }

    /// A file of its own with the bytes of an entry, at `to`, or else the entry's: it stays there when the entry goes.
    pub(crate) fn lend(&self, entry: &Entry, to: &Path) -> io::Result<std::path::PathBuf> {
        self.store.lend(entry, to)
    }

    fn own(&self) -> &str {
        &self.scopes[0]
    }
}

fn scopes(github: &Value) -> Vec<String> {
    let text = |value: Value| value.to_text().to_string();
    let mut scopes = vec![text(github.get("ref"))];
    let base = text(github.get("base_ref"));
    if !base.is_empty() {
        scopes.push(branch(&base));
    }
    let default = github.get("event").get("repository").get("default_branch");
    match text(default) {
        default if default.is_empty() => scopes.extend(FIRST_BRANCHES.map(str::to_owned)),
        default => scopes.push(branch(&default)),
    }
    let mut seen = Vec::new();
    scopes.retain(|scope| {
        let new = !seen.contains(scope);
        seen.push(scope.clone());
        new
    });
    scopes
}

fn branch(name: &str) -> String {
    if name.starts_with("refs/") {
        name.to_owned()
    } else {
        format!("refs/heads/{name}")
    }
}

/// The key, when it can be one.
pub(crate) fn checked_key(key: &str) -> Result<&str, String> {
    if key.is_empty() {
        return Err("the key of a cache is empty".to_owned());
    }
    if key.chars().count() > KEY_CHARS_MAX || key.contains(',') {
        let begin: String = key.chars().take(60).collect();
        return Err(format!(
            "{begin:?} can't be the key of a cache: it has at most {KEY_CHARS_MAX} characters, and no comma"
        ));
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
                .map(|(name, value)| (*name, Value::from(*value)));
            Value::object(pairs)
        };
        let of = |pairs: &[(&'static str, &str)]| scopes(&github(pairs));
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
        let payload = Value::from(&serde_json::json!({"repository": {"default_branch": "trunk"}}));
        let mut with_payload = vec![("ref", Value::from("refs/heads/trunk"))];
        with_payload.push(("event", payload));
        assert_eq!(scopes(&Value::object(with_payload)), ["refs/heads/trunk"]);
    }

    #[test]
    fn keys_are_as_github_takes_them() {
        assert!(checked_key("").is_err() && checked_key("a,b").is_err());
        assert!(checked_key(&"x".repeat(513)).is_err());
        assert!(checked_key("Linux-é-/..").is_ok());
    }
}
