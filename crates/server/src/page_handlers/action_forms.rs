//! The forms of buttons, for browsers without a script: each names a request to the API, which is sent on as a script would send it.
//!
//! *Invariants.* Nothing is authorised here: the request passes the checks of its own route, with the cookies of the browser and the
//! token of the form.

use std::time::Duration;

use axum::{
    Extension, Form, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::post,
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Map, Value};
use shipway_api::Problem;
use shipway_core::ids::RolloutId;
use shipway_pages::refused_action_page;

use super::{html, sign_in::local_address};
use crate::{
    api::ApiError, app::AppState, delivery_matrix::MatrixFeed, listener::ConnectionAddresses,
};

/// How long a form waits for the overview, which follows the log, to show what it did.
const OVERVIEW_WAIT: Duration = Duration::from_millis(300);

/// Responses of the API to buttons are small documents.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// The headers of a form that its request keeps.
const PASSED_ON: [HeaderName; 5] = [
    header::HOST,
    header::ORIGIN,
    header::COOKIE,
    header::AUTHORIZATION,
    header::USER_AGENT,
];

pub(super) fn routes(others: Router) -> Router<AppState> {
    Router::new()
        .route("/actions", post(carry_out))
        .layer(Extension(ActionTarget(others)))
}

/// Where the requests of forms are sent.
#[derive(Clone)]
struct ActionTarget(Router);

/// The fields of a button's form.
#[derive(Deserialize)]
struct ActionForm {
    /// The address below `/api/v1/` that the button posts to.
    address: String,
    /// The document that it posts.
    #[serde(default)]
    body: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    csrf: String,
}

/// Sends the request of a form, and shows the page that the form is on, or that of the rollout that has begun.
async fn carry_out(
    Extension(ActionTarget(routes)): Extension<ActionTarget>,
    State(feed): State<MatrixFeed>,
    client: Option<Extension<ConnectionAddresses>>,
    headers: HeaderMap,
    Form(form): Form<ActionForm>,
) -> Response {
    let back = page_of_form(&headers, &form.address);
    let mut request = match api_request(&form, &headers) {
        Ok(request) => request,
        Err(problem) => return refused(problem.0.status, &problem.0.detail, &back),
    };
    if let Some(Extension(client)) = client {
        request.extensions_mut().insert(client);
    }
    let mut overview = feed.watch();
    overview.mark_unchanged();
    let response = match TowerToHyperService::new(routes).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let status = response.status();
    let body = to_bytes(response.into_body(), RESPONSE_BYTES_MAX).await;
    let body = body.unwrap_or_default();
    if status.is_success() {
        let _ = tokio::time::timeout(OVERVIEW_WAIT, overview.changed()).await;
        return Redirect::to(&started_rollout(&body).unwrap_or(back)).into_response();
    }
    let problem = serde_json::from_slice::<Problem>(&body);
    let reason = match problem {
        Ok(problem) => problem.detail,
        Err(_) => format!("the server responded with status {status}"),
    };
    refused(status.as_u16(), &reason, &back)
}

