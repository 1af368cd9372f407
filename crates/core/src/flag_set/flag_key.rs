//! Keys of flags.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use shipway_flags::limits::NAME_BYTES_MAX;

/// The key of a flag, unique in its environment: `new-checkout`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FlagKey(String);

/// A text that can't be the key of a flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a flag's key must have 1 to {NAME_BYTES_MAX} bytes without control characters")]
pub struct ParseFlagKeyError;

impl FlagKey {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FlagKey {
    type Err = ParseFlagKeyError;

    fn from_str(text: &str) -> Result<Self, ParseFlagKeyError> {
        let has_length = (1..=NAME_BYTES_MAX).contains(&text.len());
        if has_length && !text.chars().any(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseFlagKeyError)
    }
}

impl TryFrom<String> for FlagKey {
    type Error = ParseFlagKeyError;
    fn try_from(text: String) -> Result<Self, ParseFlagKeyError> {
        text.parse()
    }
}

impl From<FlagKey> for String {
    fn from(key: FlagKey) -> Self {
        key.0
    }
}

impl fmt::Display for FlagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
