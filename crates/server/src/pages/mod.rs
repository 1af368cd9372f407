//! Pages: rendered on the server, readable without a script, alive with one. The full set comes later; these show services ×
//! environments, a service, a rollout and a run.

mod frame;
mod markdown;
mod overview;
mod rollout;
mod run;
mod service;
mod testing;

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::app::App;

/// The routes of all pages.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/services/{service}", get(service::page))
        .route("/rollouts/{service}/{number}", get(rollout::page))
        .route("/runs/{service}/{number}", get(run::page))
        .route(
            "/assets/shipway.css",
            get(|| asset("text/css; charset=utf-8", &CSS)),
        )
        .route(
            "/assets/shipway.js",
            get(|| asset("text/javascript; charset=utf-8", include_str!("shipway.js"))),
        )
}

/// The pages' style sheet, and that of the plots in them.
static CSS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}{}",
        include_str!("shipway.css"),
        shipway_analysis::plot::STYLE
    )
});

async fn asset(kind: &'static str, text: &'static str) -> Response {
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "max-age=60"),
        ],
        text,
    )
        .into_response()
}
