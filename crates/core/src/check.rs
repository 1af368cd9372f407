//! Health checks and smoke tests: what is asked and what counts as a good answer. Asking is a driver's work.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// How an instance is known to be ready (gets traffic) and alive (is not restarted).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Decides routing.
    pub readiness: Probe,
    /// Decides restarts; absent: the process being there is enough.
    pub liveness: Option<Probe>,
    /// From one probe to the next.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Good answers in a row until ready.
    pub healthy_after: u32,
    /// Bad answers in a row until unready, or dead.
    pub unhealthy_after: u32,
    /// Bad answers this soon after the start are not counted against liveness.
    pub start_period: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            readiness: Probe::Tcp,
            liveness: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_after: 1,
            unhealthy_after: 3,
            start_period: Duration::from_secs(30),
        }
    }
}

/// One question put to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// GET the path; 2xx or 3xx is good unless `status` names one.
    Http {
        /// The path, from `/`.
        path: String,
        /// The only good status.
        status: Option<u16>,
    },
    /// A connection can be opened.
    Tcp,
    /// A shell command exits with 0; `PORT` and `URL` are in its environment.
    Exec {
        /// The command.
        command: String,
    },
}

/// One smoke test: a request with what is expected, or a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeTest {
    /// What people call it.
    pub name: String,
    /// What is done.
    pub probe: SmokeProbe,
    /// Further tries after a failed one.
    pub retries: u32,
}

/// What a smoke test does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmokeProbe {
    /// An HTTP request to the instance.
    Request {
        /// `GET`, `POST`, …
        method: String,
        /// The path with its query.
        path: String,
        /// Headers to send.
        headers: BTreeMap<String, String>,
        /// The body to send; a mapping in the file is sent as JSON.
        body: Option<String>,
        /// What a good answer looks like.
        expect: Expect,
    },
    /// A shell command in the release's directory; `URL` in its environment. Exit code 0 is good.
    Exec {
        /// The command.
        command: String,
    },
}

/// What a good answer looks like. What isn't named isn't looked at; without a status any below 400 will do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Expect {
    /// The status code.
    pub status: Option<u16>,
    /// Headers that must be there, with these values; names ignore case.
    pub headers: BTreeMap<String, String>,
    /// By path (`items[0].name`, `$` for the whole): the value there must contain this one.
    pub json: BTreeMap<String, serde_json::Value>,
    /// Text that must be in the body.
    pub body_contains: Option<String>,
    /// A regular expression that must match within the body.
    pub body_matches: Option<String>,
    /// The longest it may take.
    pub within: Option<Duration>,
}

/// An HTTP answer, as far as expectations look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, cut at a megabyte.
    pub body: String,
    /// From sending to the last byte.
    pub took: Duration,
}

/// One way in which an answer differs from what was expected, ready to be read: `status: expected 200, got 503`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference(pub String);

/// How a smoke test went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeResult {
    /// Its name.
    pub name: String,
    /// The instance it was put to.
    pub instance: String,
    /// Nothing differed.
    pub passed: bool,
    /// How long the last try took.
    pub took: Duration,
    /// Tries made.
    pub tries: u32,
    /// What differed in the last try.
    pub differences: Vec<Difference>,
}

/// The summary of a smoke suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmokeReport {
    /// Each test on each instance.
    pub results: Vec<SmokeResult>,
}

impl SmokeReport {
    /// How many passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|result| result.passed).count()
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.results.len() - self.passed()
    }

    /// `3 passed, 1 failed, 12 ms on average, 31 ms at most`, then the first failure.
    #[must_use]
    pub fn sentence(&self) -> String {
        let slowest = self
            .results
            .iter()
            .map(|result| result.took)
            .max()
            .unwrap_or_default();
        let average = self
            .results
            .iter()
            .map(|result| result.took)
            .sum::<Duration>()
            / (self.results.len().max(1) as u32);
        let mut text = format!(
            "{} passed, {} failed, {} ms on average, {} ms at most",
            self.passed(),
            self.failed(),
            average.as_millis(),
            slowest.as_millis()
        );
        if let Some(failure) = self.results.iter().find(|result| !result.passed) {
            let differences: Vec<_> = failure
                .differences
                .iter()
                .map(|difference| difference.0.as_str())
                .collect();
            text.push_str(&format!("; {}: {}", failure.name, differences.join("; ")));
        }
        text
    }
}

