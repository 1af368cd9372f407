//! Questions put to instances: probes of their health, smoke tests. What counts as a good answer is the core's.

pub(crate) mod exec;
mod http;
pub mod probe;
pub mod smoke;
