//! Effects handed to their drivers. Nothing is decided here: an effect comes in, a driver is called, an input goes back.

mod addresses;
mod annotations;
pub(crate) mod baseline_history;
mod concurrency_groups;
pub(crate) mod environment_health;
mod file_storage;
pub(crate) mod live_evidence;
mod measure;
mod provider_polling;
mod readiness;
mod rollout;
mod rollout_group;
mod run;
mod service;

pub use addresses::{AddressDriver, AddressError};
pub(crate) use addresses::{reconcile as reconcile_addresses, served_at};
pub use concurrency_groups::GroupDriver;
pub use file_storage::FileStorage;
pub use rollout::RolloutDriver;
pub(crate) use run::job_environment;
pub use run::{RunDriver, reserve_job_slots};
pub use service::ServiceDriver;
