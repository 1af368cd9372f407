//! Questions put to instances: probes of their health, smoke tests. What counts as a good answer is the core's.

pub(crate) mod exec;
mod http;
pub mod probe;
pub mod smoke;

use std::path::Path;

/// The instance that a question is put to.
#[derive(Clone, Copy, Debug)]
pub struct ProbeTarget<'a> {
    /// `host:port` it listens on.
    pub address: &'a str,
    /// The host that requests ask for, where they name none themselves; none: the address.
    pub host: Option<&'a str>,
    /// Where commands run.
    pub workdir: &'a Path,
}
