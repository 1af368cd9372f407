//! Holds of environments: after a rollback or an abort that a person asked for, nothing goes in by itself until a person resumes.
//!
//! A hold stops automation only. What a person deploys during a hold goes out, and the hold stays: the decision was about that
//! release. An automatic rollback holds nothing.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{EnvironmentName, ServiceName};

/// Automatic promotion into an environment is stopped until a person resumes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentHold {
    pub since: Timestamp,
    /// Who asked for the rollback or abort.
    pub by: String,
    pub reason: String,
}

impl fmt::Display for EnvironmentHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "held by {} since {}: {}",
            self.by,
            self.since.strftime("%Y-%m-%d %H:%M:%S UTC"),
            self.reason
        )
    }
}

impl EnvironmentHold {
    /// The command that ends the hold.
    #[must_use]
    pub fn resume_command(service: &ServiceName, environment: &EnvironmentName) -> String {
        format!("shipway resume {service} --env {environment}")
    }

    /// The whole sentence: who holds `environment`, since when, why, and how it is resumed.
    #[must_use]
    pub fn describe(&self, service: &ServiceName, environment: &EnvironmentName) -> String {
        let command = Self::resume_command(service, environment);
        format!("{environment} is {self}; resume: {command}")
    }
}
