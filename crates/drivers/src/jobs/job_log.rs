//! Reads a job's log as it grows.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use bytes::Bytes;

use super::file_watcher::{FileWatch, FileWatcher};

/// Bytes per read.
const CHUNK_BYTES: usize = 64 * 1024;

/// A reader of a job's log. Reads come from the page cache and don't block.
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

    /// Offset of the next read.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads one chunk; empty if nothing was written.
    pub fn read(&mut self) -> io::Result<Bytes> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = self.file.read(&mut chunk)?;
        chunk.truncate(count);
        self.offset += count as u64;
        Ok(chunk.into())
    }

    /// Waits until there may be more. May return for a write before the last [`JobLog::read`].
    pub async fn changed(&mut self) {
        self.watch.changed().await;
    }
}

/// Reads `bytes` of a log from `offset`, or as many as there are; `None` if there is no log.
pub(super) fn read_block(path: &Path, offset: u64, bytes: usize) -> io::Result<Option<Bytes>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut block = Vec::with_capacity(bytes);
    file.take(bytes as u64).read_to_end(&mut block)?;
    Ok(Some(block.into()))
}
