//! The built-in functions. Their errors don't contain the function's name.

use std::sync::Arc;

use super::{
    json,
    json_reader::{self, JsonError},
    text,
    value::ExprValue,
};

/// Why files could not be hashed: an unknown option, a bad pattern, or an I/O error with its path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HashFilesError(pub String);

/// Why a function gives no value. The message doesn't contain the function's name.
#[derive(Debug, thiserror::Error)]
pub(super) enum FunctionError {
    #[error("the result is larger than the limit of 10 MiB")]
    TooLarge,
    #[error("a lone `}}` in '{}'; write `}}}}`", shortened(.0))]
    LoneBrace(String),
    #[error("'{}' uses {{{index}}}, but {} given", shortened(pattern), counted(*given))]
    MissingArgument {
        pattern: String,
        index: usize,
        given: usize,
    },
    #[error("a `{{` without `{{number}}` in '{}'; write `{{{{` for the character itself", shortened(.0))]
    BadPlaceholder(String),
    #[error("format specifiers after `:` are not supported, in '{}'", shortened(.0))]
    FormatSpecifier(String),
    #[error("an empty string is not JSON")]
    EmptyJson,
    #[error("'{}' is not JSON: {error}", shortened(text))]
    BadJson { text: String, error: JsonError },
    #[error("it can only be used in the `if` of a step or a job")]
    NoStatus,
    #[error("it can only be used in steps, where there is a workspace")]
    NoWorkspace,
    #[error(transparent)]
    HashFiles(#[from] HashFilesError),
}

type FunctionResult = Result<ExprValue, FunctionError>;

/// Text in text, or an item loosely equal in an array.
pub(super) fn contains(searched: &ExprValue, item: &ExprValue) -> ExprValue {
    ExprValue::Bool(match searched {
        ExprValue::Array(items) => items.iter().any(|each| each.loosely_equals(item)),
        ExprValue::Object(_) => false,
        _ => {
            item.is_primitive()
                && text::fold(&searched.to_text()).contains(&text::fold(&item.to_text()))
        }
    })
}

pub(super) fn starts_with(searched: &ExprValue, start: &ExprValue) -> ExprValue {
    let primitive = searched.is_primitive() && start.is_primitive();
    ExprValue::Bool(
        primitive && text::fold(&searched.to_text()).starts_with(&text::fold(&start.to_text())),
    )
}

pub(super) fn ends_with(searched: &ExprValue, end: &ExprValue) -> ExprValue {
    let primitive = searched.is_primitive() && end.is_primitive();
    ExprValue::Bool(
        primitive && text::fold(&searched.to_text()).ends_with(&text::fold(&end.to_text())),
    )
}

/// A piece of a pattern.
enum FormatPiece<'p> {
    Text(&'p str),
    Place(usize),
}

/// The pieces of a pattern: `{0}`, `{1}`, …; `{{` and `}}` stand for themselves.
fn pieces(pattern: &str, given: usize) -> Result<Vec<FormatPiece<'_>>, FunctionError> {
    let mut pieces = Vec::new();
    let mut rest: &str = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        pieces.push(FormatPiece::Text(&rest[..at]));
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix(brace) {
            pieces.push(FormatPiece::Text(brace));
            rest = escaped;
        } else if brace == "}" {
            return Err(FunctionError::LoneBrace(pattern.to_owned()));
        } else {
            let (place, remaining) = placeholder(after, pattern)?;
            if place >= given {
                return Err(FunctionError::MissingArgument {
                    pattern: pattern.to_owned(),
                    index: place,
                    given,
                });
            }
            pieces.push(FormatPiece::Place(place));
            rest = remaining;
        }
    }
    pieces.push(FormatPiece::Text(rest));
    Ok(pieces)
}

/// Which of the `given` values a pattern asks for, in order.
pub(super) fn placeholder_indexes(
    pattern: &ExprValue,
    given: usize,
) -> Result<Vec<usize>, FunctionError> {
    let pieces = pieces(&pattern.to_text(), given)?
        .into_iter()
        .filter_map(|piece| match piece {
            FormatPiece::Text(_) => None,
            FormatPiece::Place(place) => Some(place),
        })
        .collect();
    Ok(pieces)
}

/// The pattern with the texts in their places; texts that it doesn't ask for may be left out.
pub(super) fn format(
    pattern: &ExprValue,
    texts: &[Option<Arc<str>>],
    limit: usize,
) -> FunctionResult {
    let pattern = pattern.to_text();
    let mut out = String::new();
    for piece in pieces(&pattern, texts.len())? {
        match piece {
            FormatPiece::Text(text) => out.push_str(text),
            FormatPiece::Place(place) => out.push_str(texts[place].as_deref().unwrap_or_default()),
        }
        if out.len() > limit {
            return Err(FunctionError::TooLarge);
        }
    }
    Ok(ExprValue::from(out))
}

/// Parses `0}` and returns the rest. `{0:}` equals `{0}`: GitHub's runner has no formats after `:`.
fn placeholder<'t>(text: &'t str, pattern: &str) -> Result<(usize, &'t str), FunctionError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let place = text[..digits].parse::<u8>().ok();
    let rest = &text[digits..];
    let Some(place) = place else {
        return Err(FunctionError::BadPlaceholder(pattern.to_owned()));
    };
    if let Some(rest) = rest.strip_prefix('}').or_else(|| rest.strip_prefix(":}")) {
        return Ok((usize::from(place), rest));
    }
    if rest.starts_with(':') && rest.contains('}') {
        return Err(FunctionError::FormatSpecifier(pattern.to_owned()));
    }
    Err(FunctionError::BadPlaceholder(pattern.to_owned()))
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

pub(super) fn join(
    items: &ExprValue,
    separator: Option<&ExprValue>,
    limit: usize,
) -> FunctionResult {
    let items = match items {
        ExprValue::Array(items) => items,
        ExprValue::Object(_) => return Ok(ExprValue::from("")),
        primitive => return Ok(primitive.to_text().into()),
    };
    let separator = separator
        .filter(|value| value.is_primitive())
        .map_or_else(|| ",".into(), ExprValue::to_text);
    let mut out = String::new();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(&separator);
        }
        out.push_str(&item.to_text());
        if out.len() > limit {
            return Err(FunctionError::TooLarge);
        }
    }
    Ok(ExprValue::from(out))
}

pub(super) fn to_json(value: &ExprValue, limit: usize) -> FunctionResult {
    let mut out = String::new();
    json::write(value, &mut out, limit).map_err(|json::TooLong| FunctionError::TooLarge)?;
    Ok(ExprValue::from(out))
}

pub(super) fn from_json(text: &str) -> FunctionResult {
    json_reader::read(text).map_err(|error| match text.trim() {
        "" => FunctionError::EmptyJson,
        _ => FunctionError::BadJson {
            text: text.to_owned(),
            error,
        },
    })
}
