//! Where lines begin in a log: an index that grows with it, so that a window of a log of any size is read without the rest.
//!
//! # Invariants
//!
//! A mark is the place of the first byte of a line. From one mark to the next there are at most twice [`BYTES_PER_MARK`] bytes plus one
//! line, so that finding a line reads little.

use std::collections::BTreeMap;

use memchr::{memchr, memchr_iter, memrchr};

const BYTES_PER_MARK: usize = 64 * 1024;

/// The first byte of a line whose number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineMark {
    /// From 1.
    pub(super) number: u64,
    pub(super) offset: u64,
}

/// The index of a log, as far as it has been read.
#[derive(Clone, Debug)]
pub(super) struct LogIndex {
    marks: Vec<LineMark>,
    /// Complete lines.
    complete: u64,
    bytes: u64,
    /// Where the line after the last complete one begins.
    line_start: u64,
    /// Numbers of the lines at the offsets of steps.
    numbers: BTreeMap<u64, u64>,
}

impl Default for LogIndex {
    fn default() -> Self {
        Self {
            marks: vec![LineMark {
                number: 1,
                offset: 0,
            }],
            complete: 0,
            bytes: 0,
            line_start: 0,
            numbers: BTreeMap::new(),
        }
    }
}

impl LogIndex {
    /// Adds the next bytes of the log.
    pub(super) fn add(&mut self, block: &[u8]) {
        for part in block.chunks(BYTES_PER_MARK) {
            self.add_part(part);
        }
    }

    fn add_part(&mut self, part: &[u8]) {
        if let Some(first) = memchr(b'\n', part) {
            let next = LineMark {
                number: self.complete + 2,
                offset: self.bytes + first as u64 + 1,
            };
            let last = self.marks.last().map_or(0, |mark| mark.offset);
            if next.offset - last >= BYTES_PER_MARK as u64 {
                self.marks.push(next);
            }
        }
        // Counted as a whole, which the processor does many bytes at a time.
        self.complete += memchr_iter(b'\n', part).count() as u64;
        if let Some(last) = memrchr(b'\n', part) {
            self.line_start = self.bytes + last as u64 + 1;
        }
        self.bytes += part.len() as u64;
    }

    /// Bytes that were added.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All lines, including an incomplete last line.
    pub(super) const fn lines(&self) -> u64 {
        match self.line_start < self.bytes {
            true => self.complete + 1,
            false => self.complete,
        }
    }

    /// The last mark that is not behind this line.
    pub(super) fn mark_before_line(&self, number: u64) -> LineMark {
        let after = self.marks.partition_point(|mark| mark.number <= number);
        self.marks[after.saturating_sub(1)]
    }

    /// The last mark that is not behind this byte.
    pub(super) fn mark_before_offset(&self, offset: u64) -> LineMark {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        self.marks[after.saturating_sub(1)]
    }

    /// The number of the line that begins at a byte, where it was remembered.
    pub(super) fn number_at(&self, offset: u64) -> Option<u64> {
        self.numbers.get(&offset).copied()
    }

    /// Remembers the number of the line that begins at a byte.
    pub(super) fn remember_number(&mut self, offset: u64, number: u64) {
        self.numbers.insert(offset, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_near_a_mark_wherever_the_blocks_are_cut() {
        let text: String = (1..=10_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        assert!(text.len() > BYTES_PER_MARK);
        for size in [1, 7, 4_096, text.len()] {
            let mut index = LogIndex::default();
            text.as_bytes()
                .chunks(size)
                .for_each(|block| index.add(block));
            assert_eq!((index.lines(), index.bytes()), (10_000, text.len() as u64));
            for number in [1, 2, 5_000, 7_001, 9_999, 10_000] {
                let mark = index.mark_before_line(number);
                let rest = &text[usize::try_from(mark.offset).unwrap()..];
                let wanted = format!("line {number}\n");
                assert!(rest.starts_with(&format!("line {}\n", mark.number)));
                assert!(rest.find(&wanted).unwrap() <= 2 * BYTES_PER_MARK + 20);
                assert_eq!(index.mark_before_offset(mark.offset + 1), mark);
            }
        }
    }

    #[test]
    fn long_lines_have_marks_of_their_own_and_a_last_line_may_be_incomplete() {
        let mut index = LogIndex::default();
        let long = vec![b'x'; 300 * 1024];
        for _ in 0..3 {
            index.add(&long);
            index.add(b"\n");
        }
        index.add(b"end");
        assert_eq!(index.lines(), 4);
        assert_eq!(index.mark_before_line(3).number, 3);
        assert_eq!(LogIndex::default().lines(), 0);
    }
}
