//! A text with spaces inserted where the parser is stricter than libyaml, on which GitHub's reader is modelled.
//!
//! # Why
//!
//! libyaml ignores indentation inside brackets and quotes, takes a `#` directly after a bracket or a quote for a comment, and
//! a tab after `key:` for a blank. `saphyr-parser` refuses all three. Spaces at these places change no value, so the text is padded there and parsed again; places in
//! the padded text are converted to those of the file.
//!
//! # Invariants
//!
//! - A text that the parser accepts is never padded.
//! - Spaces are only inserted: before a comment, after the colon of a key, or at the start of a line inside brackets or quotes.

use std::{borrow::Cow, collections::BTreeMap};

/// Limit on the bytes that are parsed again for padding.
const REPEATED_BYTES_MAX: usize = 2 << 20;

pub(crate) struct PaddedText<'t> {
    original: &'t str,
    /// Spaces to insert before a byte of the original text.
    insertions: BTreeMap<usize, usize>,
    text: Cow<'t, str>,
    /// For each insertion its first byte in the padded text, and all spaces up to its end; in order.
    offsets: Vec<(usize, usize)>,
    repeated_bytes: usize,
}

/// The strictness of the parser that caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParserStrictness {
    /// A comment without a space before it.
    Comment,
    /// A tab between a key and its value; the place is the value.
    Tab,
    /// A line inside brackets that is indented less than the block around it.
    BracketIndent,
    /// The same inside quotes; the place is the opening quote.
    QuoteIndent,
}

impl ParserStrictness {
    /// The parser has no codes for errors, so its constant messages stand for them; the tests below hold each.
    pub(crate) fn from_parser_message(message: &str) -> Option<Self> {
        match message {
            "comments must be separated from other tokens by whitespace" => Some(Self::Comment),
            "':' must be followed by a valid YAML whitespace" => Some(Self::Tab),
            "invalid indentation" | "invalid indentation in flow construct" => {
                Some(Self::BracketIndent)
            }
            "invalid indentation in quoted scalar" => Some(Self::QuoteIndent),
            _ => None,
        }
    }
}

