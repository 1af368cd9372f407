//! Effects handed to their drivers. Nothing is decided here: an effect comes in, a driver is called, an input goes back.

mod addresses;
mod annotations;
mod concurrency_groups;
pub(crate) mod environment_health;
mod forges;
mod measure;
mod notice_delivery;
mod outbox;
mod provider_polling;
mod readiness;
mod removal;
mod rollout;
mod rollout_group;
mod run;
mod secrets;
mod service;

pub(crate) use addresses::{AddressDriver, reconcile as reconcile_addresses};
pub(crate) use concurrency_groups::GroupDriver;
pub(crate) use forges::ForgeDriver;
pub(crate) use notice_delivery::NoticeDelivery;
pub(crate) use outbox::OutboxDriver;
pub(crate) use rollout::RolloutDriver;
pub(crate) use run::{RunDriver, reserve_job_slots};
pub(crate) use secrets::SecretDriver;
pub(crate) use service::ServiceDriver;
