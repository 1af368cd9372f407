//! The values that rules compute with, and JavaScript's conversions between them, which JsonLogic is defined by.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::limits::SAFE_INTEGER_MAX;

/// Bytes of text that cost one step.
pub(super) const TEXT_BYTES_PER_STEP: usize = 16;

/// A value in an evaluation. What the flag file and the context have is borrowed.
#[derive(Clone, Debug)]
pub(crate) enum TargetingOperand<'a> {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Cow<'a, str>),
    /// An array, an object, or an integer that a float doesn't hold.
    Json(&'a Value),
    List(Vec<TargetingOperand<'a>>),
}

impl<'a> TargetingOperand<'a> {
    pub(crate) fn from_json(value: &'a Value) -> TargetingOperand<'a> {
        match value {
            Value::Null => TargetingOperand::Null,
            Value::Bool(boolean) => TargetingOperand::Boolean(*boolean),
            Value::String(text) => TargetingOperand::Text(Cow::Borrowed(text)),
            Value::Number(number) if !is_safe(number) => TargetingOperand::Json(value),
            Value::Number(number) => TargetingOperand::from_number(float_of(number)),
            Value::Array(_) | Value::Object(_) => TargetingOperand::Json(value),
        }
    }

    /// JSON has no infinity and no NaN: an arithmetic error gives null.
    pub(crate) fn from_number(number: f64) -> TargetingOperand<'a> {
        if number.is_finite() {
            TargetingOperand::Number(number)
        } else {
            TargetingOperand::Null
        }
    }

    /// Its elements, if it is an array.
    pub(crate) fn into_elements(self) -> Option<Vec<TargetingOperand<'a>>> {
        match self {
            TargetingOperand::List(elements) => Some(elements),
            TargetingOperand::Json(Value::Array(elements)) => {
                Some(elements.iter().map(TargetingOperand::from_json).collect())
            }
            _ => None,
        }
    }

    /// How many elements it has, if it is an array.
    pub(crate) fn count_elements(&self) -> Option<usize> {
        match self {
            TargetingOperand::List(elements) => Some(elements.len()),
            TargetingOperand::Json(Value::Array(elements)) => Some(elements.len()),
            _ => None,
        }
    }

    /// The steps that copying or comparing it costs; nothing for a scalar.
    pub(crate) fn count_steps(&self) -> usize {
        match self {
            TargetingOperand::Text(text) => text.len() / TEXT_BYTES_PER_STEP,
            TargetingOperand::List(elements) => elements
                .iter()
                .map(|element| 1 + element.count_steps())
                .sum(),
            TargetingOperand::Json(value) => count_json_steps(value),
            TargetingOperand::Null | TargetingOperand::Boolean(_) | TargetingOperand::Number(_) => {
                0
            }
        }
    }

    /// The member or element `name`, if there is one.
    pub(crate) fn member(&self, name: &str) -> Option<TargetingOperand<'a>> {
        match self {
            TargetingOperand::Json(Value::Object(members)) => {
                members.get(name).map(TargetingOperand::from_json)
            }
            TargetingOperand::Json(Value::Array(elements)) => elements
                .get(name.parse::<usize>().ok()?)
                .map(TargetingOperand::from_json),
            TargetingOperand::List(elements) => elements.get(name.parse::<usize>().ok()?).cloned(),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            TargetingOperand::Text(text) => Some(text),
            _ => None,
        }
    }

    /// JsonLogic's truth: JavaScript's, but an empty array is false.
    pub(crate) fn is_truthy(&self) -> bool {
        match self {
            TargetingOperand::Null => false,
            TargetingOperand::Boolean(boolean) => *boolean,
            TargetingOperand::Number(number) => *number != 0.0,
            TargetingOperand::Text(text) => !text.is_empty(),
            TargetingOperand::Json(Value::Array(elements)) => !elements.is_empty(),
            TargetingOperand::Json(_) => true,
            TargetingOperand::List(elements) => !elements.is_empty(),
        }
    }

    /// JavaScript's `Number(value)`; `None` is NaN.
    pub(crate) fn to_number(&self) -> Option<f64> {
        match self {
            TargetingOperand::Null => Some(0.0),
            TargetingOperand::Boolean(boolean) => Some(f64::from(u8::from(*boolean))),
            TargetingOperand::Number(number) => Some(*number),
            TargetingOperand::Text(text) => parse_number(text),
            TargetingOperand::Json(Value::Number(number)) => Some(float_of(number)),
            TargetingOperand::Json(Value::Object(_)) => None,
            TargetingOperand::Json(_) | TargetingOperand::List(_) => parse_number(&self.to_text()),
        }
    }

    /// JavaScript's `parseFloat(value)`: the number that a text starts with.
    pub(crate) fn to_leading_number(&self) -> Option<f64> {
        match self {
            TargetingOperand::Null | TargetingOperand::Boolean(_) => None,
            TargetingOperand::Number(number) => Some(*number),
            TargetingOperand::Text(text) => parse_leading_number(text),
            TargetingOperand::Json(_) | TargetingOperand::List(_) => {
                parse_leading_number(&self.to_text())
            }
        }
    }

    /// JavaScript's `String(value)`, but null is empty as in a join.
    pub(crate) fn to_text(&self) -> Cow<'_, str> {
        match self {
            TargetingOperand::Null => Cow::Borrowed(""),
            TargetingOperand::Boolean(true) => Cow::Borrowed("true"),
            TargetingOperand::Boolean(false) => Cow::Borrowed("false"),
            TargetingOperand::Number(number) => Cow::Owned(format_number(*number)),
            TargetingOperand::Text(text) => Cow::Borrowed(text),
            TargetingOperand::Json(Value::Number(number)) => Cow::Owned(number.to_string()),
            TargetingOperand::Json(Value::Array(elements)) => {
                Cow::Owned(join_texts(elements.iter().map(TargetingOperand::from_json)))
            }
            TargetingOperand::Json(_) => Cow::Borrowed("[object Object]"),
            TargetingOperand::List(elements) => Cow::Owned(join_texts(elements.iter().cloned())),
        }
    }

    fn is_collection(&self) -> bool {
        matches!(
            self,
            TargetingOperand::List(_) | TargetingOperand::Json(Value::Array(_) | Value::Object(_))
        )
    }

    /// `===`, but arrays and objects are compared by what they hold, not by where they are.
    pub(crate) fn strictly_equals(&self, other: &TargetingOperand<'a>) -> bool {
        use TargetingOperand::{Boolean, Json, List, Null, Number, Text};
        match (self, other) {
            (Null, Null) => true,
            (Boolean(left), Boolean(right)) => left == right,
            (Number(left), Number(right)) => left == right,
            (Text(left), Text(right)) => left == right,
            (Json(left), Json(right)) => left == right,
            (List(left), List(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|(left, right)| left.strictly_equals(right))
            }
            (List(list), Json(Value::Array(array))) | (Json(Value::Array(array)), List(list)) => {
                list.len() == array.len()
                    && list.iter().zip(array).all(|(left, right)| {
                        left.strictly_equals(&TargetingOperand::from_json(right))
                    })
            }
            _ => false,
        }
    }

    /// JavaScript's `==`.
    pub(crate) fn loosely_equals(&self, other: &TargetingOperand<'a>) -> bool {
        use TargetingOperand::{Boolean, Null, Text};
        match (self, other) {
            (Null, _) | (_, Null) => matches!((self, other), (Null, Null)),
            (Text(left), Text(right)) => left == right,
            (Boolean(left), Boolean(right)) => left == right,
            _ if self.is_collection() && other.is_collection() => self.strictly_equals(other),
            (Text(text), collection) | (collection, Text(text)) if collection.is_collection() => {
                *text == collection.to_text()
            }
            _ => match (self.to_number(), other.to_number()) {
                (Some(left), Some(right)) => left == right,
                _ => false,
            },
        }
    }

    /// The order of `<`: of two texts by their characters, of anything else as numbers. `None` makes each comparison false.
    pub(crate) fn compare(&self, other: &TargetingOperand<'a>) -> Option<Ordering> {
        if let (Some(left), Some(right)) = (self.as_text(), other.as_text()) {
            return Some(left.cmp(right));
        }
        self.to_number()?.partial_cmp(&other.to_number()?)
    }
}

