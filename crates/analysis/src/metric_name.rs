//! The name of a metric that isn't built in: of a business event, or of what a provider answers.
//!
//! It lies in place and is copied like a number, so a [`Metric`](crate::Metric) still is; that bounds its length.
//!
//! ```
//! use shipway_analysis::MetricName;
//! let orders: MetricName = "orders".parse()?;
//! assert_eq!(orders.as_str(), "orders");
//! assert!("Orders per day!".parse::<MetricName>().is_err());
//! # Ok::<(), shipway_analysis::ParseNameError>(())
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name: letters, digits, `-`, `_` and `.`, a letter first; [`MetricName::BYTES_MAX`] at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MetricName {
    /// Zeros after the end.
    bytes: [u8; Self::BYTES_MAX],
    length: u8,
}

/// A text that isn't a valid metric name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a valid metric name: it must start with a letter, consist of letters, digits, `-`, `_` and `.`, and have at most {max} characters",
    max = MetricName::BYTES_MAX
)]
pub struct ParseNameError {
    /// The refused text.
    pub text: String,
}

impl MetricName {
    /// As long as a name may be.
    pub const BYTES_MAX: usize = 48;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.length));
        name.and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }
}

impl FromStr for MetricName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic());
        if !begins || text.len() > Self::BYTES_MAX || !text.bytes().all(is_fine) {
            return Err(ParseNameError {
                text: text.to_owned(),
            });
        }
        let mut bytes = [0; Self::BYTES_MAX];
        for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Ok(Self {
            bytes,
            length: text.len() as u8,
        })
    }
}

impl TryFrom<String> for MetricName {
    type Error = ParseNameError;
    fn try_from(text: String) -> Result<Self, ParseNameError> {
        text.parse()
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_they_were_written_as() {
        for text in [
            "orders",
            "sign-ups",
            "http.server_errors",
            "A1",
            &"x".repeat(48),
        ] {
            let name: MetricName = text.parse().unwrap();
            assert_eq!(name.as_str(), text);
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<MetricName>(&json).unwrap(), name);
        }
        for text in ["", "1st", "-a", "a b", "ä", "a/b", &"x".repeat(49)] {
            assert!(text.parse::<MetricName>().is_err(), "{text}");
        }
    }
}
