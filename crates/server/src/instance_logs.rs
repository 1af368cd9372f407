//! The logs of instances by lines: the last ones, and those that follow.
//!
//! *Limits.* A page shows [`LINES_MAX`] lines, each cut after [`LINE_BYTES_MAX`]: the rest is in the raw log. What an instance prints is
//! not trusted: a line without end takes no more memory than that.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt as _;
use memchr::memchr;
use shipway_api::LogLine;
use shipway_core::target::InstanceId;
use shipway_targets::{
    target::{LogEnd, LogError},
    target_registry::TargetRegistry,
};

/// Lines that a page shows at first.
const LINES_MAX: usize = 1_000;
/// Bytes of all these lines.
const TAIL_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a line that are shown.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The end of a log.
pub(crate) struct InstanceLogTail {
    pub(crate) lines: Vec<LogLine>,
    /// Bytes up to the end of the last complete line.
    pub(crate) complete_bytes: u64,
    /// The number of the line after the last complete one.
    pub(crate) next_line: u64,
}

/// Reads the end of a log.
pub(crate) async fn read_log_tail(
    targets: &TargetRegistry,
    id: &InstanceId,
) -> Result<InstanceLogTail, LogError> {
    let mut chunks = targets.read_log(id, 0, LogEnd::Present)?;
    let mut splitter = LineSplitter::new(1);
    let mut tail = VecDeque::new();
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        for line in splitter.split(&chunk?) {
            bytes += line.text.len();
            tail.push_back(line);
            while tail.len() > LINES_MAX || bytes > TAIL_BYTES_MAX {
                bytes -= tail.pop_front().map_or(0, |line| line.text.len());
            }
        }
    }
    let (complete_bytes, next_line) = (splitter.complete_bytes, splitter.number);
    tail.extend(splitter.finish());
    Ok(InstanceLogTail {
        lines: tail.into_iter().map(LogLine::from).collect(),
        complete_bytes,
        next_line,
    })
}

/// A line before it is decoded: most lines of a long log are dropped.
pub(crate) struct RawLine {
    number: u64,
    text: Vec<u8>,
    omitted_bytes: u64,
}

impl From<RawLine> for LogLine {
    fn from(line: RawLine) -> Self {
        Self {
            number: line.number,
            at: None,
            text: String::from_utf8_lossy(&line.text).into_owned(),
            omitted_bytes: line.omitted_bytes,
        }
    }
}

/// Makes lines of the chunks of a log.
pub(crate) struct LineSplitter {
    /// The number of the current line.
    number: u64,
    current: Vec<u8>,
    /// Bytes of the current line that are left out.
    omitted_bytes: u64,
    /// Bytes of all lines before the current one.
    complete_bytes: u64,
}

impl LineSplitter {
    /// Begins at the first byte of the line `number`.
    pub(crate) const fn new(number: u64) -> Self {
        Self {
            number,
            current: Vec::new(),
            omitted_bytes: 0,
            complete_bytes: 0,
        }
    }

    /// The lines that end in this chunk.
    pub(crate) fn split(&mut self, chunk: &Bytes) -> Vec<RawLine> {
        let (mut rest, mut lines) = (&chunk[..], Vec::new());
        while let Some(end) = memchr(b'\n', rest) {
            self.extend_current(&rest[..end]);
            lines.push(self.end_line());
            self.complete_bytes += 1;
            rest = &rest[end + 1..];
        }
        self.extend_current(rest);
        lines
    }

    /// The last line, if it has no end.
    pub(crate) fn finish(mut self) -> Option<RawLine> {
        (!self.current.is_empty()).then(|| self.end_line())
    }

    fn extend_current(&mut self, text: &[u8]) {
        let room = LINE_BYTES_MAX.saturating_sub(self.current.len());
        let kept = room.min(text.len());
        self.current.extend_from_slice(&text[..kept]);
        self.omitted_bytes += (text.len() - kept) as u64;
    }

    fn end_line(&mut self) -> RawLine {
        let text = std::mem::take(&mut self.current);
        let omitted_bytes = std::mem::take(&mut self.omitted_bytes);
        self.complete_bytes += text.len() as u64 + omitted_bytes;
        self.number += 1;
        RawLine {
            number: self.number - 1,
            text,
            omitted_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_all(splitter: &mut LineSplitter, chunks: &[&str]) -> Vec<(u64, String, u64)> {
        let chunks = chunks.iter();
        let lines =
            chunks.flat_map(|chunk| splitter.split(&Bytes::copy_from_slice(chunk.as_bytes())));
        lines
            .map(LogLine::from)
            .map(|line| (line.number, line.text, line.omitted_bytes))
            .collect()
    }

    #[test]
    fn lines_are_joined_over_chunks_and_the_bytes_of_complete_ones_are_counted() {
        let mut splitter = LineSplitter::new(7);
        let lines = split_all(&mut splitter, &["on", "e\n\ntw", "o\nth"]);
        let expected = [(7, "one"), (8, ""), (9, "two")];
        let expected = expected.map(|(number, text)| (number, text.to_owned(), 0));
        assert_eq!(lines, expected);
        assert_eq!((splitter.complete_bytes, splitter.number), (9, 10));
        assert_eq!(splitter.finish().map(LogLine::from).unwrap().text, "th");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut splitter = LineSplitter::new(1);
        let long = "x".repeat(LINE_BYTES_MAX);
        let lines = split_all(&mut splitter, &[&long, &long, "y\n"]);
        assert_eq!(lines[0].1.len(), LINE_BYTES_MAX);
        assert_eq!(lines[0].2, LINE_BYTES_MAX as u64 + 1);
        assert_eq!(splitter.complete_bytes, 2 * LINE_BYTES_MAX as u64 + 2);
    }
}
