//! What the functions answer. Errors are sentences without the function's name.

use std::sync::Arc;

use super::{json, json_reader, text, value::Value};

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

/// A piece of a pattern.
enum Piece<'p> {
    Text(&'p str),
    Place(usize),
}

/// The pieces of a pattern: `{0}`, `{1}`, …; `{{` and `}}` stand for themselves.
fn pieces(pattern: &str, given: usize) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest: &str = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        pieces.push(Piece::Text(&rest[..at]));
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix(brace) {
            pieces.push(Piece::Text(brace));
            rest = escaped;
        } else if brace == "}" {
            return Err(format!(
                "a lone `}}` in '{}'; write `}}}}`",
                shortened(pattern)
            ));
        } else {
            let (place, remaining) = placeholder(after, pattern)?;
            if place >= given {
                return Err(format!(
                    "'{}' asks for {{{place}}}, and {} given",
                    shortened(pattern),
                    counted(given)
                ));
            }
            pieces.push(Piece::Place(place));
            rest = remaining;
        }
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// Which of the `given` values a pattern asks for, in order.
pub(super) fn places(pattern: &Value, given: usize) -> Result<Vec<usize>, String> {
    let pieces = pieces(&pattern.to_text(), given)?
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Place(place) => Some(place),
        })
        .collect();
    Ok(pieces)
}

/// The pattern with the texts in their places; texts that it doesn't ask for may be left out.
pub(super) fn format(pattern: &Value, texts: &[Option<Arc<str>>], limit: usize) -> Answer {
    let pattern = pattern.to_text();
    let mut out = String::new();
    for piece in pieces(&pattern, texts.len())? {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Place(place) => out.push_str(texts[place].as_deref().unwrap_or_default()),
        }
        if out.len() > limit {
            return Err(TOO_LARGE.to_owned());
        }
    }
    Ok(Value::from(out))
}

/// `0}` and what follows. `{0:}` is `{0}`; GitHub's runner knows no format that could stand after `:`.
fn placeholder<'t>(text: &'t str, pattern: &str) -> Result<(usize, &'t str), String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let place = text[..digits].parse::<u8>().ok();
    let rest = &text[digits..];
    let Some(place) = place else {
        return Err(bad_placeholder(pattern));
    };
    if let Some(rest) = rest.strip_prefix('}').or_else(|| rest.strip_prefix(":}")) {
        return Ok((usize::from(place), rest));
    }
    if rest.starts_with(':') && rest.contains('}') {
        return Err(format!(
            "formats after `:` are for no kind of value, in '{}'",
            shortened(pattern)
        ));
    }
    Err(bad_placeholder(pattern))
}

fn bad_placeholder(pattern: &str) -> String {
    format!(
        "a `{{` without `{{number}}` in '{}'; write `{{{{` for the character itself",
        shortened(pattern)
    )
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

pub(super) fn from_json(text: &str) -> Answer {
    json_reader::read(text).map_err(|problem| {
        if text.trim().is_empty() {
            return "the text is empty, which is not JSON".to_owned();
        }
        format!("'{}' is not JSON: {problem}", shortened(text))
    })
}
