//! When tokens and sessions were last used: kept outside the log, because it changes with every request. A crash loses a minute of it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

/// The times, to the second, by the digest of a session or the id of a token.
pub(super) struct UsageTimes {
    file: PathBuf,
    times: Mutex<RecordedTimes>,
}

#[derive(Default)]
struct RecordedTimes {
    times: BTreeMap<String, Timestamp>,
    is_changed: bool,
}

impl UsageTimes {
    /// Reads the file. A missing or damaged one is an empty one: nothing but an indication is lost.
    pub(super) fn open(data: &Path) -> Self {
        let file = data.join("usage-times.json");
        let text = fs::read(&file).unwrap_or_default();
        let times = serde_json::from_slice(&text).unwrap_or_default();
        Self {
            file,
            times: Mutex::new(RecordedTimes {
                times,
                is_changed: false,
            }),
        }
    }

    pub(super) fn record(&self, key: &str, now: Timestamp) {
        let mut recorded = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.times.insert(key.to_owned(), now);
        recorded.is_changed = true;
    }

    pub(super) fn last(&self, key: &str) -> Option<Timestamp> {
        let recorded = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.times.get(key).copied()
    }

    /// Writes the times if they have changed, without those of ended sessions and tokens.
    pub(super) fn save(&self, exists: impl Fn(&str) -> bool) -> io::Result<()> {
        let text = {
            let mut recorded = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            if !recorded.is_changed {
                return Ok(());
            }
            recorded.times.retain(|key, _| exists(key));
            recorded.is_changed = false;
            serde_json::to_vec(&recorded.times).map_err(io::Error::other)?
        };
        let new = self.file.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &self.file)
    }
}