/// The request that a form stands for.
fn api_request(form: &ActionForm, headers: &HeaderMap) -> Result<Request<Body>, ApiError> {
    let address = form.address.parse::<Uri>().ok();
    let address = address.filter(|uri| uri.authority().is_none());
    let address = address.filter(|uri| uri.path().starts_with("/api/v1/"));
    let address = address.ok_or_else(|| {
        ApiError::bad_request("this form does not name an address of the API: reload its page")
    })?;
    let fields = match form.body.trim() {
        "" => Ok(Map::new()),
        text => serde_json::from_str::<Map<String, Value>>(text),
    };
    let mut fields = fields.map_err(|_| {
        ApiError::bad_request("the fields of this form are not a JSON object: reload its page")
    })?;
    if !form.reason.trim().is_empty() {
        fields.insert("reason".to_owned(), form.reason.trim().into());
    }
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(address)
        .header(header::CONTENT_TYPE, "application/json");
    for name in PASSED_ON {
        for value in headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    if !form.csrf.is_empty() {
        request = request.header("x-shipway-csrf", &form.csrf);
    }
    let body = Value::Object(fields).to_string();
    request
        .body(Body::from(body))
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// The page that the form was on; without a `Referer` that of the rollout or run which the address names, or the overview.
fn page_of_form(headers: &HeaderMap, address: &str) -> String {
    let referrer = headers.get(header::REFERER);
    let referrer = referrer.and_then(|value| value.to_str().ok()?.parse::<Uri>().ok());
    let path = referrer.as_ref().and_then(Uri::path_and_query);
    if let Some(path) = path
        && path.path() != "/actions"
    {
        return local_address(path.as_str()).to_owned();
    }
    let parts: Vec<&str> = address.trim_start_matches("/api/v1/").split('/').collect();
    match parts[..] {
        [kind @ ("rollouts" | "runs"), service, number, ..] => {
            local_address(&format!("/{kind}/{service}/{number}")).to_owned()
        }
        _ => "/".to_owned(),
    }
}

/// The page of the rollout that a request has started.
fn started_rollout(body: &[u8]) -> Option<String> {
    let said = serde_json::from_slice::<Value>(body).ok()?;
    let id = said["rollouts"][0].as_str()?.parse::<RolloutId>().ok()?;
    Some(format!("/rollouts/{}/{}", id.service, id.number.0))
}

fn refused(status: u16, reason: &str, back: &str) -> Response {
    if status == 401 {
        return Redirect::to("/login").into_response();
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, html(refused_action_page(reason, back))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(address: &str, body: &str) -> ActionForm {
        ActionForm {
            address: address.to_owned(),
            body: body.to_owned(),
            reason: " why ".to_owned(),
            csrf: "token".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_form_becomes_the_request_of_its_button() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "shipway_session=1".parse().unwrap());
        headers.insert(header::ACCEPT, "text/html".parse().unwrap());
        let sent = form("/api/v1/rollouts/shop/2/approve", r#"{"plan":"sha256:1"}"#);
        let request = api_request(&sent, &headers).unwrap();
        assert_eq!(request.uri().path(), "/api/v1/rollouts/shop/2/approve");
        assert_eq!(request.headers()["cookie"], "shipway_session=1");
        assert_eq!(request.headers()["x-shipway-csrf"], "token");
        assert!(!request.headers().contains_key(header::ACCEPT));
        let body = to_bytes(request.into_body(), 1_000).await.unwrap();
        assert_eq!(body, r#"{"plan":"sha256:1","reason":"why"}"#);
    }

    #[test]
    fn a_form_reaches_the_api_only() {
        for address in [
            "/internal/push",
            "/actions",
            "/git/shop",
            "http://evil.example.com/api/v1/runs",
            "//evil.example.com/api/v1/runs",
            "/api/v1",
            "",
            "/api/v1/ \r\n",
        ] {
            let refused = api_request(&form(address, ""), &HeaderMap::new());
            assert!(refused.is_err(), "{address:?}");
        }
        let list = api_request(&form("/api/v1/runs/shop/1/cancel", "[]"), &HeaderMap::new());
        assert!(list.is_err());
    }

    #[test]
    fn the_page_after_a_form_is_on_this_server() {
        let with = |referrer: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::REFERER, referrer.parse().unwrap());
            page_of_form(&headers, "/api/v1/rollouts/shop/2/approve")
        };
        assert_eq!(with("http://127.0.0.1:1/approvals?q=a"), "/approvals?q=a");
        assert_eq!(with("http://evil.example.com//a.example.com"), "/");
        assert_eq!(with("http://127.0.0.1:1/actions"), "/rollouts/shop/2");
        let none = HeaderMap::new();
        assert_eq!(
            page_of_form(&none, "/api/v1/runs/shop/7/rerun"),
            "/runs/shop/7"
        );
        assert_eq!(page_of_form(&none, "/api/v1/services/shop/deploys"), "/");
    }
}