impl<'t> PaddedText<'t> {
    pub(crate) const fn new(original: &'t str) -> Self {
        Self {
            original,
            insertions: BTreeMap::new(),
            text: Cow::Borrowed(original),
            offsets: Vec::new(),
            repeated_bytes: 0,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The byte of the original text for one of the padded text. O(log n).
    pub(crate) fn to_original(&self, padded: usize) -> usize {
        let next = self.offsets.partition_point(|(start, _)| *start < padded);
        let Some(last) = next.checked_sub(1) else {
            return padded;
        };
        let before = last.checked_sub(1).map_or(0, |it| self.offsets[it].1);
        let (start, total) = self.offsets[last];
        padded - before - (total - before).min(padded - start)
    }

    /// Pads the place of an error, a byte of the padded text. Returns false if that can't help.
    pub(crate) fn pad(&mut self, strictness: ParserStrictness, place: usize) -> bool {
        self.repeated_bytes += self.text.len();
        if self.repeated_bytes > REPEATED_BYTES_MAX {
            return false;
        }
        let place = self.to_original(place);
        let is_new = match strictness {
            ParserStrictness::Comment => self.insertions.insert(place, 1).is_none(),
            ParserStrictness::Tab => {
                let blanks = self.original[..place].trim_end_matches([' ', '\t']);
                self.insertions.insert(blanks.len(), 1).is_none()
            }
            ParserStrictness::BracketIndent => self.pad_line(place),
            ParserStrictness::QuoteIndent => self.pad_quoted(place),
        };
        self.rebuild();
        is_new
    }

    /// Pads the line whose first token is at `place`.
    fn pad_line(&mut self, place: usize) -> bool {
        let start = self.original[..place].rfind('\n').map_or(0, |it| it + 1);
        let is_first_token = self.original[start..place].trim().is_empty();
        let width = self.deepest_indent(place);
        is_first_token && self.insertions.insert(start, width).is_none()
    }

    /// Pads the lines of the scalar whose quote opens at `place`, except the first.
    fn pad_quoted(&mut self, place: usize) -> bool {
        let width = self.deepest_indent(place);
        let end = place + quoted_length(&self.original[place..]);
        let mut is_new = false;
        for (at, _) in self.original[place..end].match_indices('\n') {
            is_new |= self.insertions.insert(place + at + 1, width).is_none();
        }
        is_new
    }

    /// More columns than any block that is open at `place` is indented by.
    fn deepest_indent(&self, place: usize) -> usize {
        let is_indent = |c: char| matches!(c, ' ' | '-' | '?' | ':');
        let indent = |line: &str| line.chars().take_while(|c| is_indent(*c)).count();
        let lines = self.original[..place].lines();
        lines.map(indent).max().unwrap_or_default() + 2
    }

    fn rebuild(&mut self) {
        let (mut text, mut offsets) = (String::new(), Vec::new());
        let (mut copied, mut total) = (0, 0);
        for (&at, &count) in &self.insertions {
            text.push_str(&self.original[copied..at]);
            total += count;
            offsets.push((text.len(), total));
            text.extend(std::iter::repeat_n(' ', count));
            copied = at;
        }
        text.push_str(&self.original[copied..]);
        (self.text, self.offsets) = (Cow::Owned(text), offsets);
    }
}

/// The bytes of a quoted scalar at the start of a text, quotes included.
fn quoted_length(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    let quote = chars.next().map_or('"', |(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        if (c == '\\' && quote == '"') || (c == '\'' && quote == c && next == Some(c)) {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use crate::{SourceFile, YamlNode, parse};

    fn tree(text: &str) -> YamlNode {
        parse(&SourceFile::new("t.yml", text)).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn texts(node: &YamlNode) -> Vec<&str> {
        let items = node.as_sequence().unwrap().iter();
        items.map(|item| item.as_str().unwrap()).collect()
    }

    #[test]
    fn comments_may_follow_brackets_and_quotes_directly() {
        let read = tree("a: [x, y]# z\nb: {c: d}#e\nf: \"g\"#h\ni: 'j'#k\nl: m#n\n");
        assert_eq!(texts(read.get("a").unwrap()), ["x", "y"]);
        assert_eq!(read.get("b").unwrap().get("c").unwrap().as_str(), Some("d"));
        assert_eq!(read.get("f").unwrap().as_str(), Some("g"));
        assert_eq!(read.get("i").unwrap().as_str(), Some("j"));
        assert_eq!(read.get("l").unwrap().as_str(), Some("m#n"));
    }

    #[test]
    fn a_tab_may_follow_a_key() {
        let read = tree("a:\tb\nc:\n  d:\t\t'e'\n");
        assert_eq!(read.get("a").unwrap().as_str(), Some("b"));
        assert_eq!(read.get("c").unwrap().get("d").unwrap().as_str(), Some("e"));
    }

    #[test]
    fn indentation_means_nothing_inside_brackets() {
        let read = tree(
            "top:\n  deep:\n    - [\n    'one',\ntwo,\n      \"three\"\n    ]\n    - {\n'k': v\n}\n  next: 1\n",
        );
        let items = read.get("top").unwrap().get("deep").unwrap();
        let items = items.as_sequence().unwrap();
        assert_eq!(texts(&items[0]), ["one", "two", "three"]);
        assert_eq!(items[1].get("k").unwrap().as_str(), Some("v"));
        assert!(read.get("top").unwrap().get("next").is_some());
    }

    #[test]
    fn indentation_means_nothing_inside_quotes() {
        let read =
            tree("top:\n  deep:\n    a: \"one\ntwo \\\" x\n three\"\n    b: 'it''s\nhere'\n");
        let deep = read.get("top").unwrap().get("deep").unwrap();
        assert_eq!(deep.get("a").unwrap().as_str(), Some("one two \" x three"));
        assert_eq!(deep.get("b").unwrap().as_str(), Some("it's here"));
    }

    #[test]
    fn places_are_those_of_the_file() {
        let text = "a:\n  - [\n  'é',\n'last']#c\nb: [ü]#d\nend: x\n";
        let read = tree(text);
        let shown = |node: &YamlNode| &text[node.span.start..node.span.end];
        let list = &read.get("a").unwrap().as_sequence().unwrap()[0];
        assert_eq!(shown(list), "[\n  'é',\n'last']");
        assert_eq!(shown(&list.as_sequence().unwrap()[1]), "'last'");
        assert_eq!(shown(read.get("b").unwrap()), "[ü]");
        assert_eq!(shown(read.get("end").unwrap()), "x");
        let source = SourceFile::new("t.yml", "a: [b]#c\nd: [\n'e']#f\ng: *nothing\n");
        let problem = &parse(&source).unwrap_err()[0];
        assert!(
            problem.one_line(&source).starts_with("t.yml:4:4:"),
            "{problem:?}"
        );
    }

    #[test]
    fn bad_indentation_of_blocks_stays_an_error() {
        for text in ["a:\n    b: 1\n  c: 2\n", "a: [b\nc: d\n", "a: \"b\nc: d\n"] {
            assert!(parse(&SourceFile::new("t.yml", text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn padding_is_bounded() {
        let lines = "'x',\n".repeat(5_000);
        let text = format!("a:\n  - - [\n{lines}]\n");
        // Whether it is read or refused: in a bounded time.
        let _ = parse(&SourceFile::new("t.yml", text));
    }
}
