//! Workflow commands in a step's output: `::error file=a.rs,line=3::text`, and the older `##[error]text`.

/// A line that is a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// `error`, `group`, `add-mask`, …
    pub(crate) name: String,
    /// `file`, `line`, `name`, …
    pub(crate) properties: Vec<(String, String)>,
    /// What stands behind it.
    pub(crate) value: String,
}

impl Command {
    /// A property by its name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Reads a line; `None` when it is no command.
pub(crate) fn parse(line: &str) -> Option<Command> {
    let line = line.trim_start();
    if let Some(rest) = line.strip_prefix("::") {
        let (head, value) = rest.split_once("::")?;
        return build(head, value, unescape, unescape_property);
    }
    // Anywhere in the line, as the runner has it.
    let rest = &line[line.find("##[")? + 3..];
    let (head, value) = rest.split_once(']')?;
    build(head, value, unescape_old, unescape_old)
}

fn build(
    head: &str,
    value: &str,
    of_value: fn(&str) -> String,
    of_property: fn(&str) -> String,
) -> Option<Command> {
    let (name, rest) = head.split_once(' ').unwrap_or((head, ""));
    let fine = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let separator = if rest.contains(';') { ';' } else { ',' };
    let pairs = rest
        .split(separator)
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), of_property(value)));
    fine.then(|| Command {
        name: name.to_ascii_lowercase(),
        properties: pairs.collect(),
        value: of_value(value),
    })
}

fn unescape(text: &str) -> String {
    text.replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%25", "%")
}

fn unescape_property(text: &str) -> String {
    text.replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%3A", ":")
        .replace("%2C", ",")
        .replace("%25", "%")
}

fn unescape_old(text: &str) -> String {
    text.replace("%3B", ";")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
        .replace("%5D", "]")
        .replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let command = parse("::error file=src/a.rs,line=3,title=No%3A way::it%0Abroke").unwrap();
        assert_eq!(
            (
                command.name.as_str(),
                command.get("file"),
                command.get("LINE"),
                command.get("title")
            ),
            ("error", Some("src/a.rs"), Some("3"), Some("No: way"))
        );
        assert_eq!(command.value, "it\nbroke");
        assert_eq!(parse("##[group]Build").unwrap().name, "group");
        assert_eq!(parse("  ::endgroup::").unwrap().name, "endgroup");
        for plain in ["", "::", "::::", "a::b::c", "##[", ":: x::"] {
            assert_eq!(parse(plain), None, "{plain}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in ".{0,80}") {
            let _ = parse(&line);
            let _ = parse(&format!("::{line}"));
            let _ = parse(&format!("##[{line}"));
        }
    }
}
