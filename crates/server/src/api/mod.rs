//! The HTTP API. Handlers translate: they parse, ask the engines or the store, and answer; they decide nothing.

mod addresses;
mod analysis;
mod artifacts;
mod caller;
mod deploys;
mod environments;
mod events;
mod gates;
mod git;
mod health;
mod idempotency;
mod identity;
mod json_body;
mod logs;
mod metrics;
mod problem;
mod query;
mod rollouts;
mod runs;
mod same_origin;
mod services;
mod set_off;
mod shell;
mod testing;

use std::sync::Arc;

use axum::{Router, middleware};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use analysis::{series_of, series_until};
pub use caller::Caller;
pub(crate) use idempotency::{KeyedRequestRunner, NoEffects, prune as prune_keyed_requests};
pub use problem::Problem;
pub(crate) use rollouts::view as rollout_view;
pub(crate) use runs::with_summaries as run_doc;

use crate::{app::App, pages};

/// What the API is about.
#[derive(OpenApi)]
#[openapi(info(
    title = "Shipway",
    description = "From a commit to production, and guard there. Errors are problem documents (RFC 9457). A POST needs `Content-Type: application/json`, also without a body; unknown fields and query parameters are refused. It may carry an `Idempotency-Key`: sent again with the same key within a day, it is answered as it was the first time and does nothing."
))]
struct Description;

/// All routes of the server.
pub fn router(app: Arc<App>) -> Router {
    let (guarded, description) = guarded();
    let text = serde_json::to_string(&description).expect("a description is plain data");
    let parameters = Arc::new(query::QueryParameters::new(&description));
    let guarded = guarded
        .route(
            "/api/openapi.json",
            axum::routing::get(move || health::document(text.clone())),
        )
        .merge(git::routes())
        .merge(pages::routes())
        .layer(middleware::from_fn_with_state(
            app.clone(),
            idempotency::once,
        ))
        .layer(middleware::from_fn_with_state(
            parameters,
            query::refuse_unknown,
        ))
        .layer(middleware::from_fn(problem::in_one_form))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            identity::require_identity,
        ));
    let open = Router::new()
        .route("/healthz", axum::routing::get(health::healthz))
        .route("/readyz", axum::routing::get(health::readyz))
        .route("/metrics", axum::routing::get(health::metrics))
        .route("/schema/shipway.json", axum::routing::get(health::schema))
        .route("/internal/push", axum::routing::post(git::push_report));
    open.merge(guarded)
        .fallback(|| async { Problem::not_found("there is nothing here; see /api/openapi.json") })
        // The outermost: it holds for every address, also for those that are not there.
        .layer(middleware::from_fn_with_state(
            app.clone(),
            same_origin::require_same_origin,
        ))
        .with_state(app)
}

fn guarded() -> (Router<Arc<App>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(services::list))
        .routes(routes!(services::show))
        .routes(routes!(services::releases))
        .routes(routes!(deploys::plan))
        .routes(routes!(deploys::deploy))
        .routes(routes!(deploys::rollback))
        .routes(routes!(services::dispatch))
        .routes(routes!(services::environments))
        .routes(routes!(environments::resume))
        .routes(routes!(addresses::list))
        .routes(routes!(metrics::report))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::rerun))
        .routes(routes!(artifacts::download))
        .routes(routes!(shell::prepare))
        .routes(routes!(logs::job))
        .routes(routes!(logs::instance))
        .routes(routes!(testing::service))
        .routes(routes!(testing::run))
        .routes(routes!(testing::quarantine))
        .routes(routes!(testing::release))
        .routes(routes!(testing::why))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::steer))
        .routes(routes!(analysis::show))
        .routes(routes!(analysis::drawing))
        .routes(routes!(gates::approvals))
        .routes(routes!(gates::answer))
        .routes(routes!(events::events))
        .split_for_parts()
}

/// The description of the API, without a server.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    guarded().1
}
