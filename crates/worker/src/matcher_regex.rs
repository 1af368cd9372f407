//! Translates the patterns of problem matchers from JavaScript's syntax to that of `regex`.

use regex::bytes::{Regex, RegexBuilder};

use crate::matcher_error::DefinitionProblem;

/// Size of a compiled pattern; those of GitHub's setup actions take a few KiB.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Compiles a pattern that was written for JavaScript.
pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, DefinitionProblem> {
    let translated = translate_pattern(pattern);
    let build = |unicode: bool| {
        RegexBuilder::new(&translated)
            .unicode(unicode)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
    };
    // JavaScript's classes (`\d`, `\w`) are ASCII, so try without Unicode first; patterns with non-ASCII characters
    // in a class need it.
    let built = build(false).or_else(|_| build(true));
    built.map_err(|error| {
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default();
        DefinitionProblem::Unsupported {
            pattern: pattern.to_owned(),
            reason: why.trim_start_matches("error: ").to_owned(),
        }
    })
}

/// Translates JavaScript's syntax: escapes characters that only this engine treats as special.
fn translate_pattern(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let (mut in_class, mut rest) = (false, pattern);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let next = rest.chars().next();
                rest = &rest[next.map_or(0, char::len_utf8)..];
                match next {
                    // `\<` and `\>` are word boundaries in this engine.
                    Some(plain @ ('<' | '>')) => out.push(plain),
                    Some('/') => out.push('/'),
                    Some(next) => out.extend(['\\', next]),
                    None => out.push_str("\\\\"),
                }
            }
            '[' if in_class => out.push_str("\\["),
            // Set operators in this engine.
            '&' | '~' if in_class => out.extend(['\\', c]),
            '[' => {
                in_class = true;
                out.push('[');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            '{' if !in_class && !is_repetition(rest) => out.push_str("\\{"),
            c => out.push(c),
        }
    }
    out
}

/// Whether the text after `{` makes it a repetition such as `{2,3}`.
fn is_repetition(rest: &str) -> bool {
    let Some((inner, _)) = rest.split_once('}') else {
        return false;
    };
    let (from, to) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}
