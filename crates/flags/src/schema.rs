//! Rules of flagd's schema about names and values.

use serde_json::Value;

use crate::diagnostic::{FlagProblem, NearestWord};
use crate::limits::{NAME_BYTES_MAX, SAFE_INTEGER_MAX};
use crate::problem_list::ProblemList;

/// The JSON type of a value, for people.
pub(crate) fn describe_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reports a name that is empty or too long; the walk is at its member.
pub(crate) fn check_name(name: &str, problems: &mut ProblemList<'_>) {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        problems.report_key(FlagProblem::NameLength { bytes: name.len() });
    }
}

/// Reports an integer that a double doesn't hold exactly.
pub(crate) fn check_safe_integer(value: &Value, problems: &mut ProblemList<'_>) {
    let magnitude = value
        .as_u64()
        .or_else(|| value.as_i64().map(i64::unsigned_abs));
    let is_unsafe_float = value.is_f64()
        && value
            .as_f64()
            .is_some_and(|number| number.abs() > SAFE_INTEGER_MAX as f64);
    if magnitude.is_some_and(|magnitude| magnitude > SAFE_INTEGER_MAX) || is_unsafe_float {
        problems.report_rule(FlagProblem::UnsafeInteger);
    }
}

/// Reports unknown members whose name is near to a known one. Others are extensions of tools, which flagd ignores too.
pub(crate) fn check_property_names<'v>(
    object: &'v serde_json::Map<String, Value>,
    known: &[&str],
    problems: &mut ProblemList<'v>,
) {
    for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
        let nearest = NearestWord::find(name, known.iter().copied());
        if nearest.0.is_some() {
            problems.push_key(name);
            problems.report_rule_key(FlagProblem::UnknownProperty {
                name: name.clone(),
                nearest,
            });
            problems.pop();
        }
    }
}
