//! The HTTP API. Handlers translate: they parse, ask the engines or the store, and answer; they decide nothing.

mod access_bound_body;
pub(crate) mod account;
mod addresses;
mod analysis;
pub(crate) mod approval_links;
pub(crate) mod approvals;
mod artifacts;
pub(crate) mod audit;
mod business_events;
mod caller;
mod deletion;
mod delivery;
mod deploy_outcome;
mod deploys;
mod description;
mod edit_version;
mod environments;
pub(crate) mod error;
mod events;
mod forges;
pub(crate) mod git;
pub(crate) mod groups;
pub(crate) mod health;
mod hooks;
pub(crate) mod idempotency;
pub(crate) mod identity;
pub(crate) mod job_inputs;
pub(crate) mod job_records;
mod json_body;
pub(crate) mod lists;
mod log_windows;
pub(crate) mod logs;
mod matrix;
mod notifications;
pub(crate) mod prometheus;
mod prune;
pub(crate) mod query;
pub(crate) mod releases;
pub(crate) mod rollouts;
pub(crate) mod route_permissions;
pub(crate) mod runs;
pub(crate) mod same_origin;
pub(crate) mod secrets;
mod services;
mod shell;
mod test_results;
pub(crate) mod tokens;
pub(crate) mod users;
mod variables;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use caller::Caller;
pub use error::ApiError;
pub(crate) use query::QueryParameters;

use crate::app::AppState;

/// What the API is about.
#[derive(OpenApi)]
#[openapi(
    components(schemas(
        shipway_api::Problem,
        shipway_api::RolloutAction,
        shipway_api::JobGateAction,
        shipway_api::ReleaseAction,
        shipway_api::LogPlace,
        shipway_api::UserAction
    )),
    info(
        title = "Shipway",
        description = "Delivers commits to production and rolls back bad releases automatically. Errors are problem documents (RFC 9457). A POST needs `Content-Type: application/json`, also without a body; unknown fields and query parameters are refused. It may carry an `Idempotency-Key`: a repeated request with the same key within 24 h returns the original response and has no effect."
    )
)]
struct ApiDescription;

/// The routes of the API with their description.
pub(crate) fn routes() -> (Router<AppState>, utoipa::openapi::OpenApi) {
    let (router, mut description) = OpenApiRouter::with_openapi(ApiDescription::openapi())
        .routes(routes!(services::list))
        .routes(routes!(services::show))
        .routes(routes!(services::releases))
        .routes(routes!(deploys::plan))
        .routes(routes!(deploys::deploy))
        .routes(routes!(deploys::rollback))
        .routes(routes!(services::dispatch))
        .routes(routes!(environments::list))
        .routes(routes!(environments::resume))
        .routes(routes!(deletion::delete_environment))
        .routes(routes!(deletion::delete_service))
        .routes(routes!(addresses::list))
        .routes(routes!(business_events::report))
        .routes(routes!(releases::list))
        .routes(routes!(releases::act))
        .routes(routes!(matrix::show))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::rerun))
        .routes(routes!(artifacts::download))
        .routes(routes!(shell::prepare))
        .routes(routes!(logs::job))
        .routes(routes!(log_windows::lines))
        .routes(routes!(log_windows::search))
        .routes(routes!(logs::instance))
        .routes(routes!(test_results::service))
        .routes(routes!(test_results::run))
        .routes(routes!(test_results::quarantine))
        .routes(routes!(test_results::release))
        .routes(routes!(test_results::why))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::act))
        .routes(routes!(approval_links::create))
        .routes(routes!(analysis::show))
        .routes(routes!(analysis::drawing))
        .routes(routes!(approvals::approvals))
        .routes(routes!(approvals::act_on_job_gate))
        .routes(routes!(delivery::list))
        .routes(routes!(prune::show, prune::remove))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::set, secrets::remove))
        .routes(routes!(secrets::import))
        .routes(routes!(secrets::rotate))
        .routes(routes!(variables::list))
        .routes(routes!(variables::set, variables::remove))
        .routes(routes!(forges::show, forges::connect, forges::disconnect))
        .routes(routes!(audit::list))
        .routes(routes!(notifications::list))
        .routes(routes!(notifications::dead_letters))
        .routes(routes!(notifications::remove_dead_letter))
        .routes(routes!(notifications::resend))
        .routes(routes!(notifications::send_test))
        .routes(routes!(events::events))
        .merge(account_routes())
        .split_for_parts();
    description::complete_description(&mut description);
    (router, description)
}

/// Users, groups, tokens, and the account of the caller.
fn account_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(users::list, users::add))
        .routes(routes!(users::show, users::change, users::remove))
        .routes(routes!(users::set_password))
        .routes(routes!(users::act))
        .routes(routes!(groups::list, groups::add))
        .routes(routes!(groups::show, groups::change, groups::remove))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(account::show))
        .routes(routes!(account::log_out))
}

/// The routes that need no authentication, with their description.
pub(crate) fn unguarded_routes() -> (Router<AppState>, utoipa::openapi::OpenApi) {
    let (router, mut description) = OpenApiRouter::new()
        .routes(routes!(account::log_in))
        .routes(routes!(hooks::receive))
        .split_for_parts();
    description::complete_description(&mut description);
    (router, description)
}

/// The description of the API, without a server.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut all = routes().1;
    all.merge(unguarded_routes().1);
    all
}
