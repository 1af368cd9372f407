//! How a command ends: 0 done, 1 the thing failed, 2 usage or configuration, 3 not allowed, 4 server unreachable; 5 a run was
//! incomplete (`shipway run`).

use std::process::ExitCode;

use crate::{client::ClientError, print::error_line};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line is invalid; the text says how to correct it.
    #[error("{what}")]
    Usage {
        /// The problem.
        what: String,
        /// What would be right.
        help: Option<String>,
    },
    /// The thing itself failed: a red run, a rollout that was rolled back.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// A usage error without further help.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            help: None,
        }
    }

    /// A usage error with what would be right.
    pub fn usage_with(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            help: Some(help.into()),
        }
    }

    /// Prints the error with its help, and gives the exit code.
    #[must_use]
    pub fn report(self) -> ExitCode {
        let code = match &self {
            Self::Client(error) => error.exit_code(),
            Self::Usage { .. } => 2,
            Self::Failed(_) => 1,
        };
        error_line(&format!("shipway: {self}"));
        let help = match &self {
            Self::Client(error) => error.help().map(str::to_owned),
            Self::Usage { help, .. } => help.clone(),
            Self::Failed(_) => None,
        };
        if let Some(help) = help {
            error_line(&format!("  help: {help}"));
        }
        ExitCode::from(code)
    }
}
