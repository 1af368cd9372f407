//! Reads a number from a JSON document.

use serde_json::Value;
use shipway_core::check::at_path;

use super::MetricUnavailable;

/// The number at `path` (`data.items[0].value`; empty means the document itself). A string that contains a number is accepted.
pub(super) fn number_at(document: &Value, path: &str, who: &str) -> Result<f64, MetricUnavailable> {
    let at = at_path(document, path).ok_or_else(|| {
        MetricUnavailable::for_good(format!("{who} returned nothing at `{path}`"))
    })?;
    let place = if path.is_empty() {
        String::new()
    } else {
        format!(" at `{path}`")
    };
    match at {
        Value::Number(number) => number.as_f64().ok_or_else(|| {
            MetricUnavailable::for_good(format!("{who} returned a number{place} that is too large"))
        }),
        Value::String(text) => text.trim().parse().map_err(|_| {
            MetricUnavailable::for_good(format!(
                "{who} returned a string{place} that is not a number"
            ))
        }),
        other => Err(MetricUnavailable::for_good(format!(
            "{who} returned {}{place}, not a number",
            json_type_name(other)
        ))),
    }
}

/// The type of a value, for messages.
pub(super) const fn json_type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_found_and_everything_else_is_said() {
        let document = json!({ "data": { "items": [{ "value": "0.5" }, { "value": 7 }] }, "no": null, "odd": "NaN" });
        let at = |path: &str| number_at(&document, path, "it").map_err(|no| no.why);
        assert_eq!(at("data.items[0].value"), Ok(0.5));
        assert_eq!(at("$.data.items[1].value"), Ok(7.0));
        assert_eq!(at("data['items'][1].value"), Ok(7.0));
        assert!(at("odd").unwrap().is_nan(), "judged by who asks");
        assert_eq!(
            at("data.items[2].value"),
            Err("it returned nothing at `data.items[2].value`".into())
        );
        assert_eq!(
            at("data.items[x]"),
            Err("it returned nothing at `data.items[x]`".into())
        );
        assert_eq!(
            at("no"),
            Err("it returned nothing at `no`, not a number".into())
        );
        assert_eq!(
            at("data"),
            Err("it returned an object at `data`, not a number".into())
        );
        assert_eq!(at(""), Err("it returned an object, not a number".into()));
        assert_eq!(number_at(&json!(3), "", "it").unwrap(), 3.0);
    }
}
