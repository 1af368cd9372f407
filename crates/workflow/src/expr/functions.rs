//! What the functions answer. Errors are sentences without the function's name.

use std::fmt::Write as _;

use super::{json, text, value::Value};

pub(super) const TOO_LARGE: &str =
    "the result is larger than the 10 MiB that one expression may make";

type Answer = Result<Value, String>;

/// Text in text, or an item loosely equal in an array.
pub(super) fn contains(searched: &Value, item: &Value) -> Value {
    Value::Bool(match searched {
        Value::Array(items) => items.iter().any(|each| each.loosely_equals(item)),
        Value::Object(_) => false,
        _ => {
            item.is_primitive()
                && text::fold(&searched.to_text()).contains(&text::fold(&item.to_text()))
        }
    })
}

pub(super) fn starts_with(searched: &Value, start: &Value) -> Value {
    let primitive = searched.is_primitive() && start.is_primitive();
    Value::Bool(
        primitive && text::fold(&searched.to_text()).starts_with(&text::fold(&start.to_text())),
    )
}

pub(super) fn ends_with(searched: &Value, end: &Value) -> Value {
    let primitive = searched.is_primitive() && end.is_primitive();
    Value::Bool(primitive && text::fold(&searched.to_text()).ends_with(&text::fold(&end.to_text())))
}

/// `{0}`, `{1}`, …; `{{` and `}}` stand for themselves.
pub(super) fn format(pattern: &Value, values: &[Value], limit: usize) -> Answer {
    let pattern = pattern.to_text();
    let mut out = String::new();
    let mut rest: &str = &pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix(brace) {
            out.push_str(brace);
            rest = escaped;
        } else if brace == "}" {
            return Err(format!(
                "a lone `}}` in '{}'; write `}}}}`",
                shortened(&pattern)
            ));
        } else {
            let (place, remaining) = placeholder(after, &pattern)?;
            let value = values.get(place).ok_or_else(|| {
                format!(
                    "'{}' asks for {{{place}}}, and {} given",
                    shortened(&pattern),
                    counted(values.len())
                )
            })?;
            out.push_str(&value.to_text());
            rest = remaining;
        }
        if out.len() > limit {
            return Err(TOO_LARGE.to_owned());
        }
    }
    out.push_str(rest);
    Ok(Value::from(out))
}

/// `0}` and what follows.
fn placeholder<'t>(text: &'t str, pattern: &str) -> Result<(usize, &'t str), String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let place = text[..digits].parse::<u8>().ok();
    let bad = || {
        format!(
            "a `{{` without `{{number}}` in '{}'; write `{{{{` for the character itself",
            shortened(pattern)
        )
    };
    match (place, &text[digits..]) {
        (Some(place), rest) if rest.starts_with('}') => Ok((usize::from(place), &rest[1..])),
        (Some(_), rest) if rest.starts_with(':') && rest.contains('}') => Err(format!(
            "formats after `:` are for no kind of value, in '{}'",
            shortened(pattern)
        )),
        _ => Err(bad()),
    }
}

fn counted(values: usize) -> String {
    match values {
        0 => "no value is".to_owned(),
        1 => "1 value is".to_owned(),
        more => format!("{more} values are"),
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

pub(super) fn join(items: &Value, separator: Option<&Value>, limit: usize) -> Answer {
    let items = match items {
        Value::Array(items) => items,
        Value::Object(_) => return Ok(Value::from("")),
        primitive => return Ok(primitive.to_text().into()),
    };
    let separator = separator
        .filter(|value| value.is_primitive())
        .map_or_else(|| ",".into(), Value::to_text);
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(&separator);
        }
        out.push_str(&item.to_text());
        if out.len() > limit {
            return Err(TOO_LARGE.to_owned());
        }
    }
    Ok(Value::from(out))
}

pub(super) fn to_json(value: &Value, limit: usize) -> Answer {
    let mut out = String::new();
    json::write(value, &mut out, limit).map_err(|json::TooLong| TOO_LARGE.to_owned())?;
    Ok(Value::from(out))
}

pub(super) fn from_json(text: &Value) -> Answer {
    let text = text.to_text();
    if text.trim().is_empty() {
        return Err("the text is empty, which is not JSON".to_owned());
    }
    serde_json::from_str::<Value>(&text).map_err(|error| {
        let mut message = format!("'{}' is not JSON: ", shortened(&text));
        write!(message, "{error}").expect("a String takes everything");
        message
    })
}
