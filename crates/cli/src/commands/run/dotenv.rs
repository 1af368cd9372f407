//! Files of `NAME=value` lines, as `.env` files are written: `export` before a name, comments, quotes. In double quotes `\n`,
//! `\t`, `\"` and `\\` are escapes; single quotes have none. A quoted value may go over several lines.
//!
//! Values are secrets more often than not: no error shows one.

use std::path::Path;

use crate::exit::Failure;

/// The names and values of a file.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    parse(&text).map_err(|line| {
        Failure::usage_with(
            format!("line {line} of {shown} is not NAME=value"),
            "put a value of several lines in quotes; a comment starts with #",
        )
    })
}

/// The names and values in a text, or the line, from 1, that is none.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let text = text.trim_start_matches('\u{feff}');
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let number = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            rest = after;
            continue;
        }
        let (name, _) = line.split_once('=').ok_or(number)?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if !is_name(name) {
            return Err(number);
        }
        let value = rest.split_once('=').ok_or(number)?.1;
        let value = value.trim_start_matches([' ', '\t']);
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote).ok_or(number)?,
            _ => plain(value),
        };
        pairs.push((name.to_owned(), value));
        rest = after;
    }
    Ok(pairs)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// A value without quotes, up to the end of the line or a comment after a blank; and the rest after the line.
fn plain(text: &str) -> (String, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let comment = line
        .match_indices('#')
        .find(|(at, _)| *at == 0 || line[..*at].ends_with([' ', '\t']));
    let value = comment.map_or(line, |(at, _)| &line[..at]);
    (value.trim().to_owned(), after)
}

/// A value up to its closing quote; and the rest after the line, of which only a comment may follow the quote.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    let end = loop {
        match chars.next()? {
            (at, c) if c == quote => break at + 1,
            (_, '\\') if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            (_, c) => value.push(c),
        }
    };
    let (line, after) = text[end..].split_once('\n').unwrap_or((&text[end..], ""));
    let line = line.trim();
    (line.is_empty() || line.starts_with('#')).then_some((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_env_files_are_written() {
        let text = "\u{feff}# a comment\nA=1\nexport B = two words  # why\n\nC=\nD='as $it \\n is'\nE=\"line\\nline \\\"q\\\"\" # c\nF=\"first\nsecond\"\nG=a#b\r\nurl=https://x/?a=b\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", ""),
            ("D", "as $it \\n is"),
            ("E", "line\nline \"q\""),
            ("F", "first\nsecond"),
            ("G", "a#b"),
            ("url", "https://x/?a=b"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_line_that_is_no_pair_is_told_by_its_number() {
        assert_eq!(parse("A=1\nhunter2\n"), Err(2));
        assert_eq!(parse("A=1\n\n1B=2"), Err(3));
        assert_eq!(parse("A='open\n\n"), Err(1));
        assert_eq!(parse("A='x' y\n"), Err(1));
    }
}
