//! Parser for workflow commands in a step's output: `::error file=a.rs,line=3::text`, and the older form
//! `##[error]text`.
//!
//! Follows GitHub's runner: only known names make a line a command; the newer form must be at the start of the line,
//! the older one may be anywhere in it.

/// The commands. [`CommandName::Resume`] is the token with which a step resumes stopped commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandName {
    Error,
    Warning,
    Notice,
    Debug,
    Group,
    EndGroup,
    AddMask,
    SetOutput,
    SaveState,
    SetEnv,
    AddPath,
    StopCommands,
    Resume,
    Echo,
    AddMatcher,
    RemoveMatcher,
}

const NAMES: [(&str, CommandName); 15] = [
    ("error", CommandName::Error),
    ("warning", CommandName::Warning),
    ("notice", CommandName::Notice),
    ("debug", CommandName::Debug),
    ("group", CommandName::Group),
    ("endgroup", CommandName::EndGroup),
    ("add-mask", CommandName::AddMask),
    ("set-output", CommandName::SetOutput),
    ("save-state", CommandName::SaveState),
    ("set-env", CommandName::SetEnv),
    ("add-path", CommandName::AddPath),
    ("stop-commands", CommandName::StopCommands),
    ("echo", CommandName::Echo),
    ("add-matcher", CommandName::AddMatcher),
    ("remove-matcher", CommandName::RemoveMatcher),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkflowCommand {
    pub(crate) name: CommandName,
    /// E.g. `file`, `line`, `name`.
    pub(crate) properties: Vec<(String, String)>,
    /// The text after the second `::` or after `]`.
    pub(crate) value: String,
}

impl WorkflowCommand {
    /// The value of a property; names are case-insensitive.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        let found = self
            .properties
            .iter()
            .rfind(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

pub(crate) fn is_command_name(word: &str) -> bool {
    NAMES
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case(word))
}

/// Cheap filter for lines that can't be commands. May have false positives, but no false negatives.
pub(crate) fn may_be_command(line: &[u8]) -> bool {
    let begun = line.trim_ascii_start();
    let newer = match begun.first() {
        Some(b':') => begun.starts_with(b"::"),
        // Unicode whitespace counts as well.
        Some(0x0b | 0x80..) => String::from_utf8_lossy(begun)
            .trim_start()
            .starts_with("::"),
        _ => false,
    };
    newer || memchr::memmem::find(line, b"##[").is_some()
}

/// Parses a line; `None` if it is no command. `resume` is the token that ends `stop-commands`.
pub(crate) fn parse_command(line: &str, resume: Option<&str>) -> Option<WorkflowCommand> {
    parse_double_colon(line, resume).or_else(|| parse_bracketed(line, resume))
}

fn parse_double_colon(line: &str, resume: Option<&str>) -> Option<WorkflowCommand> {
    let (head, value) = line.trim_start().strip_prefix("::")?.split_once("::")?;
    parse_head(head, value, resume, ',', &VALUE, &PROPERTY)
}

fn parse_bracketed(line: &str, resume: Option<&str>) -> Option<WorkflowCommand> {
    let (head, value) = line[line.find("##[")? + 3..].split_once(']')?;
    parse_head(head, value, resume, ';', &OLDER, &OLDER)
}

fn parse_head(
    head: &str,
    value: &str,
    resume: Option<&str>,
    separator: char,
    of_value: &[(&str, &str)],
    of_property: &[(&str, &str)],
) -> Option<WorkflowCommand> {
    let (word, rest) = head.split_once(' ').unwrap_or((head, ""));
    let known = NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(word))
        .map(|(_, name)| *name);
    let resumes = resume.is_some_and(|resume| resume.eq_ignore_ascii_case(word));
    let name = known.or(resumes.then_some(CommandName::Resume))?;
    let pairs = rest.trim().split(separator).filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (!key.is_empty() && !value.is_empty())
            .then(|| (key.trim().to_owned(), unescape(value, of_property)))
    });
    Some(WorkflowCommand {
        name,
        properties: pairs.collect(),
        value: unescape(value, of_value),
    })
}

// `%25` is last: `%250A` is the text `%0A`.
const VALUE: [(&str, &str); 3] = [("%0D", "\r"), ("%0A", "\n"), ("%25", "%")];
const PROPERTY: [(&str, &str); 5] = [
    ("%0D", "\r"),
    ("%0A", "\n"),
    ("%3A", ":"),
    ("%2C", ","),
    ("%25", "%"),
];
const OLDER: [(&str, &str); 5] = [
    ("%3B", ";"),
    ("%0D", "\r"),
    ("%0A", "\n"),
    ("%5D", "]"),
    ("%25", "%"),
];

fn unescape(text: &str, table: &[(&str, &str)]) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    table
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let line = "::error file=src/a.rs,line=3,title=No%3A way::it%0Abroke%250A";
        let command = parse_command(line, None).unwrap();
        assert_eq!(command.name, CommandName::Error);
        assert_eq!(command.property("file"), Some("src/a.rs"));
        assert_eq!(command.property("LINE"), Some("3"));
        assert_eq!(command.property("title"), Some("No: way"));
        assert_eq!(command.value, "it\nbroke%0A");
        let older = parse_command("12:00 ##[Error file=a;line=2]x%5D", None).unwrap();
        assert_eq!(
            (older.name, older.property("line"), older.value.as_str()),
            (CommandName::Error, Some("2"), "x]")
        );
        assert_eq!(
            parse_command("  ::endgroup::", None).unwrap().name,
            CommandName::EndGroup
        );
    }

    #[test]
    fn what_only_looks_like_one_is_text() {
        for plain in [
            "",
            "::",
            "::::",
            "a::b::c",
            "##[",
            ":: error::x",
            "::std::vec::Vec",
            "x ::error::y",
            "##[error",
            "::error",
            "##[command]git status",
        ] {
            assert_eq!(parse_command(plain, None), None, "{plain}");
        }
    }

    #[test]
    fn a_word_of_ones_own_resumes() {
        assert_eq!(parse_command("::t0ken::", None), None);
        let resumed = parse_command("::T0ken::", Some("t0ken")).unwrap();
        assert_eq!(resumed.name, CommandName::Resume);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line in "[:#\\[\\]%=,; a-zé0-9-]{0,60}", prefix in "(::|##\\[|)(error|group|)") {
            let line = format!("{prefix}{line}");
            if parse_command(&line, Some("error-")).is_some() {
                prop_assert!(may_be_command(line.as_bytes()), "{}", line);
            }
        }
    }
}
