//! Effects: what the engine decides is carried out here.
//!
//! | module | effect |
//! |---|---|
//! | [`jobs`] | jobs of workflows as worker processes |
//! | [`git`] | repositories, pushes, following a local repository |
//! | [`metrics`] | values from metric providers |
//! | [`forge_api`] | statuses, deployments and comments at forges |
//! | [`notify`] | notifications by chat, webhook, mail and pager |
//! | [`outbox`] | what a destination of messages implements |
//! | [`openid`] | keys and logins of OpenID Connect providers |
//!
//! # Invariants
//!
//! A driver decides nothing: it carries out an effect, idempotently, and reports what happened.

mod folder_size;
pub mod forge_api;
pub mod git;
mod http_client;
pub mod jobs;
pub mod metrics;
pub mod network_guard;
pub mod notify;
pub mod openid;
pub mod outbox;
pub mod peer;
pub mod reusable_workflows;
pub mod secret_expansion;
mod stop_all;

pub use stop_all::{StoppedProcesses, stop_all};
