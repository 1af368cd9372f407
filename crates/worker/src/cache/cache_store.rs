//! Cache entries in a folder that concurrent jobs share.
//!
//! # Layout
//!
//! - `entries/ID/`: `blob` and its metadata `about.json`, whose mtime is the time of the last use. Created by a
//!   rename and never changed.
//! - `making/`: entries that are being created or deleted.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::file_hash;

/// Older unfinished entries are garbage: no job runs that long.
const GIVEN_UP: Duration = Duration::from_secs(8 * 24 * 3600);

#[derive(Debug)]
pub(crate) struct CacheStore {
    folder: PathBuf,
    bytes_max: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct CacheEntry {
    pub(crate) key: String,
    pub(crate) size: u64,
    scope: String,
    version: String,
    at: Timestamp,
    used: SystemTime,
    folder: PathBuf,
}

/// The contents of `about.json`.
#[derive(Serialize, Deserialize)]
struct EntryMetadata {
    key: String,
    version: String,
    scope: String,
    size: u64,
    at: Timestamp,
}

/// Why a cache can't be saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveCacheError {
    #[error("there is a cache with the same key, version and scope; caches are never changed")]
    Taken,
    #[error("it has {size} bytes, but all caches of a service together may have {max}")]
    TooLarge { size: u64, max: u64 },
    #[error(transparent)]
    Key(#[from] super::CacheKeyError),
    #[error("it can't be stored: {0}")]
    Io(#[from] io::Error),
}

impl CacheEntry {
    /// A numeric id that is exact as a JavaScript number.
    pub(crate) fn numeric_id(&self) -> u64 {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        let digits = name.and_then(|name| name.get(..12));
        digits.map_or(0, |digits| u64::from_str_radix(digits, 16).unwrap_or(0))
    }

    fn blob_path(&self) -> PathBuf {
        self.folder.join("blob")
    }
}

impl CacheStore {
    /// The folder is created with the first entry.
    pub(crate) fn new(folder: &Path, bytes_max: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            bytes_max,
        }
    }

    /// See [`super::JobCaches::find_entry`].
    pub(crate) fn find_entry(
        &self,
        scopes: &[String],
        version: &str,
        key: &str,
        restore_keys: &[String],
    ) -> io::Result<Option<CacheEntry>> {
        let mut entries = self.list_entries()?;
        entries.retain(|entry| entry.version == version);
        // The newest first; the key makes the order unambiguous.
        entries.sort_by(|one, other| (other.at, &other.key).cmp(&(one.at, &one.key)));
        let found = scopes.iter().find_map(|scope| {
            let own = entries.iter().filter(|entry| entry.scope == *scope);
            let exact = own.clone().find(|entry| entry.key == key);
            let prefixes = [key]
                .into_iter()
                .chain(restore_keys.iter().map(String::as_str));
            let newest = |prefix: &str| own.clone().find(|entry| entry.key.starts_with(prefix));
            exact
                .or_else(|| prefixes.into_iter().find_map(newest))
                .cloned()
        });
        if let Some(entry) = &found {
            let about = File::options()
                .append(true)
                .open(entry.folder.join("about.json"));
            // Best effort: only affects which entry is evicted first.
            let _ = about.and_then(|about| about.set_modified(SystemTime::now()));
        }
        Ok(found)
    }

    pub(crate) fn has_entry(&self, scope: &str, version: &str, key: &str) -> bool {
        read_entry(self.entry_folder(scope, version, key)).is_ok()
    }

    /// Saves `blob`, which is moved. Of two concurrent calls with one key, one succeeds.
    pub(crate) fn save_entry(
        &self,
        scope: &str,
        version: &str,
        key: &str,
        blob: &Path,
    ) -> Result<CacheEntry, SaveCacheError> {
        let size = blob.metadata()?.len();
        if size > self.bytes_max {
            let max = self.bytes_max;
            return Err(SaveCacheError::TooLarge { size, max });
        }
        let place = self.entry_folder(scope, version, key);
        if read_entry(place.clone()).is_ok() {
            return Err(SaveCacheError::Taken);
        }
        if place.exists() {
            self.remove_entry(&place)?;
        }
        let making = self.create_unique_folder()?;
        let about = EntryMetadata {
            key: key.to_owned(),
            version: version.to_owned(),
            scope: scope.to_owned(),
            size,
            at: Timestamp::now(),
        };
        let kept = write_entry(&making, blob, &about).and_then(|()| fs::rename(&making, &place));
        if let Err(error) = kept {
            let _ = fs::remove_dir_all(&making);
            let taken = matches!(
                Errno::from_io_error(&error),
                Some(Errno::NOTEMPTY | Errno::EXIST)
            );
            return Err(if taken {
                SaveCacheError::Taken
            } else {
                error.into()
            });
        }
        File::open(self.folder.join("entries"))?.sync_all()?;
        let entry = read_entry(place)?;
        self.evict_entries(&entry)?;
        Ok(entry)
    }

    /// See [`super::JobCaches::link_entry`].
    pub(crate) fn link_entry(&self, entry: &CacheEntry, to: &Path) -> io::Result<PathBuf> {
        match fs::hard_link(entry.blob_path(), to) {
            Ok(()) => Ok(to.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            // Another file system: use the entry's own file, which may be evicted.
            Err(_) => Ok(entry.blob_path()),
        }
    }

    /// Evicts the least recently used entries until the total size is within the limit; never `new`.
    fn evict_entries(&self, new: &CacheEntry) -> io::Result<()> {
        let lock = File::create(self.folder.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        self.remove_unfinished();
        let mut entries = self.list_entries()?;
        let mut all: u64 = entries.iter().map(|entry| entry.size).sum();
        entries.sort_by_key(|entry| entry.used);
        for entry in entries {
            if all <= self.bytes_max {
                break;
            }
            if entry.folder == new.folder {
                continue;
            }
            self.remove_entry(&entry.folder)?;
            all -= entry.size;
        }
        Ok(())
    }

    /// Renames the entry first: it disappears at once, even if deleting it fails.
    fn remove_entry(&self, entry: &Path) -> io::Result<()> {
        let going = self.create_unique_folder()?;
        fs::rename(entry, &going)?;
        fs::remove_dir_all(&going)
    }

    /// Removes unfinished entries of crashed jobs.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(self.folder.join("making"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let since = entry.metadata().and_then(|found| found.modified());
            let age = since.ok().and_then(|since| since.elapsed().ok());
            if age.is_some_and(|age| age > GIVEN_UP) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn list_entries(&self) -> io::Result<Vec<CacheEntry>> {
        let listed = match fs::read_dir(self.folder.join("entries")) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Ignore entries that are damaged or being deleted.
        Ok(listed
            .flatten()
            .filter_map(|entry| read_entry(entry.path()).ok())
            .collect())
    }

    fn entry_folder(&self, scope: &str, version: &str, key: &str) -> PathBuf {
        let name = Sha256::digest(format!("{scope}\n{version}\n{key}"));
        self.folder
            .join("entries")
            .join(&file_hash::to_hex(&name)[..32])
    }

    /// Creates a unique folder in `making/`.
    fn create_unique_folder(&self) -> io::Result<PathBuf> {
        let mut name = [0; 16];
        getrandom(&mut name, GetRandomFlags::empty())?;
        let making = self.folder.join("making").join(file_hash::to_hex(&name));
        fs::create_dir_all(self.folder.join("entries"))?;
        fs::create_dir_all(&making)?;
        Ok(making)
    }
}

/// Writes and fsyncs a complete entry.
fn write_entry(folder: &Path, blob: &Path, about: &EntryMetadata) -> io::Result<()> {
    let to = folder.join("blob");
    // EXDEV: copy instead.
    if fs::rename(blob, &to).is_err() {
        fs::copy(blob, &to)?;
        fs::remove_file(blob)?;
    }
    File::open(&to)?.sync_all()?;
    let path = folder.join("about.json");
    fs::write(&path, serde_json::to_vec(about)?)?;
    File::open(&path)?.sync_all()?;
    File::open(folder)?.sync_all()
}

fn read_entry(folder: PathBuf) -> io::Result<CacheEntry> {
    let path = folder.join("about.json");
    let about: EntryMetadata = serde_json::from_slice(&fs::read(&path)?)?;
    if folder.join("blob").metadata()?.len() != about.size {
        return Err(io::Error::other("it is damaged"));
    }
    Ok(CacheEntry {
        key: about.key,
        size: about.size,
        scope: about.scope,
        version: about.version,
        at: about.at,
        used: path.metadata()?.modified()?,
        folder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        root: tempfile::TempDir,
        store: CacheStore,
    }

    fn bench(bytes_max: u64) -> Bench {
        let root = tempfile::tempdir().unwrap();
        let store = CacheStore::new(&root.path().join("caches"), bytes_max);
        Bench { root, store }
    }

    impl Bench {
        fn put(&self, scope: &str, key: &str, text: &str) -> Result<CacheEntry, SaveCacheError> {
            let mut name = [0; 8];
            getrandom(&mut name, GetRandomFlags::empty()).unwrap();
            let blob = self.root.path().join(file_hash::to_hex(&name));
            fs::write(&blob, text).unwrap();
            self.store.save_entry(scope, "v", key, &blob)
        }

        fn find(&self, scopes: &[&str], key: &str, restore: &[&str]) -> Option<String> {
            let owned = |texts: &[&str]| -> Vec<String> {
                texts.iter().map(|text| (*text).to_owned()).collect()
            };
            let found = self
                .store
                .find_entry(&owned(scopes), "v", key, &owned(restore));
            let entry = found.unwrap()?;
            let text = fs::read_to_string(entry.blob_path()).unwrap();
            Some(format!("{} {text}", entry.key))
        }
    }

    #[test]
    fn keys_find_as_githubs_do() {
        let bench = bench(1000);
        assert_eq!(bench.find(&["main"], "a", &[]), None);
        for (scope, key) in [
            ("main", "npm-1"),
            ("main", "npm-2"),
            ("main", "npm-1-old"),
            ("topic", "npm-3"),
            ("other", "npm-4"),
        ] {
            bench.put(scope, key, scope).unwrap();
        }
        let both = ["topic", "main"];
        for (key, restore, expected) in [
            ("npm-1", &[][..], Some("npm-1 main")),
            ("npm-3", &[], Some("npm-3 topic")),
            // The own branch takes precedence, even over a better match.
            ("npm-9", &["npm-2", "npm-"], Some("npm-3 topic")),
            ("npm-9", &["npm-2"], Some("npm-2 main")),
            // The newest with that prefix.
            ("npm-9", &["npm-1"], Some("npm-1-old main")),
            // The primary key also matches as a prefix.
            ("npm-1-o", &[], Some("npm-1-old main")),
            ("npm-4", &[], None),
            ("x", &["NPM"], None),
        ] {
            let found = bench.find(&both, key, restore);
            assert_eq!(found.as_deref(), expected, "{key} {restore:?}");
        }
        let scopes = ["main".to_owned()];
        assert!(
            bench
                .store
                .find_entry(&scopes, "w", "npm-1", &[])
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn an_entry_is_never_changed() {
        let bench = bench(1000);
        let first = bench.put("main", "a", "one").unwrap();
        assert!(matches!(
            bench.put("main", "a", "two"),
            Err(SaveCacheError::Taken)
        ));
        assert!(bench.store.has_entry("main", "v", "a") && !bench.store.has_entry("x", "v", "a"));
        assert_eq!(bench.find(&["main"], "a", &[]).as_deref(), Some("a one"));
        assert_eq!(bench.put("x", "a", "three").unwrap().key, "a");
        assert!(first.numeric_id() > 0 && first.numeric_id() < 1 << 48);
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let bench = bench(30);
        bench.put("main", "a", &"a".repeat(10)).unwrap();
        bench.put("main", "b", &"b".repeat(10)).unwrap();
        bench.put("main", "c", &"c".repeat(10)).unwrap();
        assert!(bench.find(&["main"], "a", &[]).is_some());
        let lent = bench.root.path().join("lent");
        let scopes = ["main".to_owned()];
        let entry = bench
            .store
            .find_entry(&scopes, "v", "b", &[])
            .unwrap()
            .unwrap();
        let lent = bench.store.link_entry(&entry, &lent).unwrap();
        assert!(bench.find(&["main"], "a", &[]).is_some());
        bench.put("main", "d", &"d".repeat(20)).unwrap();
        assert!(bench.find(&["main"], "a", &[]).is_some());
        assert!(bench.find(&["main"], "b", &[]).is_none());
        assert!(bench.find(&["main"], "c", &[]).is_none());
        assert_eq!(fs::read_to_string(lent).unwrap(), "b".repeat(10));
        let too_large = bench.put("main", "e", &"e".repeat(31));
        assert!(matches!(
            too_large,
            Err(SaveCacheError::TooLarge { size: 31, max: 30 })
        ));
        assert_eq!(
            fs::read_dir(bench.root.path().join("caches/making"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn several_jobs_at_once_keep_one_entry_whole() {
        let bench = bench(1 << 20);
        let kept = std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..8)
                .map(|job| {
                    let bench = &bench;
                    scope.spawn(move || {
                        let text = job.to_string().repeat(10_000);
                        let own = bench.put("main", &format!("own-{job}"), &text);
                        assert!(own.is_ok(), "{own:?}");
                        usize::from(bench.put("main", "one", &text).is_ok())
                    })
                })
                .collect();
            jobs.into_iter()
                .map(|job| job.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(kept, 1);
        let found = bench.find(&["main"], "one", &[]).unwrap();
        let text = found.strip_prefix("one ").unwrap();
        assert_eq!(text, &text[..1].repeat(10_000));
        assert_eq!(bench.store.list_entries().unwrap().len(), 9);
    }

    #[test]
    fn a_damaged_entry_is_none() {
        let bench = bench(1000);
        let entry = bench.put("main", "a", "whole").unwrap();
        fs::write(entry.blob_path(), "torn").unwrap();
        assert_eq!(bench.find(&["main"], "a", &[]), None);
        bench.put("main", "a", "again").unwrap();
        assert_eq!(bench.find(&["main"], "a", &[]).as_deref(), Some("a again"));
    }
}
