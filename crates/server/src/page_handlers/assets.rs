//! The style sheet and the scripts of the pages.

use std::sync::LazyLock;

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use shipway_core::access::{Resource, Verb};

use crate::{
    api::{ApiError, Caller},
    app::AppState,
};

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The routes of all assets.
pub(super) fn routes() -> Router<AppState> {
    static STYLE: LazyLock<String> = LazyLock::new(shipway_pages::style_sheet);
    Router::new()
        .route(
            "/assets/shipway.css",
            get(|caller| asset(caller, CSS, &STYLE)),
        )
        .route(
            "/assets/shipway.js",
            get(|caller| asset(caller, SCRIPT, shipway_pages::SCRIPT)),
        )
        .route(
            "/assets/log_view.js",
            get(|caller| asset(caller, SCRIPT, shipway_pages::LOG_VIEW_SCRIPT)),
        )
        .route(
            "/assets/overview.js",
            get(|caller| asset(caller, SCRIPT, shipway_pages::OVERVIEW_SCRIPT)),
        )
}

async fn asset(
    caller: Caller,
    content_type: &'static str,
    text: &'static str,
) -> Result<Response, ApiError> {
    caller.require(Verb::Browse, &Resource::Server)?;
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "max-age=60"),
    ];
    Ok((headers, text).into_response())
}
