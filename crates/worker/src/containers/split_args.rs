//! Splits `options:`, `args` and the like into arguments.

/// Splits at whitespace; quotes of both kinds group, and a backslash escapes a quote or backslash. `None` if a quote
/// isn't closed. Not `shlex`: GitHub's rules keep other backslashes and know no comments.
///
/// `--health-cmd "pg_isready -U me" -m 1g` gives `--health-cmd`, `pg_isready -U me`, `-m`, `1g`.
pub(super) fn split_args(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) if matches!(chars.peek(), Some('"' | '\'' | '\\')) => {
                let escaped = chars.next().unwrap_or(c);
                word.get_or_insert_default().push(escaped);
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together() {
        for (text, expected) in [
            ("", "[]"),
            ("  -m 1g\n  --init ", r#"["-m", "1g", "--init"]"#),
            (
                r#"--health-cmd "pg_isready -U me" -x"#,
                r#"["--health-cmd", "pg_isready -U me", "-x"]"#,
            ),
            (
                r#"--health-cmd='redis-cli "ping"' '' "a\"b""#,
                r#"["--health-cmd=redis-cli \"ping\"", "", "a\"b"]"#,
            ),
            (r"C:\x \'a", r#"["C:\\x", "'a"]"#),
        ] {
            assert_eq!(
                format!("{:?}", split_args(text).unwrap()),
                expected,
                "{text:?}"
            );
        }
        assert_eq!(split_args("a \"b"), None);
    }
}
