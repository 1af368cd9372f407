//! Compares answers with expectations. All differences are reported, not only the first, so that a test is fixed in one go.
//!
//! ```
//! use shipway_core::check::{ProbeAnswer, ExpectedAnswer};
//! let expect = ExpectedAnswer { json: [("items[0].name".to_owned(), "tea".into())].into(), ..ExpectedAnswer::default() };
//! let answer = ProbeAnswer { status: 200, body: r#"{"items":[{"name":"milk"}]}"#.into(), ..ProbeAnswer::default() };
//! assert_eq!(expect.differences(&answer)[0].0, r#"json items[0].name: expected "tea", got "milk""#);
//! ```

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ExpectedAnswer, at_path};

/// An HTTP answer, as far as expectations look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeAnswer {
    pub status: u16,
    /// Header names in lower case; repeated headers are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// The body, cut at a megabyte.
    pub body: String,
    /// From sending to the last byte.
    pub took: Duration,
}

/// A difference between the answer and the expectation, ready for display: `status: expected 200, got 503`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerDifference(pub String);

impl ExpectedAnswer {
    /// The differences between the expectation and the answer; empty if the answer is as expected.
    #[must_use]
    pub fn differences(&self, answer: &ProbeAnswer) -> Vec<AnswerDifference> {
        let mut found = Vec::new();
        found.extend(self.status_difference(answer));
        found.extend(self.header_differences(answer));
        found.extend(self.json_differences(&answer.body));
        found.extend(self.body_differences(&answer.body));
        if let Some(within) = self.within.filter(|within| answer.took > *within) {
            let (within, took) = (within.as_millis(), answer.took.as_millis());
            found.push(format!("time: expected within {within} ms, took {took} ms"));
        }
        found.into_iter().map(AnswerDifference).collect()
    }

    fn status_difference(&self, answer: &ProbeAnswer) -> Option<String> {
        let good = self
            .status
            .map_or(answer.status < 400, |status| status == answer.status);
        let wanted = self
            .status
            .map_or(Cow::from("below 400"), |status| status.to_string().into());
        (!good).then(|| format!("status: expected {wanted}, got {}", answer.status))
    }

    fn header_differences(&self, answer: &ProbeAnswer) -> Vec<String> {
        let differs = |(name, wanted): (&String, &String)| match answer
            .headers
            .get(&name.to_ascii_lowercase())
        {
            Some(got) if got == wanted => None,
            Some(got) => Some(format!("header {name}: expected {wanted:?}, got {got:?}")),
            None => Some(format!("header {name}: expected {wanted:?}, got none")),
        };
        self.headers.iter().filter_map(differs).collect()
    }

    fn json_differences(&self, body: &str) -> Vec<String> {
        if self.json.is_empty() {
            return Vec::new();
        }
        let Ok(document) = serde_json::from_str::<Value>(body) else {
            return vec![format!("body: expected JSON, got {:?}", excerpt(body))];
        };
        let differs = |(path, wanted): (&String, &Value)| match at_path(&document, path) {
            Some(got) if contains(got, wanted) => None,
            Some(got) => Some(format!(
                "json {path}: expected {wanted}, got {}",
                excerpt(&got.to_string())
            )),
            None => Some(format!(
                "json {path}: expected {wanted}, there is no such value"
            )),
        };
        self.json.iter().filter_map(differs).collect()
    }

    fn body_differences(&self, body: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(text) = self
            .body_contains
            .as_ref()
            .filter(|text| !body.contains(text.as_str()))
        {
            found.push(format!(
                "body: expected to contain {text:?}, got {:?}",
                excerpt(body)
            ));
        }
        if let Some(pattern) = &self.body_matches {
            // Size limit: the pattern comes from a file of the repository, which is untrusted.
            match regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
            {
                Ok(regex) if regex.is_match(body) => {}
                Ok(_) => found.push(format!(
                    "body: expected to match {pattern:?}, got {:?}",
                    excerpt(body)
                )),
                Err(error) => found.push(format!(
                    "body: {pattern:?} is not a valid regular expression: {error}"
                )),
            }
        }
        found
    }
}

/// Whether `got` has everything that `wanted` has: mappings may have more keys, at any depth; lists have the same length.
fn contains(got: &Value, wanted: &Value) -> bool {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| got.get(key).is_some_and(|got| contains(got, wanted))),
        (Value::Array(got), Value::Array(wanted)) => {
            got.len() == wanted.len()
                && got
                    .iter()
                    .zip(wanted)
                    .all(|(got, wanted)| contains(got, wanted))
        }
        // 2 and 2.0 are one number; integers that a float can't tell apart are two.
        (Value::Number(got), Value::Number(wanted)) => {
            got == wanted || ((got.is_f64() || wanted.is_f64()) && got.as_f64() == wanted.as_f64())
        }
        _ => got == wanted,
    }
}

