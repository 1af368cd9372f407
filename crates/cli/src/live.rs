//! A few live lines at the bottom of a terminal, below a growing log.
//!
//! Nothing flickers: only changed lines are written, in one write, as a synchronized update where the terminal supports it.
//! Between two writes the cursor is at the beginning of the line below, visible and without colour, so that Ctrl-C leaves a
//! sane terminal. The terminal's size is looked up each time: it may change at any moment.
//!
//! ```text
//! let mut live = Live::on_stderr();        // `None` where it is no terminal, or a dumb one
//! live.show(vec!["⠋ working".to_owned()]); // again and again
//! live.above(|| println!("done: one"));    // then `show` again
//! live.clear();
//! ```

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
};

use shipway_core::terminal::sanitize_for_terminal;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Begin and end of a synchronized update; terminals without support ignore them.
const BEGIN: &str = "\u{1b}[?2026h";
const END: &str = "\u{1b}[?2026l";
/// Where a terminal doesn't say how large it is.
const USUAL: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};

/// Lines that change in place.
#[derive(Debug)]
pub struct Live {
    /// The visible lines, and the terminal's size when they were written.
    shown: Vec<String>,
    size: TerminalSize,
}

/// Of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Letters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Live {
    /// On stderr, where that is a terminal whose cursor can go up again.
    #[must_use]
    pub fn on_stderr() -> Option<Self> {
        let kind = std::env::var("TERM").unwrap_or_default();
        let can = std::io::stderr().is_terminal() && !matches!(kind.as_str(), "" | "dumb");
        can.then(|| Self {
            shown: Vec::new(),
            size: size(),
        })
    }

    /// How many letters a line may have now, and how many lines there may be.
    #[must_use]
    pub fn room(&self) -> TerminalSize {
        let size = size();
        TerminalSize {
            // In the last column a terminal hangs between two lines, and below the lines stands the cursor.
            columns: size.columns.saturating_sub(1),
            rows: size.rows.saturating_sub(1),
        }
    }

    /// Replaces the visible lines; lines without room are left out.
    pub fn show(&mut self, mut lines: Vec<String>) {
        let size = size();
        lines.truncate(size.rows.saturating_sub(1));
        for line in &mut lines {
            *line = sanitize_for_terminal(line).replace(['\n', '\t'], " ");
        }
        let text = if size == self.size {
            update(&self.shown, &lines)
        } else {
            erased(&self.shown, size) + &update(&[], &lines)
        };
        write_to_stderr(&text);
        (self.shown, self.size) = (lines, size);
    }

    /// Takes the lines away, prints above where they were.
    pub fn above(&mut self, print: impl FnOnce()) {
        self.clear();
        print();
    }

    /// Takes the lines away.
    pub fn clear(&mut self) {
        write_to_stderr(&erased(&self.shown, size()));
        self.shown.clear();
    }
}

/// In one write. A terminal that has gone away is noticed by who prints the story.
fn write_to_stderr(text: &str) {
    if !text.is_empty() {
        let _ = std::io::stderr()
            .lock()
            .write_all(format!("{BEGIN}{text}{END}").as_bytes());
    }
}

fn size() -> TerminalSize {
    let found = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    found
        .filter(|it| it.ws_col > 0 && it.ws_row > 0)
        .map_or(USUAL, |it| TerminalSize {
            columns: usize::from(it.ws_col),
            rows: usize::from(it.ws_row),
        })
}

/// What makes `after` of `before`, from below the last line to below the last line.
fn update(before: &[String], after: &[String]) -> String {
    if before == after {
        return String::new();
    }
    let mut out = up(before.len());
    for (index, line) in after.iter().enumerate() {
        if before.get(index) != Some(line) {
            let _ = write!(out, "\r{line}\u{1b}[K");
        }
        out.push('\n');
    }
    if before.len() > after.len() {
        out.push_str("\r\u{1b}[J");
    }
    out
}

/// The control sequence that erases these lines, which the terminal may have wrapped by now.
fn erased(lines: &[String], size: TerminalSize) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let rows: usize = lines
        .iter()
        .map(|line| width(line).div_ceil(size.columns.max(1)).max(1))
        .sum();
    format!("{}\r\u{1b}[J", up(rows.min(size.rows.saturating_sub(1))))
}

fn up(lines: usize) -> String {
    match lines {
        0 => String::new(),
        lines => format!("\u{1b}[{lines}A"),
    }
}

/// Letters that a text takes, escape sequences for colours left out.
fn width(text: &str) -> usize {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().width();
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.width()));
    first + rest.sum::<usize>()
}

/// A text of others on one line: no control characters, which a terminal would obey.
#[must_use]
pub fn tame(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// A text in lines of at most `columns`, parted between words; all but the first begin with `indent`.
#[must_use]
pub fn folded(text: &str, columns: usize, indent: &str) -> Vec<String> {
    let columns = columns.max(indent.width() + 2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let begins = line.trim().is_empty();
        if !begins && line.width() + 1 + word.width() > columns {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        } else if !begins {
            line.push(' ');
        }
        for letter in word.chars() {
            // A word that is longer than a line.
            if line.width() + letter.width().unwrap_or(0) > columns {
                lines.push(std::mem::replace(&mut line, indent.to_owned()));
            }
            line.push(letter);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn only_what_differs_is_written() {
        assert_eq!(update(&[], &lines("a\nb")), "\ra\u{1b}[K\n\rb\u{1b}[K\n");
        assert_eq!(
            update(&lines("a\nb\nc"), &lines("a\nB\nc")),
            "\u{1b}[3A\n\rB\u{1b}[K\n\n"
        );
        assert_eq!(
            update(&lines("a\nb\nc"), &lines("a")),
            "\u{1b}[3A\n\r\u{1b}[J"
        );
        assert_eq!(update(&lines("a"), &lines("a")), "");
    }

    #[test]
    fn what_a_narrower_terminal_has_folded_is_taken_away_whole() {
        let narrow = TerminalSize {
            columns: 4,
            rows: 24,
        };
        let shown = lines("\u{1b}[33mabcdef\u{1b}[0m\nab\n");
        assert_eq!(erased(&shown, narrow), "\u{1b}[3A\r\u{1b}[J");
        let low = TerminalSize {
            columns: 4,
            rows: 3,
        };
        assert_eq!(
            erased(&shown, low),
            "\u{1b}[2A\r\u{1b}[J",
            "no further than the top"
        );
        assert_eq!(erased(&[], narrow), "");
    }

    #[test]
    fn texts_are_folded_between_words_and_long_words_within() {
        assert_eq!(
            folded("error-rate 2% on #4, limit 1%", 16, "  "),
            ["error-rate 2% on", "  #4, limit 1%"]
        );
        assert_eq!(folded("abcdefgh ij", 5, " "), ["abcde", " fgh", " ij"]);
        assert_eq!(folded("漢字漢字", 5, ""), ["漢字", "漢字"]);
        assert_eq!(folded("", 5, ""), [""]);
        assert_eq!(tame("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
