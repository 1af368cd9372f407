//! The log of an instance: its raw output in files of bounded size. A full disk loses lines but never stops the instance.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The current file; older ones are `log.1`, `log.2`.
pub(super) const LOG: &str = "log";
/// Prefix of lines written by Shipway.
const NOTE_PREFIX: &str = "shipway: ";
/// Size at which a file is rotated.
const BYTES_MAX: u64 = 10 << 20;
/// Number of rotated files.
const ROTATED_MAX: u32 = 2;
/// Bytes at the end that are searched for the last lines.
const END_BYTES: u64 = 8 << 10;
/// Longest quoted line.
const QUOTED_CHARS: usize = 200;

/// Writes the log.
pub(super) struct InstanceLog {
    path: PathBuf,
    file: File,
    size: u64,
    bytes_max: u64,
    lost: u64,
}

impl InstanceLog {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            bytes_max: BYTES_MAX,
            lost: 0,
        })
    }

    /// Writes output of the instance, or drops and counts it.
    pub(super) fn write_output(&mut self, bytes: &[u8]) {
        if self.size >= self.bytes_max {
            self.rotate();
        }
        if self.lost > 0 && self.report_lost_bytes().is_err() {
            self.lost += bytes.len() as u64;
            return;
        }
        if let Err(rest) = self.append(bytes) {
            self.lost += rest;
        }
    }

    /// Writes a line of Shipway's own.
    pub(super) fn write_note(&mut self, text: &str) {
        self.write_output(format!("{NOTE_PREFIX}{text}\n").as_bytes());
    }

    fn report_lost_bytes(&mut self) -> Result<(), u64> {
        let lost = self.lost;
        self.append(
            format!("\n{NOTE_PREFIX}{lost} bytes are missing here, the disk was full\n").as_bytes(),
        )?;
        self.lost = 0;
        Ok(())
    }

    /// The error is the number of bytes that were not written.
    fn append(&mut self, bytes: &[u8]) -> Result<(), u64> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(rest.len() as u64),
                Ok(count) => {
                    self.size += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(rest.len() as u64),
            }
        }
        Ok(())
    }

    fn rotate(&mut self) {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..ROTATED_MAX).rev() {
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        let renamed = fs::rename(&self.path, numbered(1));
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        match (renamed, opened) {
            (Ok(()), Ok(file)) => self.file = file,
            // Disk full: keep using the old file, as far as it can grow.
            (Ok(()), Err(_)) => drop(fs::rename(numbered(1), &self.path)),
            (Err(_), _) => {}
        }
        self.size = 0;
    }
}

/// The last lines of the current run, oldest first, each shortened.
pub(super) fn last_log_lines(path: &Path, lines: usize) -> Vec<String> {
    let end = read_end(path).unwrap_or_default();
    let mut words: Vec<String> = end
        .lines()
        .rev()
        .take_while(|line| !line.starts_with(STARTED))
        .filter(|line| !line.trim().is_empty())
        .take(lines)
        .map(|line| line.trim().chars().take(QUOTED_CHARS).collect())
        .collect();
    words.reverse();
    words
}

/// Start of the line that begins a run.
const STARTED: &str = "shipway: started ";

/// The note at the start of a run.
pub(super) fn started_line(what: &str) -> String {
    format!("started {what}")
}

fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(END_BYTES)))?;
    let mut end = Vec::new();
    file.take(END_BYTES).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_rotated_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = InstanceLog::open(&path).unwrap();
        log.bytes_max = 2;
        for round in b'0'..b'4' {
            log.write_output(&[round, b'\n']);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            (read("log"), read("log.1"), read("log.2")),
            ("3\n".into(), "2\n".into(), "1\n".into())
        );
        assert!(!folder.path().join("log.3").exists());
    }

    #[test]
    fn what_a_full_disk_refuses_is_counted_and_said_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = InstanceLog::open(&path).unwrap();
        let good = std::mem::replace(
            &mut log.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        log.write_output(b"lost\n");
        log.write_output(b"lost too\n");
        log.file = good;
        log.write_output(b"there again\n");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "\nshipway: 14 bytes are missing here, the disk was full\nthere again\n"
        );
    }

    #[test]
    fn last_words_are_of_this_run_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        let mut log = InstanceLog::open(&path).unwrap();
        assert!(last_log_lines(&path, 3).is_empty());
        log.write_note(&started_line("a"));
        log.write_output(b"old\n");
        log.write_note(&started_line("b"));
        assert!(last_log_lines(&path, 3).is_empty());
        log.write_output(b"one\n\n two \nthree\nunfinished");
        assert_eq!(last_log_lines(&path, 3), ["two", "three", "unfinished"]);
    }
}
