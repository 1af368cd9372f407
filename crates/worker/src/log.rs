//! The job's log: a line each with its time, without secrets. A full disk costs lines, never the job.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use jiff::Timestamp;

use crate::mask::Masker;

/// Collected before it is written.
const BUFFER: usize = 64 * 1024;

/// A log being written.
pub(crate) struct Log {
    file: File,
    buffer: Vec<u8>,
    offset: u64,
    lost: u64,
}

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let offset = file.metadata()?.len();
        Ok(Self {
            file,
            buffer: Vec::with_capacity(BUFFER),
            offset,
            lost: 0,
        })
    }

    /// Writes text as lines, masked.
    pub(crate) fn line(&mut self, masker: &Masker, text: &str) {
        let masked = masker.mask(text);
        let now = Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
            .to_string();
        for line in masked.split('\n') {
            self.buffer.extend_from_slice(now.as_bytes());
            self.buffer.push(b' ');
            self.buffer.extend_from_slice(line.as_bytes());
            self.buffer.push(b'\n');
        }
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// Where the next line begins, in bytes.
    pub(crate) fn offset(&mut self) -> u64 {
        self.flush();
        self.offset
    }

    /// Lines that the disk didn't take.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => self.offset += self.buffer.len() as u64,
            Err(_) => {
                self.lost += self.buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.offset = self
                    .file
                    .metadata()
                    .map_or(self.offset, |found| found.len());
            }
        }
        self.buffer.clear();
    }
}
