//! The control plane: HTTP API, git remote, server-sent events, pages; and the hand-over of effects to their drivers.
//!
//! Must not: decide anything about delivery (the core does), touch the world other than through a driver, or block traffic (the data
//! plane is a separate process).

mod accepted_content;
mod accounts;
mod address_book;
mod api;
mod app;
mod baseline_history;
mod business_events;
mod capabilities;
mod delivery_engines;
mod delivery_matrix;
mod effects;
mod environment_status;
mod failure_summary;
mod file_storage;
mod followed_repo;
mod forges;
mod http_routes;
mod instance_logs;
mod job_environment;
mod job_logs;
mod job_token;
mod key_files;
mod keyed_requests;
mod listener;
mod live_evidence;
mod missing_rows;
mod page_handlers;
mod projections;
mod push;
mod read_models;
mod recorded_routes;
mod release_comparison;
mod retention;
mod run_page;
mod sealing;
mod secrets;
mod served_addresses;
mod set_reading;
mod start;
mod start_options;
mod test_reports;
mod workspaces;

pub use api::openapi;
pub use app::App;
pub use secrets::SecretsError;
pub use start::{RunningServer, start};
pub use start_options::{MissingLog, OpenIdOptions, ServerOptions, StartError};
