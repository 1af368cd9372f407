//! Every route of the server, and the checks before its handler: origin, authentication, query parameters, idempotency key.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, Uri},
    middleware,
    routing::{get, post},
};

use crate::{
    accepted_content::accepts_html,
    api::{
        self, ApiError, QueryParameters, error, git, health, idempotency, identity, job_inputs,
        job_records, prometheus, query, route_permissions, same_origin,
    },
    app::{App, AppState},
    page_handlers,
};

/// The routes of this server's own git hooks.
fn hook_routes(app: &AppState) -> Router<AppState> {
    Router::new()
        .route("/internal/push", post(git::push_report))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            identity::authenticate_hook,
        ))
}

/// All routes of the server.
pub(crate) fn router(app: Arc<App>) -> Router {
    let app = AppState(app);
    let (guarded, mut description) = api::routes();
    let (unguarded, unguarded_description) = api::unguarded_routes();
    description.merge(unguarded_description);
    let text = serde_json::to_string(&description).expect("a description is plain data");
    let parameters = Arc::new(QueryParameters::new(&description));
    let unguarded = unguarded
        .layer(middleware::from_fn_with_state(
            parameters.clone(),
            query::refuse_unknown,
        ))
        .layer(middleware::from_fn(error::in_one_form));
    let guarded = guarded
        .route(
            "/api/openapi.json",
            get(move |caller| health::document(caller, text.clone())),
        )
        .merge(git::routes())
        .merge(page_handlers::routes())
        .layer(middleware::from_fn_with_state(
            app.clone(),
            idempotency::once,
        ))
        .layer(middleware::from_fn_with_state(
            parameters,
            query::refuse_unknown,
        ))
        .layer(middleware::from_fn(error::in_one_form))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            identity::authenticate,
        ));
    let internal = hook_routes(&app);
    let workers = job_inputs::routes()
        .merge(job_records::routes())
        .layer(middleware::from_fn(error::in_one_form))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            identity::authenticate,
        ));
    let open = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(prometheus::metrics))
        .route("/schema/shipway.json", get(health::schema));
    let routes = open
        .merge(internal)
        .merge(page_handlers::open_routes())
        .merge(unguarded)
        .merge(workers)
        .merge(guarded);
    let actions = page_handlers::action_routes(finish(routes.clone(), &app));
    finish(routes.merge(actions), &app)
}

/// Routes with what applies to all of them, also to unknown addresses.
fn finish(routes: Router<AppState>, app: &AppState) -> Router {
    routes
        .layer(middleware::from_fn(route_permissions::attach_declaration))
        .fallback(answer_unknown_address)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            same_origin::require_same_origin,
        ))
        .layer(middleware::from_fn(page_handlers::show_refusals))
        .with_state(app.clone())
}

/// Refuses an address that no route has.
async fn answer_unknown_address(uri: Uri, headers: HeaderMap) -> ApiError {
    match accepts_html(&headers) {
        true => ApiError::missing(format!("There is no page at {}.", uri.path())),
        false => ApiError::missing("not found; see /api/openapi.json"),
    }
}
