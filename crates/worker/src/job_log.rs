//! The log of a job: lines with a timestamp (`2026-11-21T04:18:58.123Z text`). Text must be masked before. If the
//! disk is full, lines are lost and counted; the job continues.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    rc::Rc,
};

use jiff::Timestamp;

/// File name of the log, in the job's folder.
pub const LOG_FILE: &str = "log";

const BUFFER_BYTES: usize = 256 * 1024;

/// A writer to the log. Writers for background steps share the file.
pub(crate) struct JobLog {
    shared: Rc<RefCell<SharedLog>>,
    /// Prefix of each line.
    prefix: Vec<u8>,
}

/// What all writers share.
struct SharedLog {
    file: File,
    buffer: Vec<u8>,
    /// Length of the file.
    offset: u64,
    lost: u64,
    stamp: LineTimestamp,
}

impl JobLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let shared = SharedLog {
            offset: file.metadata()?.len(),
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES + 4096),
            lost: 0,
            stamp: LineTimestamp::default(),
        };
        Ok(Self {
            shared: Rc::new(RefCell::new(shared)),
            prefix: Vec::new(),
        })
    }

    /// A writer for a background step.
    pub(crate) fn for_background_step(&self, name: &str) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            prefix: format!("[{name}] ").into_bytes(),
        }
    }

    /// Writes lines with the current time.
    pub(crate) fn write_lines(&mut self, text: &[u8]) {
        self.shared.borrow_mut().write_lines(&self.prefix, text);
    }

    /// The offset of the next line in bytes.
    pub(crate) fn offset(&mut self) -> u64 {
        self.flush();
        self.shared.borrow().offset
    }

    /// Number of lines lost because the disk was full.
    pub(crate) fn lost_lines(&self) -> u64 {
        self.shared.borrow().lost
    }

    /// Writes the buffer to the file, where readers see it.
    pub(crate) fn flush(&mut self) {
        self.shared.borrow_mut().flush();
    }
}

impl SharedLog {
    fn write_lines(&mut self, prefix: &[u8], text: &[u8]) {
        self.stamp.update(Timestamp::now());
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', text).chain([text.len()]) {
            let line = &text[from..end];
            self.buffer.extend_from_slice(&self.stamp.text);
            self.buffer.extend_from_slice(prefix);
            self.buffer
                .extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            self.buffer.push(b'\n');
            from = end + 1;
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => self.offset += self.buffer.len() as u64,
            Err(_) => {
                self.lost += memchr::memchr_iter(b'\n', &self.buffer).count() as u64;
                // Cut off a partial line, to which the next one would be appended.
                let _ = self.file.set_len(self.offset);
            }
        }
        self.buffer.clear();
    }
}

/// `2026-11-21T04:18:58.123Z `; only the changed parts are formatted again.
struct LineTimestamp {
    second: i64,
    text: [u8; 25],
}

impl Default for LineTimestamp {
    fn default() -> Self {
        Self {
            second: i64::MIN,
            text: *b"0000-00-00T00:00:00.000Z ",
        }
    }
}

impl LineTimestamp {
    fn update(&mut self, now: Timestamp) {
        if self.second != now.as_second() {
            self.second = now.as_second();
            let text = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            if let Some(place) = self.text.get_mut(..text.len()).filter(|it| it.len() == 19) {
                place.copy_from_slice(text.as_bytes());
            }
        }
        let mut millisecond = now.subsec_millisecond().unsigned_abs();
        for digit in self.text[20..23].iter_mut().rev() {
            *digit = b'0' + (millisecond % 10) as u8;
            millisecond /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_time_and_offsets_are_those_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = JobLog::open(&path).unwrap();
        log.write_lines(b"one\r\ntwo\n");
        let second = log.offset();
        log.write_lines(b"\n");
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        for (line, expected) in lines.iter().zip(["one", "two", ""]) {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.ends_with('Z') && time.len() == 24, "{time}");
            assert!(time.parse::<Timestamp>().is_ok(), "{time}");
            assert_eq!(rest, expected);
        }
        assert_eq!(text.len() - second as usize, 26);
    }

    #[test]
    fn the_time_is_right_to_the_millisecond() {
        let mut stamp = LineTimestamp::default();
        for time in [
            "2026-11-21T04:18:58.007Z",
            "2026-11-21T04:18:58.990Z",
            "2026-11-21T04:19:00.000Z",
        ] {
            stamp.update(time.parse().unwrap());
            assert_eq!(std::str::from_utf8(&stamp.text).unwrap().trim(), time);
        }
    }

    #[test]
    fn a_full_disk_costs_lines_that_are_counted() {
        let mut log = JobLog::open(Path::new("/dev/full")).unwrap();
        log.write_lines(b"one\ntwo\n");
        assert_eq!((log.offset(), log.lost_lines()), (0, 2));
        log.write_lines(b"three");
        assert_eq!((log.offset(), log.lost_lines()), (0, 3));
    }
}
