//! `paths`: the paths of the repository whose changes are released, see [`crate::repository::ServicePaths`].

use shipway_syntax::{Diagnostic, MappingFields, Spanned};
use shipway_workflow::model::FilterPattern;

/// Patterns in one list; each is matched with each changed path of a push.
const PATTERNS_MAX: usize = 100;

/// Reads `paths`: patterns as in `on.push.paths` of workflows.
pub(super) fn path_patterns(
    fields: &MappingFields<'_>,
    problems: &mut Vec<Diagnostic>,
) -> Vec<FilterPattern> {
    let listed = fields.strings("paths", problems);
    if let Some(first) = listed.get(PATTERNS_MAX) {
        let message = format!(
            "`paths` has {} patterns, but may have {PATTERNS_MAX}",
            listed.len()
        );
        let help = "use `**` for whole folders, such as libs/**";
        problems.push(Diagnostic::error("too-many", first.span, message).help(help));
    }
    let listed = listed.into_iter().take(PATTERNS_MAX);
    listed.filter_map(|text| pattern(&text, problems)).collect()
}

fn pattern(text: &Spanned<String>, problems: &mut Vec<Diagnostic>) -> Option<FilterPattern> {
    let path = text.value.trim_start_matches('!');
    let mut parts = path.split('/');
    if path.starts_with('/') || parts.any(|part| matches!(part, "." | "..")) {
        let message = format!(
            "the pattern `{}` matches no file of the repository",
            text.value
        );
        let help = "name paths from the root of the repository, such as libs/**, without `./`, `..` or a `/` in front";
        problems.push(Diagnostic::error("path-leaves", text.span, message).help(help));
        return None;
    }
    match text.value.parse() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("`{}` is not a valid pattern: {error}", text.value);
            problems.push(Diagnostic::error("bad-value", text.span, message));
            None
        }
    }
}
