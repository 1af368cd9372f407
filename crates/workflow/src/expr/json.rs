//! JSON as `toJSON` writes it: two spaces, empty collections on one line, numbers as expressions write them.

use super::value::ExprValue;

/// The text would be longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl ExprValue {
    /// The pretty JSON that `toJSON` gives: two spaces, and numbers as expressions write them.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        write(self, &mut out, usize::MAX).expect("there is no limit");
        out
    }
}

/// Appends `value` to `out`, which never grows past `limit` bytes by more than one item.
pub(crate) fn write(value: &ExprValue, out: &mut String, limit: usize) -> Result<(), TooLong> {
    nested(value, 0, out, limit)
}

fn nested(value: &ExprValue, level: usize, out: &mut String, limit: usize) -> Result<(), TooLong> {
    if out.len() > limit {
        return Err(TooLong);
    }
    match value {
        ExprValue::Null => out.push_str("null"),
        ExprValue::Bool(_) | ExprValue::Number(_) => out.push_str(&value.to_text()),
        ExprValue::String(text) => quote(text, out),
        ExprValue::Array(items) if items.is_empty() => out.push_str("[]"),
        ExprValue::Object(object) if object.is_empty() => out.push_str("{}"),
        ExprValue::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                next(at, level + 1, out);
                nested(item, level + 1, out, limit)?;
            }
            close(']', level, out);
        }
        ExprValue::Object(object) => {
            out.push('{');
            for (at, (name, value)) in object.iter().enumerate() {
                next(at, level + 1, out);
                quote(name, out);
                out.push_str(": ");
                nested(value, level + 1, out, limit)?;
            }
            close('}', level, out);
        }
    }
    Ok(())
}

fn next(at: usize, level: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
    indent(level, out);
}

fn close(bracket: char, level: usize, out: &mut String) {
    indent(level, out);
    out.push(bracket);
}

fn indent(level: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", level));
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            // JavaScript's line terminators are escaped as well as control characters.
            '\0'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)))
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}
