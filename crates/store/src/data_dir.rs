//! Ensures one server per data directory, by a lock that the kernel releases with its process.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Folder for files of runs and instances that are not in the log.
pub const SET_ASIDE: &str = "set-aside";

/// Folders of the data directory that contain results of recorded events, with the noun for their entries. A repository proves
/// nothing: it is created before the first event.
const USED_FOLDERS: [(&str, &str); 3] = [
    ("runs", "services with runs"),
    ("instances", "sets of instances"),
    ("blobs/sha256", "folders of artifacts"),
];

/// Files that must be readable by the server's user only, whatever an earlier version or a umask made of them.
const PRIVATE_FILES: [&str; 5] = [
    "shipway.db",
    "shipway.db-wal",
    "shipway.db-shm",
    "shipway.lock",
    "happened.json",
];

/// A data directory locked by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // Kept for its lock, which the kernel releases when the process exits.
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server uses it.
    #[error(
        "another server (pid {pid}) uses {path}; stop it, or choose another directory with --data"
    )]
    Held {
        /// The folder.
        path: String,
        /// Process id of that server.
        pid: String,
    },
    /// It was used before, and its log is missing: an empty log would reuse the numbers of old runs and releases.
    #[error(
        "the data directory {path} was used before ({found}), but its event log {path}/shipway.db {missing}; restore the log (shipway.db, and shipway.db-wal if it exists) and start again, or start with an empty log: shipway server --data {path} --new-log (existing files are moved to {path}/{SET_ASIDE})"
    )]
    LogMissing {
        /// The folder.
        path: String,
        /// The data found there: `3 runs, 2 sets of instances`.
        found: String,
        /// `is missing` or `is empty`.
        missing: &'static str,
    },
    /// It can't be created or locked.
    #[error("the data directory {path} can't be used: {source}")]
    Io {
        /// The folder.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

impl DataDir {
    /// Creates the folder if missing, readable by its owner only, and locks it.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let shown = path.display().to_string();
        let failed = |source| DataDirError::Io {
            path: shown.clone(),
            source,
        };
        create_private_folder(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("shipway.lock"))
            .map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // Only for the message.
            let _ = lock.read_to_string(&mut pid);
            return Err(DataDirError::Held {
                path: shown,
                pid: pid.trim().to_owned(),
            });
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        restrict_permissions(&path).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rejects a folder that was used before and whose event log is missing or empty.
    ///
    /// A new log would number runs and releases from 1 again, and the files of the old ones would be taken for theirs.
    pub fn require_log(&self) -> Result<(), DataDirError> {
        let log = self.path.join("shipway.db");
        let missing = match crate::sqlite::has_events(&log) {
            // An unreadable log is reported when the store opens it.
            Ok(true) | Err(_) => return Ok(()),
            Ok(false) if log.exists() => "is empty",
            Ok(false) => "is missing",
        };
        let found: Vec<String> = USED_FOLDERS
            .iter()
            .filter_map(|(folder, noun)| {
                let count = std::fs::read_dir(self.path.join(folder)).ok()?.count();
                (count > 0).then(|| format!("{count} {noun} in {folder}/"))
            })
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        Err(DataDirError::LogMissing {
            path: self.path.display().to_string(),
            found: found.join(", "),
            missing,
        })
    }

    /// Moves files of earlier runs and instances aside for a new log. Returns their new folder, if there were any.
    pub fn set_aside(&self, label: &str) -> io::Result<Option<PathBuf>> {
        let to = self.path.join(SET_ASIDE).join(label);
        let mut is_moved = false;
        for name in ["runs", "instances", "happened.json"] {
            let from = self.path.join(name);
            if from.exists() {
                create_private_folder(&to)?;
                std::fs::rename(&from, to.join(name))?;
                is_moved = true;
            }
        }
        Ok(is_moved.then_some(to))
    }
}

fn create_private_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Removes access for other users, which an earlier version, a umask or a restored copy granted.
fn restrict_permissions(path: &Path) -> io::Result<()> {
    let set_mode = |path: &Path, mode| -> io::Result<()> {
        let found = std::fs::symlink_metadata(path);
        let is_open =
            found.is_ok_and(|it| !it.is_symlink() && it.permissions().mode() & 0o077 != 0);
        if is_open {
            std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    set_mode(path, 0o700)?;
    for name in PRIVATE_FILES {
        set_mode(&path.join(name), 0o600)?;
    }
    let keys = path.join("keys");
    set_mode(&keys, 0o700)?;
    for key in std::fs::read_dir(&keys).into_iter().flatten().flatten() {
        let mode = if key.path().is_dir() { 0o700 } else { 0o600 };
        set_mode(&key.path(), mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_existing_data_directory_is_tightened() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("keys")).unwrap();
        for name in ["shipway.db", "keys/internal-token"] {
            std::fs::write(data.join(name), "").unwrap();
            std::fs::set_permissions(data.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        for folder in [&data, &data.join("keys")] {
            std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        let _held = DataDir::lock(&data).unwrap();
        for name in ["", "keys"] {
            assert_eq!(mode(&data.join(name)), 0o700, "{name}");
        }
        for name in ["shipway.db", "shipway.lock", "keys/internal-token"] {
            assert_eq!(mode(&data.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_used_directory_without_its_log_is_refused_and_can_be_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::lock(&folder.path().join("data")).unwrap();
        data.require_log().unwrap();
        // A repository is made before the first event.
        std::fs::create_dir_all(data.path().join("git/shop.git")).unwrap();
        data.require_log().unwrap();
        std::fs::create_dir_all(data.path().join("runs/shop/1/build")).unwrap();
        let refused = data.require_log().unwrap_err().to_string();
        for part in ["1 services with runs in runs/", "is missing", "--new-log"] {
            assert!(refused.contains(part), "{refused}");
        }
        std::fs::write(data.path().join("shipway.db"), "").unwrap();
        let refused = data.require_log().unwrap_err().to_string();
        assert!(refused.contains("is empty"), "{refused}");
        let aside = data.set_aside("before").unwrap().unwrap();
        assert!(aside.join("runs/shop/1/build").exists());
        data.require_log().unwrap();
        assert_eq!(data.set_aside("again").unwrap(), None);
    }
}
