//! Errors.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error as a problem document (RFC 9457): the cause, and how to fix it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem; `about:blank` when the status says it all.
    #[serde(default)]
    pub r#type: String,
    /// The kind of problem, in words.
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// This occurrence of the problem, and how to fix it.
    #[serde(default)]
    pub detail: String,
}
