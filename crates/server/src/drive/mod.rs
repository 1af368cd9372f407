//! Effects handed to their drivers. Nothing is decided here: an effect comes in, a driver is called, an input goes back.

mod addresses;
mod annotations;
mod asking;
pub(crate) mod environment_health;
mod gate;
pub(crate) mod lately;
pub(crate) mod live;
mod measure;
mod readiness;
mod rollout;
mod run;
mod service;
mod storage;
mod ties;

pub use addresses::AddressDriver;
pub(crate) use addresses::{reconcile as reconcile_addresses, served_at};
pub use gate::GroupDriver;
pub use rollout::RolloutDriver;
pub(crate) use run::surroundings;
pub use run::{RunDriver, reserve_places};
pub use service::ServiceDriver;
pub use storage::FileStorage;
