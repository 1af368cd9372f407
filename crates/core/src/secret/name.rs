//! Names of secrets and variables.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Letters of a name at most.
const NAME_LENGTH_MAX: usize = 255;
/// Reserved by GitHub for its own variables.
const RESERVED_PREFIX: &str = "GITHUB_";

/// The name of a secret or a variable, in upper case: `DATABASE_URL`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// A text that can't name a secret. The text may be a secret itself that was given in the wrong place, so only its beginning is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSecretNameError {
    #[error(
        "{0:?}… is not a valid name: use 1 to 255 letters, digits and underscores, without a digit at the beginning, such as DATABASE_URL"
    )]
    Malformed(String),
    #[error("names that begin with GITHUB_ are reserved: choose another name")]
    Reserved,
}

impl SecretName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = ParseSecretNameError;

    fn from_str(text: &str) -> Result<Self, ParseSecretNameError> {
        let name = text.to_ascii_uppercase();
        let is_valid = (1..=NAME_LENGTH_MAX).contains(&name.len())
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_valid {
            let start = text.chars().take(4).collect();
            return Err(ParseSecretNameError::Malformed(start));
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(ParseSecretNameError::Reserved);
        }
        Ok(Self(name))
    }
}

impl TryFrom<String> for SecretName {
    type Error = ParseSecretNameError;
    fn try_from(text: String) -> Result<Self, ParseSecretNameError> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