impl Expect {
    /// In which ways an answer differs from what is expected; none: it is good.
    #[must_use]
    pub fn differences(&self, answer: &Answer) -> Vec<Difference> {
        let mut found = Vec::new();
        let good = self
            .status
            .map_or(answer.status < 400, |status| status == answer.status);
        if !good {
            let wanted = self
                .status
                .map_or_else(|| "below 400".to_owned(), |status| status.to_string());
            found.push(format!("status: expected {wanted}, got {}", answer.status));
        }
        for (name, wanted) in &self.headers {
            match answer.headers.get(&name.to_ascii_lowercase()) {
                Some(got) if got == wanted => {}
                Some(got) => found.push(format!("header {name}: expected {wanted:?}, got {got:?}")),
                None => found.push(format!("header {name}: expected {wanted:?}, got none")),
            }
        }
        found.extend(self.json_differences(&answer.body));
        if let Some(text) = self
            .body_contains
            .as_ref()
            .filter(|text| !answer.body.contains(text.as_str()))
        {
            found.push(format!(
                "body: expected to contain {text:?}, got {:?}",
                excerpt(&answer.body)
            ));
        }
        if let Some(pattern) = &self.body_matches {
            match regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
            {
                Ok(regex) if regex.is_match(&answer.body) => {}
                Ok(_) => found.push(format!(
                    "body: expected to match {pattern:?}, got {:?}",
                    excerpt(&answer.body)
                )),
                Err(error) => found.push(format!(
                    "body: {pattern:?} is no regular expression: {error}"
                )),
            }
        }
        if let Some(within) = self.within.filter(|within| answer.took > *within) {
            found.push(format!(
                "time: expected within {} ms, took {} ms",
                within.as_millis(),
                answer.took.as_millis()
            ));
        }
        found.into_iter().map(Difference).collect()
    }

    fn json_differences(&self, body: &str) -> Vec<String> {
        if self.json.is_empty() {
            return Vec::new();
        }
        let Ok(document) = serde_json::from_str::<serde_json::Value>(body) else {
            return vec![format!("body: expected JSON, got {:?}", excerpt(body))];
        };
        let differs = |(path, wanted): (&String, &serde_json::Value)| match at_path(&document, path)
        {
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
}

/// The value at a path such as `items[0].name`; `$` is the whole.
fn at_path<'v>(document: &'v serde_json::Value, path: &str) -> Option<&'v serde_json::Value> {
    let path = path.strip_prefix('$').unwrap_or(path);
    let steps = path
        .split(['.', '['])
        .map(|step| step.trim_end_matches(']'))
        .filter(|step| !step.is_empty());
    steps
        .into_iter()
        .try_fold(document, |value, step| match value {
            serde_json::Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            other => other.get(step),
        })
}

/// Whether `got` has everything that `wanted` has: mappings may have more keys, all else is equal.
fn contains(got: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    match (got, wanted) {
        (serde_json::Value::Object(got), serde_json::Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| got.get(key).is_some_and(|got| contains(got, wanted))),
        (serde_json::Value::Number(got), serde_json::Value::Number(wanted)) => {
            got.as_f64() == wanted.as_f64()
        }
        _ => got == wanted,
    }
}

fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        format!("{short}…")
    } else {
        short
    }
}

/// The dependencies that a health endpoint reports as not well: `{"checks":{"database":false}}`, or with a status word.
#[must_use]
pub fn named_failures(body: &str) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let well = |value: &serde_json::Value| match value {
        serde_json::Value::Bool(well) => *well,
        serde_json::Value::String(word) => matches!(
            word.to_ascii_lowercase().as_str(),
            "ok" | "up" | "pass" | "healthy"
        ),
        serde_json::Value::Object(inner) => inner
            .get("status")
            .or_else(|| inner.get("ok"))
            .is_none_or(|value| {
                !matches!(value, serde_json::Value::Bool(false)) && value != "down"
            }),
        _ => true,
    };
    let checks = document
        .get("checks")
        .and_then(serde_json::Value::as_object);
    checks
        .into_iter()
        .flatten()
        .filter(|(_, value)| !well(value))
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: [("content-type".to_owned(), "application/json".to_owned())].into(),
            body: body.to_owned(),
            took: Duration::from_millis(30),
        }
    }

    #[test]
    fn every_expectation_is_looked_at_and_differences_are_readable() {
        let expect = Expect {
            status: Some(200),
            headers: [("Content-Type".to_owned(), "text/html".to_owned())].into(),
            json: [
                ("items[0].name".to_owned(), "tea".into()),
                ("$".to_owned(), serde_json::json!({"total": 2})),
            ]
            .into(),
            body_contains: Some("coffee".into()),
            body_matches: Some("^\\[".into()),
            within: Some(Duration::from_millis(10)),
        };
        let got: Vec<String> = expect
            .differences(&answer(503, r#"{"items":[{"name":"milk"}],"total":2.0}"#))
            .into_iter()
            .map(|it| it.0)
            .collect();
        assert_eq!(got.len(), 6, "{got:#?}");
        assert_eq!(got[0], "status: expected 200, got 503");
        assert_eq!(got[2], r#"json items[0].name: expected "tea", got "milk""#);
        assert!(Expect::default().differences(&answer(302, "")).is_empty());
        assert_eq!(Expect::default().differences(&answer(404, "")).len(), 1);
    }

    #[test]
    fn dependencies_are_named() {
        assert_eq!(
            named_failures(
                r#"{"checks":{"database":false,"cache":true,"queue":{"status":"down"}}}"#
            ),
            ["database", "queue"]
        );
        assert!(named_failures("oops").is_empty());
    }
}
