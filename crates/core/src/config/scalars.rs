//! Values that several parts of the file have: one of a few words, a number or a percentage.

use shipway_syntax::{Diagnostic, MappingFields, Spanned, nearest};

use super::InstanceCount;

pub(crate) type Problems = Vec<Diagnostic>;

/// One of a few words.
pub(crate) fn one_of<T: Clone>(
    fields: &MappingFields<'_>,
    key: &str,
    words: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let text = fields.string(key, problems)?;
    let found = words
        .iter()
        .find(|(word, _)| *word == text.value)
        .map(|(_, value)| value.clone());
    if found.is_none() {
        problems.push(unknown_choice(
            &text,
            &format!("`{key}`"),
            &words.iter().map(|(word, _)| *word).collect::<Vec<_>>(),
        ));
    }
    found
}

/// A word that isn't one of those known.
pub(super) fn unknown_choice(text: &Spanned<String>, what: &str, known: &[&str]) -> Diagnostic {
    let problem = Diagnostic::error(
        "unknown-word",
        text.span,
        format!(
            "{what} must be one of {}, but this is `{}`",
            known.join(", "),
            text.value
        ),
    );
    match nearest(&text.value, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem,
    }
}

/// A number or a percentage.
pub(crate) fn count(
    fields: &MappingFields<'_>,
    key: &str,
    problems: &mut Problems,
) -> Option<InstanceCount> {
    let text = fields.string(key, problems)?;
    let parsed = match text.value.strip_suffix('%') {
        Some(_) => text.value.parse().ok().map(InstanceCount::Percent),
        None => text.value.parse().ok().map(InstanceCount::Number),
    };
    if parsed.is_none() {
        problems.push(Diagnostic::error(
            "wrong-type",
            text.span,
            format!(
                "`{key}` must be a number or a percentage, but this is `{}`",
                text.value
            ),
        ));
    }
    parsed
}
