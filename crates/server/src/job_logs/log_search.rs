//! Looks for a text in a log, block by block.

use memchr::{memchr, memchr_iter, memrchr};
use regex::bytes::{Regex, RegexBuilder};
use shipway_api::LogLine;

use super::line_collector::{read_line, split_stamp};

/// Lines that are returned; all are counted.
const LINES_MAX: usize = 500;
/// Bytes of a line that are returned.
const EXCERPT_BYTES: usize = 400;
/// Bytes before the match in an excerpt of a long line.
const BEFORE_MATCH_BYTES: usize = 120;
/// A line without an end is searched in parts of this size.
const PART_BYTES_MAX: usize = 1024 * 1024;

/// A text to look for: case-insensitive, as it is.
pub(crate) struct SearchText {
    pattern: Regex,
    bytes: usize,
}

/// Why a text can't be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSearchText {
    #[error("`text` is empty: give the text to look for, such as `text=error`")]
    Empty,
    #[error("`text` is longer than 200 characters: look for a shorter part of the line")]
    TooLong,
    #[error("`text` has a line break: look for a part of one line")]
    SeveralLines,
}

impl SearchText {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidSearchText> {
        if text.is_empty() {
            return Err(InvalidSearchText::Empty);
        }
        if text.chars().count() > 200 {
            return Err(InvalidSearchText::TooLong);
        }
        if text.contains(['\n', '\r']) {
            return Err(InvalidSearchText::SeveralLines);
        }
        let pattern = RegexBuilder::new(&regex::escape(text))
            .case_insensitive(true)
            .build()
            .map_err(|_| InvalidSearchText::TooLong)?;
        // A letter may be written in more bytes in its other case.
        let bytes = text.len() * 2;
        Ok(Self { pattern, bytes })
    }
}

/// The state of a search within a log.
pub(super) struct LogSearch<'t> {
    text: &'t SearchText,
    /// The number of the line at the beginning of `rest`.
    number: u64,
    /// The beginning of a line whose end has not been read.
    rest: Vec<u8>,
    /// Whether `rest` continues a line that was searched in part, and whether it was found there.
    part: PartialLine,
    pub(super) count: u64,
    pub(super) lines: Vec<LogLine>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PartialLine {
    Whole,
    Continued,
    ContinuedAndFound,
}

impl<'t> LogSearch<'t> {
    pub(super) const fn new(text: &'t SearchText) -> Self {
        Self {
            text,
            number: 1,
            rest: Vec::new(),
            part: PartialLine::Whole,
            count: 0,
            lines: Vec::new(),
        }
    }

