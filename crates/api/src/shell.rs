//! Shells in the workspace of a job that has ended.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where to open a shell.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShellRequest {
    /// The id of the step; the failed one by default.
    pub step: Option<String>,
    /// Whether the job's secrets are included; that is recorded.
    #[serde(default)]
    pub secrets: bool,
    /// The name of an empty file in the job's folder into which the spec is written. Without it only the folder is returned.
    pub file: Option<String>,
}

/// Where a shell can be opened.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShellLocation {
    /// The folder of the job's last attempt, on the server's machine.
    #[schema(value_type = String)]
    pub folder: PathBuf,
    /// The number of that attempt, from 1.
    pub attempt: u32,
    /// The id of the step.
    pub step: String,
    /// All steps at which a shell could be opened.
    pub steps: Vec<String>,
}
