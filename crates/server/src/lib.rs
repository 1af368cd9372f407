//! The control plane: HTTP API, git remote, server-sent events, pages; and the hand-over of effects to their drivers.
//!
//! What it must never do: decide anything about delivery (the core does), touch the world other than through a driver, or
//! stand in the way of traffic (the data plane is a process of its own).

mod api;
mod app;
mod drive;
mod environment_status;
mod failure_summary;
mod follow;
mod happened;
mod http_routes;
mod job_token;
mod listener;
mod page_routes;
mod push;
mod read_models;
mod routes;
mod secrets;
mod start;
mod summaries;
mod testing;
mod traffic;
mod workspaces;

pub use api::openapi;
pub use app::App;
pub use secrets::{Secrets, SecretsError};
pub use start::{Options, Running, StartError, start};