fn excerpt(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// The dependencies that a health endpoint reports as not well, by name.
///
/// It reads `{"checks":{"database":false}}`, the same with a status word (`"down"`), with an object that has one
/// (`{"status":"down"}`), and the lists of `application/health+json`. Spring calls it `components`. What can't be understood is
/// taken to be well: the status of the answer has decided already, this only says why.
#[must_use]
pub fn named_failures(body: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let checks = document
        .get("checks")
        .or_else(|| document.get("components"))
        .and_then(Value::as_object);
    let failing = checks
        .into_iter()
        .flatten()
        .filter(|(_, value)| !is_well(value));
    failing.map(|(name, _)| name.clone()).collect()
}

fn is_well(value: &Value) -> bool {
    match value {
        Value::Bool(well) => *well,
        Value::String(word) => [
            "ok",
            "up",
            "pass",
            "passed",
            "warn",
            "healthy",
            "ready",
            "connected",
            "alive",
        ]
        .contains(&word.to_ascii_lowercase().as_str()),
        Value::Object(inner) => ["status", "ok", "healthy", "up"]
            .iter()
            .find_map(|key| inner.get(*key))
            .is_none_or(is_well),
        Value::Array(all) => all.iter().all(is_well),
        Value::Null | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &str) -> ProbeAnswer {
        ProbeAnswer {
            status,
            headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
            body: body.to_owned(),
            took: Duration::from_millis(30),
        }
    }

    fn texts(expect: &ExpectedAnswer, answer: &ProbeAnswer) -> Vec<String> {
        let differences = expect.differences(answer);
        differences.into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn every_expectation_is_looked_at_and_differences_are_readable() {
        let expect = ExpectedAnswer {
            status: Some(200),
            headers: [("Content-Type".to_owned(), "text/html".to_owned())].into(),
            json: [
                ("items[0].name".to_owned(), "tea".into()),
                ("$".to_owned(), json!({"total": 2})),
            ]
            .into(),
            body_contains: Some("coffee".into()),
            body_matches: Some("^\\[".into()),
            within: Some(Duration::from_millis(10)),
        };
        let got = texts(
            &expect,
            &answer(503, r#"{"items":[{"name":"milk"}],"total":2.0}"#),
        );
        assert_eq!(
            got,
            [
                "status: expected 200, got 503",
                "header Content-Type: expected \"text/html\", got \"application/json\"",
                "json items[0].name: expected \"tea\", got \"milk\"",
                "body: expected to contain \"coffee\", got \"{\\\"items\\\":[{\\\"name\\\":\\\"milk\\\"}],\\\"total\\\":2.0}\"",
                "body: expected to match \"^\\\\[\", got \"{\\\"items\\\":[{\\\"name\\\":\\\"milk\\\"}],\\\"total\\\":2.0}\"",
                "time: expected within 10 ms, took 30 ms",
            ]
        );
    }

    #[test]
    fn without_a_status_anything_below_400_will_do() {
        assert!(texts(&ExpectedAnswer::default(), &answer(302, "")).is_empty());
        assert_eq!(
            texts(&ExpectedAnswer::default(), &answer(404, "")),
            ["status: expected below 400, got 404"]
        );
    }

    #[test]
    fn mappings_may_have_more_at_any_depth_and_lists_may_not() {
        let got = json!({"items": [{"id": 1, "name": "tea"}, {"id": 2}], "n": 9007199254740993u64});
        assert!(contains(&got, &json!({"items": [{"id": 1.0}, {}]})));
        assert!(!contains(&got, &json!({"items": [{"id": 1}]})));
        assert!(!contains(&got, &json!({"n": 9007199254740992u64})));
        assert!(!contains(&got, &json!({"missing": null})));
    }

    #[test]
    fn a_body_that_is_no_json_and_a_pattern_that_is_none_are_said() {
        let expect = ExpectedAnswer {
            json: [("$".to_owned(), json!(1))].into(),
            body_matches: Some("(".into()),
            ..ExpectedAnswer::default()
        };
        let got = texts(&expect, &answer(200, "<html>"));
        assert_eq!(got[0], "body: expected JSON, got \"<html>\"");
        assert!(
            got[1].starts_with("body: \"(\" is not a valid regular expression"),
            "{got:?}"
        );
        assert_eq!(excerpt(&"ä".repeat(121)).chars().count(), 121);
    }

    #[test]
    fn dependencies_are_named() {
        let body = r#"{"checks":{"database":false,"cache":true,"queue":{"status":"down"},"mail":{"ok":true},
            "disk":[{"status":"pass"},{"status":"fail"}],"note":7}}"#;
        assert_eq!(named_failures(body), ["database", "queue", "disk"]);
        assert_eq!(
            named_failures(r#"{"components":{"db":{"status":"DOWN"}}}"#),
            ["db"]
        );
        assert!(named_failures("oops").is_empty());
        assert!(named_failures(r#"{"checks":[false]}"#).is_empty());
    }
}
