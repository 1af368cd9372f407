//! The claims of a token.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The claims of a token whose signature was verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifiedClaims(Map<String, Value>);

impl VerifiedClaims {
    /// Claims whose source was verified: by the signature of a token, or by the TLS connection of the userinfo endpoint.
    #[must_use]
    pub const fn from_verified(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// A claim that is a string.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim that is a string or a list of strings. Other elements of a list are skipped.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// A claim as text, where it is a string, a number or a boolean.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        // Some providers write booleans as strings.
        match self.0.get(name) {
            Some(Value::Bool(value)) => *value,
            Some(Value::String(text)) => text == "true",
            _ => false,
        }
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A claim that is a time in seconds since 1970, with or without a fraction; an error when it is something else.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, &'static str> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let seconds = value.as_i64().or_else(|| {
            let float = value.as_f64()?;
            // Within these bounds the conversion is exact to the second.
            #[expect(clippy::cast_possible_truncation, reason = "checked before")]
            (float.abs() < 1e12).then_some(float as i64)
        });
        let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        time.map(Some).ok_or(name)
    }

    /// Adds the claims of another source that this one doesn't have.
    pub fn add_missing(&mut self, other: Self) {
        for (name, value) in other.0 {
            self.0.entry(name).or_insert(value);
        }
    }
}
