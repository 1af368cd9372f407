//! JSON bodies: an object, and where a body may be absent, nothing. An array is refused: serde would fill the fields of a request with its
//! elements, in their order.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The JSON object that a request needs. That the body is JSON is checked for all requests before, see `same_origin`.
pub(super) struct JsonObject<T>(pub(super) T);

/// The JSON object of a request; the default of `T` where there is none.
pub(super) struct OptionalJson<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonObject<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = read_body(request, state).await?;
        parse_object(&bytes).map(Self).map_err(|refused| *refused)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = read_body(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        parse_object(&bytes).map(Self).map_err(|refused| *refused)
    }
}

async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Response> {
    let bytes = Bytes::from_request(request, state).await;
    bytes.map_err(IntoResponse::into_response)
}

fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Box<Response>> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let why = "the body must be a JSON object, but it is an array";
        return Err(Box::new(ApiError::bad_request(why).into_response()));
    }
    let Json(value) = Json::from_bytes(bytes).map_err(|it| Box::new(it.into_response()))?;
    Ok(value)
}
