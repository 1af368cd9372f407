//! Places in JSON documents, as they are written in files: `items[0].name`.
//!
//! ```
//! use shipway_core::check::at_path;
//! let document = serde_json::json!({ "items": [{ "name": "tea" }] });
//! assert_eq!(at_path(&document, "items[0].name"), Some(&"tea".into()));
//! assert_eq!(at_path(&document, "items[1].name"), None);
//! ```

use serde_json::Value;

/// The value at a path such as `items[0].name` or `["key.with.dots"][2]`; `$`, or nothing, is the whole.
#[must_use]
pub fn at_path<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    let path = path.trim();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut value = document;
    while !rest.is_empty() {
        let (step, after) = first_step(rest)?;
        value = match value {
            Value::Array(items) => items.get(step.parse::<usize>().ok()?)?,
            Value::Object(_) => value.get(step)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        };
        rest = after;
    }
    Some(value)
}

/// The first step of a path, without its dot, brackets or quotes, and the rest of the path.
fn first_step(path: &str) -> Option<(&str, &str)> {
    if let Some(inner) = path.strip_prefix('[') {
        for quote in ['"', '\''] {
            if let Some(quoted) = inner.strip_prefix(quote) {
                let (step, after) = quoted.split_once(quote)?;
                return Some((step, after.strip_prefix(']')?));
            }
        }
        return inner.split_once(']');
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let end = path.find(['.', '[']).unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_reach_everything() {
        let document = json!({"a": {"b.c": [10, {"d": null}]}, "0": "zero"});
        for (path, wanted) in [
            ("$", Some(document.clone())),
            ("", Some(document.clone())),
            ("a['b.c'][0]", Some(json!(10))),
            (r#"$.a["b.c"][1].d"#, Some(json!(null))),
            ("$['0']", Some(json!("zero"))),
            ("a.b", None),
            ("a[", None),
            ("a..b", None),
            ("$.a['b.c'][2]", None),
            ("0.deeper", None),
        ] {
            assert_eq!(at_path(&document, path), wanted.as_ref(), "{path}");
        }
    }
}
