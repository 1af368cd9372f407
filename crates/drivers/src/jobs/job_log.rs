//! A job's log, read as it grows.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use bytes::Bytes;

use super::file_watcher::{FileWatch, FileWatcher};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A job's log. Reading is of the page cache, and never waits.
#[derive(Debug)]
pub struct JobLog {
    file: File,
    offset: u64,
    watch: FileWatch,
}

impl JobLog {
    pub(super) fn open(path: &Path, offset: u64, watcher: &FileWatcher) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            file,
            offset,
            watch: watcher.watch(path)?,
        })
    }

    /// Where the next read begins.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// What has been written since, at most a chunk of it; empty when nothing has.
    pub fn read(&mut self) -> io::Result<Bytes> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = self.file.read(&mut chunk)?;
        chunk.truncate(count);
        self.offset += count as u64;
        Ok(chunk.into())
    }

    /// Returns when there may be more. What came before the last [`JobLog::read`] may count.
    pub async fn changed(&mut self) {
        self.watch.changed().await;
    }
}