    /// Takes the next block of the log.
    pub(super) fn add(&mut self, block: &[u8]) {
        let Some(end) = memrchr(b'\n', block) else {
            self.rest.extend_from_slice(block);
            self.search_part();
            return;
        };
        let mut complete = block;
        if !self.rest.is_empty() || self.part != PartialLine::Whole {
            // The line that began in an earlier block, by itself.
            let first = memchr(b'\n', block).unwrap_or(end) + 1;
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&block[..first]);
            self.end_line(&line);
            complete = &block[first..];
        }
        let end = memrchr(b'\n', complete).map_or(0, |end| end + 1);
        self.search_lines(&complete[..end]);
        self.rest.extend_from_slice(&complete[end..]);
    }

    /// Takes the end of the log.
    pub(super) fn finish(&mut self) {
        let line = std::mem::take(&mut self.rest);
        if !line.is_empty() {
            self.end_line(&line);
        }
    }

    /// Searches the rest of a line that began earlier.
    fn end_line(&mut self, line: &[u8]) {
        match self.part {
            PartialLine::Whole => self.search_lines(line),
            PartialLine::Continued => {
                if self.text.pattern.is_match(line) {
                    self.record(self.number, line, 0);
                }
                self.number += 1;
            }
            PartialLine::ContinuedAndFound => self.number += 1,
        }
        self.part = PartialLine::Whole;
    }

    /// Searches complete lines.
    fn search_lines(&mut self, lines: &[u8]) {
        let (mut counted, mut from) = (0, 0);
        while let Some(found) = self.text.pattern.find_at(lines, from) {
            let begin = memrchr(b'\n', &lines[..found.start()]).map_or(0, |at| at + 1);
            let end =
                memchr(b'\n', &lines[found.start()..]).map_or(lines.len(), |at| found.start() + at);
            self.number += memchr_iter(b'\n', &lines[counted..begin]).count() as u64;
            counted = begin;
            from = end;
            // A match in the timestamp alone does not count.
            let line = &lines[begin..end];
            let (_, said) = split_stamp(line);
            let stamp = line.len() - said.len();
            let place = match found.start() - begin < stamp {
                true => self.text.pattern.find(said).map(|found| found.start()),
                false => Some(found.start() - begin - stamp),
            };
            if let Some(place) = place {
                self.record(self.number, line, stamp + place);
            }
            if from >= lines.len() {
                break;
            }
        }
        self.number += memchr_iter(b'\n', &lines[counted..]).count() as u64;
    }

    /// Searches the bytes so far of a line without an end.
    fn search_part(&mut self) {
        if self.rest.len() < PART_BYTES_MAX {
            return;
        }
        let found = self
            .text
            .pattern
            .find(&self.rest)
            .map(|found| found.start());
        match (self.part, found) {
            (PartialLine::ContinuedAndFound, _) => {}
            (PartialLine::Whole | PartialLine::Continued, Some(place)) => {
                let line = std::mem::take(&mut self.rest);
                self.record(self.number, &line, place);
                self.part = PartialLine::ContinuedAndFound;
            }
            (PartialLine::Whole | PartialLine::Continued, None) => {
                self.part = PartialLine::Continued
            }
        }
        // What may be the beginning of the text stays.
        let kept = self.rest.len().saturating_sub(self.text.bytes);
        self.rest.drain(..kept);
    }

    fn record(&mut self, number: u64, line: &[u8], place: usize) {
        self.count += 1;
        if self.lines.len() >= LINES_MAX {
            return;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let excerpt = if line.len() <= EXCERPT_BYTES {
            read_line(number, line, 0)
        } else {
            let (at, text) = split_stamp(line);
            let begin = place
                .saturating_sub(line.len() - text.len())
                .saturating_sub(BEFORE_MATCH_BYTES)
                .min(text.len());
            let shown = &text[begin..text.len().min(begin + EXCERPT_BYTES)];
            LogLine {
                at,
                ..read_line(number, shown, (text.len() - shown.len()) as u64)
            }
        };
        self.lines.push(excerpt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_matches(log: &str, text: &str, block: usize) -> (u64, Vec<u64>) {
        let text = SearchText::parse(text).unwrap();
        let mut search = LogSearch::new(&text);
        log.as_bytes()
            .chunks(block)
            .for_each(|block| search.add(block));
        search.finish();
        let numbers = search.lines.iter().map(|line| line.number).collect();
        (search.count, numbers)
    }

    #[test]
    fn lines_are_found_wherever_the_blocks_are_cut() {
        let stamp = "2026-11-21T04:18:58.123Z ";
        let log = format!(
            "{stamp}one\n{stamp}An Error, error\n{stamp}\n{stamp}no\n{stamp}2026 error\n{stamp}ÄRGER error"
        );
        for block in [1, 2, 3, 7, 30, 64, 1_000] {
            assert_eq!(
                find_matches(&log, "ERROR", block),
                (3, vec![2, 5, 6]),
                "{block}"
            );
            // The timestamp is not part of the line.
            assert_eq!(find_matches(&log, "2026", block), (1, vec![5]), "{block}");
            assert_eq!(find_matches(&log, "ärger", block), (1, vec![6]), "{block}");
            assert_eq!(find_matches(&log, ".*", block), (0, vec![]), "{block}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_searched_without_being_kept() {
        let mut log = "x".repeat(3 * PART_BYTES_MAX);
        log.push_str("needle");
        log.push_str(&"x".repeat(2 * PART_BYTES_MAX));
        log.push_str("needle\nneedle\n");
        assert_eq!(find_matches(&log, "needle", 64 * 1024), (2, vec![1, 2]));
        let text = SearchText::parse("needle").unwrap();
        let mut search = LogSearch::new(&text);
        for _ in 0..64 {
            search.add(&vec![b'x'; 1 << 20]);
            assert!(search.rest.len() <= 2 * PART_BYTES_MAX);
        }
    }

    #[test]
    fn many_lines_are_counted_and_the_first_are_returned() {
        let (count, numbers) = find_matches(&"error\n".repeat(2_000), "error", 65_536);
        assert_eq!((count, numbers.len()), (2_000, LINES_MAX));
        for (text, error) in [
            ("", InvalidSearchText::Empty),
            ("a\nb", InvalidSearchText::SeveralLines),
            (&"x".repeat(201), InvalidSearchText::TooLong),
        ] {
            assert_eq!(SearchText::parse(text).err(), Some(error));
        }
    }
}
