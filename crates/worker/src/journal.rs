//! The journal of a job: one JSON object per line. A result is fsynced before the job continues.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use jiff::Timestamp;
use rustix::fs::FallocateFlags;
use shipway_workflow::job::{JournalBody, JournalEntry};

/// File name of the journal, in the job's folder.
pub const JOURNAL_FILE: &str = "journal.jsonl";

/// Disk space that is reserved ahead, so that a job's result can be written even when logs have filled the disk.
const RESERVE_BYTES: u64 = 256 * 1024;

/// Whether the journal must survive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Results are fsynced before the job continues.
    Durable,
    /// Nothing is fsynced: `shipway run` keeps the run in memory, and its folders are temporary.
    Volatile,
}

pub(crate) struct JournalWriter {
    file: File,
    keeping: Durability,
    seq: u64,
    length: u64,
    reserved: u64,
}

impl JournalWriter {
    /// Opens the journal; cuts off a last line that a crash has left incomplete.
    pub(crate) fn open(path: &Path, keeping: Durability) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let length = complete_lines(&text).len() as u64;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        let seq = split_lines(&text).count() as u64;
        let mut journal = Self {
            file,
            keeping,
            seq,
            length,
            reserved: 0,
        };
        journal.reserve_space();
        Ok(journal)
    }

    /// Appends an entry without fsync: progress that may be lost in a crash of the machine.
    pub(crate) fn append(&mut self, body: JournalBody) -> io::Result<()> {
        self.seq += 1;
        let entry = JournalEntry {
            seq: self.seq,
            at: Timestamp::now(),
            body,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if self.length + line.len() as u64 > self.reserved {
            self.reserve_space();
        }
        self.file.write_all(&line)?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Appends an entry and fsyncs it and all before it.
    pub(crate) fn append_durably(&mut self, body: JournalBody) -> io::Result<()> {
        self.append(body)?;
        match self.keeping {
            Durability::Durable => self.file.sync_data(),
            Durability::Volatile => Ok(()),
        }
    }

    /// Reserves disk space, where the file system supports it.
    fn reserve_space(&mut self) {
        let from = self.length;
        if rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, RESERVE_BYTES).is_ok()
        {
            self.reserved = from + RESERVE_BYTES;
        }
    }
}

/// The text up to its last complete line.
fn complete_lines(text: &[u8]) -> &[u8] {
    &text[..text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1)]
}

fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    complete_lines(text)
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

/// Reads a journal. An incomplete last line is ignored.
pub fn read_journal(path: &Path) -> io::Result<Vec<JournalEntry>> {
    let text = std::fs::read(path)?;
    split_lines(&text)
        .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_cut_off_and_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let started = |pid| JournalBody::Started { pid, start_time: 0 };
        let open = || JournalWriter::open(&path, Durability::Durable).unwrap();
        open().append_durably(started(1)).unwrap();
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"seq\":2,\"at\":\"20").unwrap();
        assert_eq!(read_journal(&path).unwrap().len(), 1);
        open().append_durably(started(2)).unwrap();
        let entries = read_journal(&path).unwrap();
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1, 2]);
        assert_eq!(entries[1].body, started(2));
    }
}
