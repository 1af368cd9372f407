//! The addresses of the pages: each handler gathers what its page shows. The HTML is made by `shipway_pages`.

mod action_forms;
mod approval_link;
mod approvals;
mod assets;
mod environment;
mod instance;
mod list_parameters;
mod lists;
mod openid_sign_in;
mod overview;
mod page_error;
mod release;
mod rollout;
mod run;
mod service;
mod settings;
mod sign_in;

use axum::{
    Router,
    http::header,
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
pub(crate) use page_error::show_refusals;
#[cfg(test)]
pub(crate) use settings::settings_addresses;
use shipway_pages::CONTENT_SECURITY_POLICY;

use crate::app::AppState;

/// The routes of all pages.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(overview::show))
        .route("/overview/changes", get(overview::changes))
        .route("/services/{service}", get(service::show))
        .route("/rollouts/{service}/{number}", get(rollout::show))
        .route("/runs/{service}/{number}", get(run::show))
        .route("/runs/{service}/{number}/log", get(run::show_log))
        .route("/runs", get(lists::runs))
        .route("/rollouts", get(lists::rollouts))
        .route("/releases", get(lists::releases))
        .route("/approvals", get(approvals::show))
        .route("/services/{service}/releases/{number}", get(release::show))
        .route("/services/{service}/compare", get(release::compare))
        .route(
            "/services/{service}/environments/{environment}",
            get(environment::show),
        )
        .route("/instances/{name}", get(instance::show))
        .route("/instances/{name}/log", get(instance::follow))
        .route("/badge/{service}/{file}", get(environment::badge))
        .merge(settings::routes())
        .merge(sign_in::routes())
        .layer(middleware::from_fn(sign_in::add_session))
}

/// The route of the forms of buttons, which sends their requests to the other routes.
pub(crate) fn action_routes(routes: Router) -> Router<AppState> {
    action_forms::routes(routes)
}

/// The routes of pages and assets that need no session.
pub(crate) fn open_routes() -> Router<AppState> {
    sign_in::open_routes()
        .merge(openid_sign_in::open_routes())
        .merge(approval_link::open_routes())
        .merge(assets::routes())
}

/// A page as a response.
fn html(page: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(page)).into_response()
}
