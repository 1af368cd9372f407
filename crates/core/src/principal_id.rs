//! The ids of principals, which events name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Identifies a principal in the log: `person:ada`, `token:server`, `job:shop/r7/build/1`, `system`. Ids in the log are read as they
/// are: a refused id would make its whole stream unreadable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalId(String);

/// Why a text identifies no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} identifies no principal: it must have 1 to 1000 bytes and no control characters")]
pub struct ParsePrincipalIdError(String);

impl PrincipalId {
    /// Shipway itself.
    #[must_use]
    pub fn system() -> Self {
        Self("system".to_owned())
    }

    /// An id that Shipway itself has composed.
    pub(crate) const fn from_trusted(id: String) -> Self {
        Self(id)
    }

    /// Whether several people act under this principal, told apart by the names they give: the holders of the server's token, and
    /// people at this machine who give no name.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.0.as_str(), "token:server" | "person")
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PrincipalId {
    type Err = ParsePrincipalIdError;

    fn from_str(text: &str) -> Result<Self, ParsePrincipalIdError> {
        let is_valid = (1..=1000).contains(&text.len()) && !text.contains(char::is_control);
        match is_valid {
            true => Ok(Self(text.to_owned())),
            false => Err(ParsePrincipalIdError(text.chars().take(80).collect())),
        }
    }
}

impl From<PrincipalId> for String {
    fn from(id: PrincipalId) -> Self {
        id.0
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
