//! The caller of a request, for the log: a person by the name they give, or a job by its token.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use base64::Engine as _;
use shipway_core::aggregate::Actor;

use crate::job_token::JobIdentity;

/// The caller of a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name that a person gives, "someone" when none was given; of a job its own.
    pub name: String,
    /// The job, when its token was presented.
    pub job: Option<JobIdentity>,
}

impl Caller {
    /// The actor of the events that the request causes.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match &self.job {
            Some(job) => Actor::Shipway(job.to_string()),
            None => Actor::Person(self.name.clone()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let job = parts.extensions.get::<JobIdentity>().cloned();
        let name = match &job {
            Some(job) => job.to_string(),
            None => name_of(&parts.headers).unwrap_or_else(|| "someone".to_owned()),
        };
        Ok(Self { name, job })
    }
}

/// The name a client gives: a header, or the user part of basic authentication as git sends it.
pub(super) fn name_of(headers: &HeaderMap) -> Option<String> {
    let header = headers
        .get("x-shipway-user")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    header
        .or_else(|| basic_login(headers).map(|(user, _)| user))
        .filter(|name| !name.is_empty() && name.len() <= 100 && !name.contains(char::is_control))
}

/// User and password of basic authentication.
pub(super) fn basic_login(headers: &HeaderMap) -> Option<(String, String)> {
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
