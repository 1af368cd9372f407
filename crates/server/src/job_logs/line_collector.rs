//! Makes lines of a log of its blocks: a limited number of limited length.

use std::ops::ControlFlow;

use jiff::Timestamp;
use memchr::memchr;
use shipway_api::LogLine;

/// Bytes of a line that are shown: more is for the raw log.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of all lines of a window.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// `2026-11-21T04:18:58.123Z `, which begins each line.
const STAMP_BYTES: usize = 25;

/// Collects lines from one number on.
pub(super) struct LineCollector {
    /// The number of the line at the next byte.
    number: u64,
    first: u64,
    count: usize,
    current: Vec<u8>,
    omitted: u64,
    collected_bytes: usize,
    lines: Vec<LogLine>,
}

impl LineCollector {
    /// Takes blocks from the beginning of the line `number`, collects `count` lines from the line `first`.
    pub(super) const fn new(number: u64, first: u64, count: usize) -> Self {
        Self {
            number,
            first,
            count,
            current: Vec::new(),
            omitted: 0,
            collected_bytes: 0,
            lines: Vec::new(),
        }
    }

    /// Takes a block; breaks once there are enough lines.
    pub(super) fn add(&mut self, mut block: &[u8]) -> ControlFlow<()> {
        while !block.is_empty() {
            let end = memchr(b'\n', block);
            let text = &block[..end.unwrap_or(block.len())];
            if self.number >= self.first {
                let room = (STAMP_BYTES + LINE_BYTES_MAX).saturating_sub(self.current.len());
                let kept = room.min(text.len());
                self.current.extend_from_slice(&text[..kept]);
                self.omitted += (text.len() - kept) as u64;
            }
            let Some(end) = end else { break };
            self.end_line();
            if self.lines.len() >= self.count || self.collected_bytes >= WINDOW_BYTES_MAX {
                return ControlFlow::Break(());
            }
            block = &block[end + 1..];
        }
        ControlFlow::Continue(())
    }

    /// The lines, with an incomplete last one.
    pub(super) fn finish(mut self) -> Vec<LogLine> {
        if !self.current.is_empty() && self.lines.len() < self.count {
            self.end_line();
        }
        self.lines
    }

    fn end_line(&mut self) {
        if self.number >= self.first {
            let line = read_line(self.number, &self.current, self.omitted);
            self.collected_bytes += self.current.len();
            self.lines.push(line);
            self.current.clear();
            self.omitted = 0;
        }
        self.number += 1;
    }
}

/// A line with its timestamp, where it has one.
pub(super) fn read_line(number: u64, bytes: &[u8], omitted_bytes: u64) -> LogLine {
    let (stamp, text) = split_stamp(bytes);
    LogLine {
        number,
        at: stamp,
        text: String::from_utf8_lossy(text).into_owned(),
        omitted_bytes,
    }
}

/// The timestamp of a line and its text.
pub(super) fn split_stamp(line: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let stamp = line
        .split_at_checked(STAMP_BYTES)
        .filter(|(stamp, _)| stamp.ends_with(b"Z "));
    let stamp = stamp.and_then(|(stamp, text)| {
        let stamp = std::str::from_utf8(&stamp[..STAMP_BYTES - 1]).ok()?;
        Some((stamp.parse().ok()?, text))
    });
    stamp.map_or((None, line), |(stamp, text)| (Some(stamp), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2026-11-21T04:18:58.123Z ";

    fn collected(text: &str, first: u64, count: usize, block: usize) -> Vec<LogLine> {
        let mut collector = LineCollector::new(1, first, count);
        for block in text.as_bytes().chunks(block) {
            if collector.add(block).is_break() {
                break;
            }
        }
        collector.finish()
    }

    #[test]
    fn lines_are_collected_wherever_the_blocks_are_cut() {
        let text = format!("{STAMP}one\n{STAMP}\n{STAMP}three\nno time");
        for block in 1..40 {
            let lines = collected(&text, 2, 10, block);
            let shown: Vec<_> = lines
                .iter()
                .map(|it| (it.number, it.text.as_str()))
                .collect();
            assert_eq!(shown, [(2, ""), (3, "three"), (4, "no time")]);
            assert!(lines[0].at.is_some() && lines[2].at.is_none());
            assert_eq!(collected(&text, 1, 2, block).len(), 2);
        }
        assert!(collected(&text, 9, 2, 10).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_says_so_and_many_end_the_window() {
        let long = "x".repeat(100_000);
        let text = format!("{STAMP}{long}\n").repeat(200);
        let lines = collected(&text, 1, 200, 65_536);
        assert_eq!(lines[0].text.len(), LINE_BYTES_MAX);
        assert_eq!(lines[0].omitted_bytes as usize, 100_000 - LINE_BYTES_MAX);
        assert!(lines.len() < 80, "{}", lines.len());
    }
}
