//! `deprecated-command`: commands that GitHub has taken back. Two of them do nothing unless they are allowed.

use super::{LintFinding, LintSubject};

pub(super) const CODE: &str = "deprecated-command";

/// The command, and what took its place.
const COMMANDS: [(&str, &str); 4] = [
    ("::set-output", r#"echo "name=value" >> "$GITHUB_OUTPUT""#),
    ("::save-state", r#"echo "name=value" >> "$GITHUB_STATE""#),
    ("::set-env", r#"echo "NAME=value" >> "$GITHUB_ENV""#),
    ("::add-path::", r#"echo "folder" >> "$GITHUB_PATH""#),
];

pub(super) fn check(subject: &LintSubject<'_>) -> Vec<LintFinding> {
    let mut found = Vec::new();
    for script in subject.scripts() {
        let text = script.as_str().unwrap_or_default();
        for (command, instead) in COMMANDS {
            for (at, _) in text.match_indices(command) {
                found.push(LintFinding::new(
                    subject.span_within(script, at..at + command.len()),
                    format!("`{}` is deprecated", command.trim_matches(':')),
                    format!("write {instead}"),
                ));
            }
        }
    }
    found
}
