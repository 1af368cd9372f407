//! The style sheet and the scripts of the pages. They need no session: the page of `/login` has them, too.

use std::sync::LazyLock;

use crate::app::AppState;
use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The routes of all assets.
pub(super) fn routes() -> Router<AppState> {
    static STYLE: LazyLock<String> = LazyLock::new(shipway_pages::style_sheet);
    Router::new()
        .route("/assets/shipway.css", get(|| asset(CSS, &STYLE)))
        .route(
            "/assets/shipway.js",
            get(|| asset(SCRIPT, shipway_pages::SCRIPT)),
        )
        .route(
            "/assets/log_view.js",
            get(|| asset(SCRIPT, shipway_pages::LOG_VIEW_SCRIPT)),
        )
        .route(
            "/assets/instance_log.js",
            get(|| asset(SCRIPT, shipway_pages::INSTANCE_LOG_SCRIPT)),
        )
        .route(
            "/assets/overview.js",
            get(|| asset(SCRIPT, shipway_pages::OVERVIEW_SCRIPT)),
        )
}

async fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "max-age=60"),
    ];
    (headers, text).into_response()
}
