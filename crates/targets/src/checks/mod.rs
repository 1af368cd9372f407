//! Checks of instances: health probes and smoke tests. What counts as success is decided by the core.

pub mod exec;
mod http;
pub mod probe;
pub mod smoke;

use std::{path::Path, time::Duration};

use crate::target::CommandError;

/// Why a probe, a smoke test or a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Nothing listens on this address.
    #[error("connection refused on {0}")]
    Refused(String),
    /// The connection could not be opened.
    #[error("{address}: {error}")]
    Connect {
        /// `host:port`.
        address: String,
        /// The error of the system.
        error: String,
    },
    /// The instance did not answer in time.
    #[error("no response from {address} within {} ms", .timeout.as_millis())]
    NoAnswer {
        /// `host:port`.
        address: String,
        /// The time limit.
        timeout: Duration,
    },
    /// The connection ended before the response did.
    #[error("{address} closed the connection: {cause}")]
    BrokenOff {
        /// `host:port`.
        address: String,
        /// The innermost error.
        cause: String,
    },
    /// The request can't be built.
    #[error("{0}")]
    Request(String),
    /// The instance answered that it is not well.
    #[error("{0}")]
    Unhealthy(String),
    /// The command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Where an instance answers requests.
#[derive(Clone, Copy, Debug)]
pub struct InstanceAddress<'a> {
    /// `host:port` it listens on.
    pub address: &'a str,
    /// The Host header of requests that set none; `None` means the address.
    pub host: Option<&'a str>,
}

/// The instance to probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeTarget<'a> {
    /// Where it answers.
    pub at: InstanceAddress<'a>,
    /// Working directory of commands.
    pub workdir: &'a Path,
}
