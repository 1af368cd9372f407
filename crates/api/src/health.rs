//! Health of the server.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The answer of `/healthz`: the process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthReport {
    pub status: String,
    pub version: String,
    pub timestamp: Timestamp,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadinessReport {
    /// Whether all checks passed.
    pub ready: bool,
    pub checks: ReadinessChecks,
    /// Why checks failed; left out when all passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<ReadinessReasons>,
}

/// Which checks passed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadinessChecks {
    pub store: bool,
    pub proxy: bool,
    pub disk: bool,
    pub artifacts: bool,
}

/// The reason of each check that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessReasons {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<String>,
}
