//! How a command ends: 0 done, 1 the thing failed, 2 usage or configuration, 3 not allowed, 4 server unreachable; 5 a run was
//! incomplete (`shipway run`).

use crate::client::ClientError;

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

    /// The exit code of the command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => error.exit_code(),
            Self::Usage { .. } => 2,
            Self::Failed(_) => 1,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Client(error) => error.help(),
            Self::Usage { help, .. } => help.as_deref(),
            Self::Failed(_) => None,
        }
    }
}
