//! Values of fields that several keys of `shipway.yaml` have: one of a few words, a count or a percentage, a path, variables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shipway_syntax::{Diagnostic, MappingFields, Span, Spanned, nearest};

use crate::weight::Weight;

/// Mistakes found so far.
pub(crate) type Problems = Vec<Diagnostic>;

/// A number, or a percentage of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceCount {
    Number(u32),
    /// This share of the whole.
    Percent(Weight),
}

impl InstanceCount {
    /// Of `whole`, rounded up, as Kubernetes rounds a surge.
    #[must_use]
    pub fn round_up(self, whole: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Percent(share) => share.share_of(whole),
        }
    }

    /// Of `whole`, rounded down, as Kubernetes rounds what may be unavailable.
    #[must_use]
    pub fn round_down(self, whole: u32) -> u32 {
        match self {
            Self::Number(number) => number.min(whole),
            Self::Percent(share) => whole - share.rest().share_of(whole),
        }
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
pub(crate) fn unknown_choice(text: &Spanned<String>, what: &str, known: &[&str]) -> Diagnostic {
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

/// Something the format has and this version doesn't do.
pub(crate) fn later(span: Span, thing: &str) -> Diagnostic {
    Diagnostic::error("not-yet", span, format!("{thing} is not supported yet")).help("leave it out")
}

/// A path that stays in the repository.
pub(crate) fn path_in_repository(path: Spanned<String>, problems: &mut Problems) -> Option<String> {
    let leaves = path.value.starts_with('/') || path.value.split('/').any(|part| part == "..");
    if leaves || path.value.is_empty() {
        let message = format!("the path `{}` is outside the repository", path.value);
        problems.push(
            Diagnostic::error("path-leaves", path.span, message)
                .help("name a path relative to the folder of shipway.yaml, without `..`"),
        );
        return None;
    }
    Some(path.value.trim_start_matches("./").to_owned())
}

/// Names that a shell can export.
pub(crate) fn env(fields: &MappingFields<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (key, value) in fields.map("env", problems) {
        let name = &key.text;
        let fine = !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fine {
            variables.insert(name.clone(), value.value);
        } else {
            problems.push(
                Diagnostic::error(
                    "bad-value",
                    key.span,
                    format!("`{name}` is not a valid name of an environment variable"),
                )
                .help("use letters, digits and `_`, and don't start with a digit"),
            );
        }
    }
    variables
}