fn count_json_steps(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() / TEXT_BYTES_PER_STEP,
        Value::Array(elements) => elements
            .iter()
            .map(|element| 1 + count_json_steps(element))
            .sum(),
        Value::Object(members) => members
            .values()
            .map(|member| 1 + count_json_steps(member))
            .sum(),
    }
}

fn float_of(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn is_safe(number: &Number) -> bool {
    let magnitude = number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::unsigned_abs));
    magnitude.is_none_or(|magnitude| magnitude <= SAFE_INTEGER_MAX)
}

fn join_texts<'a>(elements: impl Iterator<Item = TargetingOperand<'a>>) -> String {
    let mut joined = String::new();
    for (index, element) in elements.enumerate() {
        if index > 0 {
            joined.push(',');
        }
        joined.push_str(&element.to_text());
    }
    joined
}

fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(0.0);
    }
    // `str::parse` reads `inf` and `nan` too, which JSON has no values for.
    let is_decimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    is_decimal.then(|| text.parse().ok()).flatten()
}

fn parse_leading_number(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut end = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let whole = digits(end);
    end += whole;
    let mut has_digits = whole > 0;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        has_digits |= fraction > 0;
        end += 1 + fraction;
    }
    if !has_digits {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    text[..end].parse().ok()
}

/// As JavaScript prints numbers: an exponent below 1e-6 and from 1e21.
fn format_number(number: f64) -> String {
    let magnitude = number.abs();
    if number == 0.0 {
        return "0".to_owned();
    }
    if (1e-6..1e21).contains(&magnitude) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    if magnitude >= 1e21 {
        text.replace('e', "e+")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equality_converts_as_javascript_does() {
        for (left, right, expected) in [
            (json!(1), json!("1"), true),
            (json!(1), json!(1.0), true),
            (json!(""), json!(0), true),
            (json!(true), json!(1), true),
            (json!(null), json!(0), false),
            (json!(null), json!(null), true),
            (json!("a"), json!(0), false),
            (json!([1, 2]), json!("1,2"), true),
            (json!([1]), json!([1]), true),
            (json!({}), json!("x"), false),
            (json!("inf"), json!("infinity"), false),
            (
                json!(9_007_199_254_740_993u64),
                json!(9_007_199_254_740_993u64),
                true,
            ),
        ] {
            let operands = (
                TargetingOperand::from_json(&left),
                TargetingOperand::from_json(&right),
            );
            assert_eq!(
                operands.0.loosely_equals(&operands.1),
                expected,
                "{left} == {right}"
            );
            assert_eq!(
                operands.1.loosely_equals(&operands.0),
                expected,
                "{right} == {left}"
            );
        }
    }

    #[test]
    fn numbers_are_read_and_printed_as_javascript_does() {
        for (text, number, leading) in [
            (" 12 ", Some(12.0), Some(12.0)),
            ("3.5kg", None, Some(3.5)),
            ("1e3", Some(1000.0), Some(1000.0)),
            ("1e", None, Some(1.0)),
            (".5", Some(0.5), Some(0.5)),
            ("-", None, None),
            ("1.", Some(1.0), Some(1.0)),
            ("", Some(0.0), None),
            ("nan", None, None),
            ("é", None, None),
        ] {
            assert_eq!(parse_number(text), number, "{text}");
            assert_eq!(parse_leading_number(text), leading, "{text}");
        }
        for (number, text) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (123_456_789_012.0, "123456789012"),
        ] {
            assert_eq!(format_number(number), text);
        }
    }
}
