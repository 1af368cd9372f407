//! Checks of instances: health probes and smoke tests. What counts as success is decided by the core.

pub(crate) mod exec;
mod http;
pub mod probe;
pub mod smoke;

use std::path::Path;

/// The instance to check.
#[derive(Clone, Copy, Debug)]
pub struct ProbeTarget<'a> {
    /// `host:port` it listens on.
    pub address: &'a str,
    /// The Host header of requests that set none; `None` means the address.
    pub host: Option<&'a str>,
    /// Working directory of commands.
    pub workdir: &'a Path,
}
