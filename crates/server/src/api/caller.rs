//! Who asks: the token where one is set, and the name for the record.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use shipway_core::aggregate::Actor;
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::app::App;

/// The person behind a request, as they call themselves.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name; "someone" when none was given.
    pub name: String,
}

impl Caller {
    /// The actor of what follows.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Person(self.name.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            name: name_of(&parts.headers).unwrap_or_else(|| "someone".to_owned()),
        })
    }
}

/// The name a client gives: a header, or the user part of basic authentication as git sends it.
pub(super) fn name_of(headers: &HeaderMap) -> Option<String> {
    let header = headers
        .get("x-shipway-user")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    header
        .or_else(|| basic(headers).map(|(user, _)| user))
        .filter(|name| !name.is_empty() && name.len() <= 100 && !name.contains(char::is_control))
}

/// Lets through who presents the token, or anyone when none is set.
pub(super) async fn require_token(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(wanted) = &app.token else {
        return next.run(request).await;
    };
    let same = |given: &str, token: &str| bool::from(given.as_bytes().ct_eq(token.as_bytes()));
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let password = basic(request.headers()).map(|(_, password)| password);
    let fine = [bearer, password.as_deref()]
        .into_iter()
        .flatten()
        .any(|given| same(given, wanted) || same(given, &app.internal_token));
    if fine {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "this server asks for its token: SHIPWAY_TOKEN, --token, or as the password of git",
    )
    .into_response()
}

/// User and password of basic authentication.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
