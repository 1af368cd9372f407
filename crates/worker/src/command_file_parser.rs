//! Parser for command files: `GITHUB_OUTPUT`, `GITHUB_ENV` and `GITHUB_STATE` contain names and values. Follows
//! GitHub's runner.

/// An invalid line of a command file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} ({shown:?}): {problem}")]
pub(crate) struct CommandFileError {
    number: usize,
    /// The beginning of the line.
    shown: String,
    problem: LineProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum LineProblem {
    #[error("a name is missing before `=`")]
    NoName,
    #[error("`name<<DELIMITER` needs both")]
    IncompleteHeredoc,
    #[error("the delimiter {0:?} is missing")]
    UnclosedHeredoc(String),
    #[error("neither `name=value` nor `name<<DELIMITER`")]
    UnknownForm,
}

/// Parses `name=value` lines and `name<<DELIMITER` blocks: the first of `=` and `<<` determines the form.
///
/// Returns the pairs before the first error, and that error.
pub(crate) fn parse_pairs(text: &str) -> (Vec<(String, String)>, Result<(), CommandFileError>) {
    let mut found = Vec::new();
    let mut lines = text.split('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let failed = |problem: LineProblem| {
            let shown: String = line.chars().take(80).collect();
            Err(CommandFileError {
                number: number + 1,
                shown,
                problem,
            })
        };
        let (equals, heredoc) = (line.find('='), line.find("<<"));
        match (equals, heredoc) {
            (Some(at), heredoc) if heredoc.is_none_or(|heredoc| at < heredoc) => {
                if at == 0 {
                    return (found, failed(LineProblem::NoName));
                }
                found.push((line[..at].to_owned(), line[at + 1..].to_owned()));
            }
            (_, Some(at)) => {
                let (name, delimiter) = (&line[..at], &line[at + 2..]);
                if name.is_empty() || delimiter.is_empty() {
                    return (found, failed(LineProblem::IncompleteHeredoc));
                }
                match read_heredoc(&mut lines, delimiter) {
                    Some(value) => found.push((name.to_owned(), value)),
                    None => {
                        let problem = LineProblem::UnclosedHeredoc(delimiter.to_owned());
                        return (found, failed(problem));
                    }
                }
            }
            _ => return (found, failed(LineProblem::UnknownForm)),
        }
    }
    (found, Ok(()))
}

/// Reads the lines up to the delimiter.
fn read_heredoc<'t>(
    lines: &mut impl Iterator<Item = (usize, &'t str)>,
    delimiter: &str,
) -> Option<String> {
    let mut value: Vec<&str> = Vec::new();
    for (_, line) in lines {
        if line == delimiter {
            return Some(value.join("\n"));
        }
        value.push(line);
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_of_equals_and_heredoc_decides() {
        for (text, expected) in [
            ("a=b<<c\n", vec![("a", "b<<c")]),
            ("a<<b=c\nx\nb=c\n", vec![("a", "x")]),
            (
                "d<<E\n1=2\n\n3\nE\nf=\n",
                vec![("d", "1=2\n\n3"), ("f", "")],
            ),
            ("e<<E\nE\n", vec![("e", "")]),
            ("g<<E\n\nE", vec![("g", "")]),
            ("\n\nh=1\nh=2", vec![("h", "1"), ("h", "2")]),
            ("i= =", vec![("i", " =")]),
            ("j<<E\n E\nE \nE\n", vec![("j", " E\nE ")]),
        ] {
            let (found, result) = parse_pairs(text);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            assert_eq!((found, result), (expected, Ok(())), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_named_by_its_line_and_what_came_before_counts() {
        for (text, before, why) in [
            ("a=1\nnonsense\n", 1, "line 2 (\"nonsense\")"),
            ("a=1\nb<<EOF\nnever\n", 1, "\"EOF\" is missing"),
            ("=x", 0, "a name is missing"),
            ("<<E\nE", 0, "needs both"),
            ("a<<\n", 0, "needs both"),
        ] {
            let (found, result) = parse_pairs(text);
            assert_eq!(found.len(), before, "{text:?}");
            assert!(result.unwrap_err().to_string().contains(why), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[=<\nEéa ]{0,60}") {
            let _ = parse_pairs(&text);
        }
    }
}
