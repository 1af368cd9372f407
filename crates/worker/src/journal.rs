//! The journal: what happened in a job, a JSON line each, on the disk before the job goes on.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use jiff::Timestamp;
use shipway_workflow::job::{JournalBody, JournalEntry};

/// A journal being written.
pub(crate) struct Journal {
    file: File,
    seq: u64,
}

impl Journal {
    /// Opens the journal; a last line that was torn by a crash is cut off.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        let seq = text[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .count() as u64;
        Ok(Self { file, seq })
    }

    /// Writes an entry and waits until it is on the disk.
    pub(crate) fn write(&mut self, body: JournalBody) -> io::Result<()> {
        self.seq += 1;
        let mut line = serde_json::to_vec(&JournalEntry {
            seq: self.seq,
            at: Timestamp::now(),
            body,
        })?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

/// The entries of a journal; a torn last line is left out.
pub fn read_journal(path: &Path) -> io::Result<Vec<JournalEntry>> {
    let text = std::fs::read(path)?;
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let lines = text[..whole]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
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
        Journal::open(&path).unwrap().write(started(1)).unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"seq\":2,\"at\":\"20")
            .unwrap();
        assert_eq!(read_journal(&path).unwrap().len(), 1);
        Journal::open(&path).unwrap().write(started(2)).unwrap();
        let seqs: Vec<u64> = read_journal(&path)
            .unwrap()
            .iter()
            .map(|entry| entry.seq)
            .collect();
        assert_eq!(seqs, [1, 2]);
    }
}
