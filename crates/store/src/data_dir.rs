//! One server per data directory: a lock that dies with its holder.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// A data directory held by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // Held for its lock; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server holds it.
    #[error(
        "another server (pid {pid}) uses {path}; stop it, or give this one a folder of its own with --data"
    )]
    Held {
        /// The folder.
        path: String,
        /// Who.
        pid: String,
    },
    /// It can't be made or locked.
    #[error("the data directory {path} can't be used: {source}")]
    Io {
        /// The folder.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the folder where it is missing, readable by its owner alone, and locks it.
    pub fn lock(path: &Path) -> Result<Self, DataDirError> {
        let shown = path.display().to_string();
        let failed = |source| DataDirError::Io {
            path: shown.clone(),
            source,
        };
        make_private(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("shipway.lock"))
            .map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // For the message only.
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
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
