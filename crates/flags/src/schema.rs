//! Rules of flagd's schema about names and values.

use crate::diagnostic::{FlagProblem, NearestWord};
use crate::document_value::{DocumentObject, DocumentValue};
use crate::limits::{NAME_BYTES_MAX, SAFE_INTEGER_MAX};
use crate::problem_list::ProblemList;

/// The JSON type of a value, for people.
pub(crate) fn describe_type(value: &DocumentValue<'_>) -> &'static str {
    match value {
        DocumentValue::Null => "null",
        DocumentValue::Bool(_) => "a boolean",
        DocumentValue::Number(_) => "a number",
        DocumentValue::String(_) => "a string",
        DocumentValue::Array(_) => "an array",
        DocumentValue::Object(_) => "an object",
    }
}

/// Reports a name that is empty or too long; the walk is at its member.
pub(crate) fn check_name(name: &str, problems: &mut ProblemList<'_>) {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        problems.report_key(FlagProblem::NameLength { bytes: name.len() });
    }
}

/// Reports an integer that a double doesn't hold exactly.
pub(crate) fn check_safe_integer(value: &DocumentValue<'_>, problems: &mut ProblemList<'_>) {
    let DocumentValue::Number(number) = value else {
        return;
    };
    let magnitude = number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::unsigned_abs));
    let is_unsafe_float = number.is_f64()
        && number
            .as_f64()
            .is_some_and(|number| number.abs() > SAFE_INTEGER_MAX as f64);
    if magnitude.is_some_and(|magnitude| magnitude > SAFE_INTEGER_MAX) || is_unsafe_float {
        problems.report_rule(FlagProblem::UnsafeInteger);
    }
}

/// Reports unknown members whose name is near to a known one. Others are extensions of tools, which flagd ignores too.
pub(crate) fn check_property_names<'v>(
    object: &'v DocumentObject<'v>,
    known: &[&str],
    problems: &mut ProblemList<'v>,
) {
    for (name, _) in object.iter().filter(|(name, _)| !known.contains(name)) {
        let nearest = NearestWord::find(name, known.iter().copied());
        if nearest.0.is_some() {
            problems.push_key(name);
            problems.report_rule_key(FlagProblem::UnknownProperty {
                name: name.to_owned(),
                nearest,
            });
            problems.pop();
        }
    }
}
