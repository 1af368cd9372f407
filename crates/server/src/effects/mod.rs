//! Effects handed to their drivers. Nothing is decided here: an effect comes in, a driver is called, an input goes back.

mod addresses;
mod annotations;
mod concurrency_groups;
pub(crate) mod environment_health;
mod measure;
mod provider_polling;
mod readiness;
mod rollout;
mod rollout_group;
mod run;
mod service;

pub(crate) use addresses::reconcile as reconcile_addresses;
pub use addresses::{AddressDriver, AddressError};
pub use concurrency_groups::GroupDriver;
pub use rollout::RolloutDriver;
pub(crate) use run::job_environment;
pub use run::{RunDriver, reserve_job_slots};
pub use service::ServiceDriver;
