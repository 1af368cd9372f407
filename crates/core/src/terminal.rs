//! Sanitizes foreign text for a terminal: output of jobs, commit subjects, branch names, keys of files, answers of programs.
//!
//! # Why
//!
//! A terminal obeys control sequences: they set its title, fill the clipboard (OSC 52), move the cursor over earlier output.
//! Only colours (SGR, `ESC [ … m`) are passed. Every place that prints goes through [`sanitize_for_terminal`].

use std::{borrow::Cow, iter::Peekable, str::Chars};

const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';
/// The one-character form of `ESC [`.
const CSI: char = '\u{9b}';
/// The one-character form of `ESC \`, which ends a string.
const STRING_TERMINATOR: char = '\u{9c}';
/// Characters between `ESC [` and `m`: true colour for text and background takes 37.
const COLOUR_CHARS_MAX: usize = 64;

/// Removes control sequences other than colours. Line feeds and tabs stay; other control characters become spaces where they
/// separate words (carriage return, vertical tab, form feed) and are removed otherwise.
///
/// ```
/// use shipway_core::terminal::sanitize_for_terminal;
/// assert_eq!(sanitize_for_terminal("\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J"), "\x1b[31mred\x1b[0m");
/// ```
#[must_use]
pub fn sanitize_for_terminal(text: &str) -> Cow<'_, str> {
    if !text.contains(is_filtered) {
        return Cow::Borrowed(text);
    }
    let mut sanitizer = Sanitizer {
        rest: text.chars().peekable(),
        out: String::with_capacity(text.len()),
        has_string_end: true,
    };
    sanitizer.run();
    Cow::Owned(sanitizer.out)
}

const fn is_filtered(letter: char) -> bool {
    matches!(letter, '\0'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

/// One-character forms of DCS, SOS, OSC, PM and APC.
const fn starts_string(letter: char) -> bool {
    matches!(letter, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}')
}

struct Sanitizer<'t> {
    rest: Peekable<Chars<'t>>,
    out: String,
    /// Whether a string may end on this line. Once none does, the rest of the line is not searched again: the work is linear.
    has_string_end: bool,
}

impl Sanitizer<'_> {
    fn run(&mut self) {
        while let Some(letter) = self.rest.next() {
            match letter {
                ESCAPE => self.skip_escape(),
                CSI => self.skip_control_sequence(),
                _ if starts_string(letter) => self.skip_string(),
                // The two characters of a line end on other systems.
                '\r' if self.rest.peek() == Some(&'\n') => {}
                '\r' | '\u{b}' | '\u{c}' => self.out.push(' '),
                _ if is_filtered(letter) => {}
                _ => {
                    self.has_string_end |= letter == '\n';
                    self.out.push(letter);
                }
            }
        }
    }

    /// Behind `ESC`.
    fn skip_escape(&mut self) {
        match self.rest.peek() {
            Some('[') => {
                self.rest.next();
                self.skip_control_sequence();
            }
            Some(']' | 'P' | 'X' | '^' | '_') => {
                self.rest.next();
                self.skip_string();
            }
            // Intermediate characters, then a final one: `ESC ( B`, `ESC c`.
            Some(' '..='~') => {
                while self.rest.next_if(|it| matches!(it, ' '..='/')).is_some() {}
                self.rest.next_if(|it| matches!(it, '0'..='~'));
            }
            _ => {}
        }
    }

    /// Behind `ESC [`: kept when it is a colour.
    fn skip_control_sequence(&mut self) {
        let mut parameters = String::new();
        while let Some(letter) = self.rest.next_if(|it| matches!(it, ' '..='?')) {
            parameters.push(letter);
        }
        let end = self.rest.next_if(|it| matches!(it, '@'..='~'));
        let is_colour = end == Some('m')
            && parameters.len() <= COLOUR_CHARS_MAX
            && parameters
                .chars()
                .all(|it| matches!(it, '0'..='9' | ';' | ':'));
        if is_colour {
            self.out.push(ESCAPE);
            self.out.push('[');
            self.out.push_str(&parameters);
            self.out.push('m');
        }
    }

    /// Skips a control string to its terminator. Without a terminator on the same line it is shown: nothing may hide the text
    /// after it.
    fn skip_string(&mut self) {
        if !self.has_string_end {
            return;
        }
        let mut ahead = self.rest.clone();
        while let Some(letter) = ahead.next_if(|it| *it != '\n') {
            let is_end = match letter {
                BELL | STRING_TERMINATOR => true,
                ESCAPE => ahead.next_if_eq(&'\\').is_some(),
                _ => false,
            };
            if is_end {
                self.rest = ahead;
                return;
            }
        }
        self.has_string_end = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_stay_and_everything_else_goes() {
        for (text, shown) in [
            ("plain ünïcode\tand\nlines", "plain ünïcode\tand\nlines"),
            ("\x1b[1;38;2;1;2;3mred\x1b[m", "\x1b[1;38;2;1;2;3mred\x1b[m"),
            ("\x1b[38:2::1:2:3mred", "\x1b[38:2::1:2:3mred"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]52;c;cHduZWQ=\x1b\\after", "after"),
            ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bPq#0~\x1b\\after", "after"),
            ("\x1b[2J\x1b[H\x1b[?1049h\x1b[6nx", "x"),
            ("\u{9b}2Jx\u{9d}0;t\u{9c}y\u{90}z\x07w", "xyw"),
            ("\u{9b}31mred", "\x1b[31mred"),
            ("\x1bc\x1b(0\x1b#8\x1b7x", "x"),
            ("10%\r20%\r\n\x07\x08\x7f", "10% 20%\n"),
            ("\x1b[>4;2mx\x1b[?1mx\x1b[1 mx", "xxx"),
            // What has no end hides nothing.
            ("\x1b]0;title and more\nnext", "0;title and more\nnext"),
            ("\x1b", ""),
            ("\x1b[31", ""),
            ("\x1b\x1b[31mx", "\x1b[31mx"),
        ] {
            assert_eq!(sanitize_for_terminal(text), shown, "{text:?}");
        }
        // A million strings without an end take no longer than one.
        let many = "\x1b]".repeat(1_000_000);
        assert_eq!(sanitize_for_terminal(&many), "");
        let long = format!("\x1b[{}mx", "1;".repeat(100));
        assert_eq!(sanitize_for_terminal(&long), "x");
    }

    proptest! {
        /// Whatever comes in, only colours come out, and nothing changes a second time.
        #[test]
        fn only_colours_come_out(text in "[\u{1b}\u{9b}\u{9d}\u{9c}\u{7}\r\n\\[\\]\\\\;:0-9mJPa ]{0,60}") {
            let shown = sanitize_for_terminal(&text).into_owned();
            let mut parts = shown.split(ESCAPE);
            prop_assert!(!parts.next().unwrap_or_default().contains(is_filtered));
            for part in parts {
                let colour = part.strip_prefix('[').and_then(|part| part.split_once('m'));
                let is_colour = colour.is_some_and(|(it, _)| it.chars().all(|it| "0123456789;:".contains(it)));
                prop_assert!(is_colour && !part.contains(is_filtered), "{shown:?}");
            }
            prop_assert_eq!(sanitize_for_terminal(&shown), shown.as_str());
        }
    }
}
