//! The caller of a request: its principal, as authentication has found it, and what the principal may do.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use base64::Engine as _;
use shipway_api::CallerView;
use shipway_core::{
    access::{
        JobIdentity, Principal, PrincipalKind, PushPrincipal, Resource, Verb, VisibleServices, may,
        visible_services,
    },
    aggregate::Actor,
    ids::{AccessTokenId, UserName},
    user_directory::UserDirectoryState,
};

use super::{error::ApiError, route_permissions::DeclaredVerbs};

/// The caller of a request. Every handler takes one, and requires a permission of it before it does anything.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    /// The verbs that the route of the request declares; none where there is no request.
    declared: Option<DeclaredVerbs>,
}

impl Caller {
    /// Refuses a caller that may not do this. The route must declare the verb.
    pub(crate) fn require(&self, verb: Verb, resource: &Resource) -> Result<(), ApiError> {
        if self
            .declared
            .is_some_and(|declared| !declared.contains(verb))
        {
            return Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "this endpoint does not declare that it may {verb} something: please report this as a bug in Shipway"
                ),
            ));
        }
        may(&self.principal, verb, resource)
            .map_err(|forbidden| ApiError::forbidden(forbidden.to_string()))
    }

    /// Whether it may do this; for responses that show more to some.
    pub(crate) fn is_allowed(&self, verb: Verb, resource: &Resource) -> bool {
        may(&self.principal, verb, resource).is_ok()
    }

    /// The job whose worker the caller is, if it may do this for itself.
    pub(super) fn require_job(&self, verb: Verb) -> Result<&JobIdentity, ApiError> {
        let PrincipalKind::Job(job) = &self.principal.kind else {
            let why = "only the worker of a job may do this, with the token of its job";
            return Err(ApiError::forbidden(why));
        };
        self.require(verb, &Resource::Job(job.clone()))?;
        Ok(job)
    }

    /// The services that it may read: lists over all services return these.
    pub(crate) fn visible_services(&self) -> VisibleServices {
        visible_services(&self.principal)
    }

    /// Whether it may read the events of a stream.
    pub(super) fn may_read_events(&self, stream: &str) -> bool {
        let stream = Some(stream.to_owned());
        may(&self.principal, Verb::Read, &Resource::Events { stream }).is_ok()
    }

    pub(super) const fn from_principal(principal: Principal) -> Self {
        Self {
            principal,
            declared: None,
        }
    }

    /// The user that it is, or that its token acts for.
    pub(crate) fn user(&self) -> Option<UserName> {
        self.principal
            .id
            .as_str()
            .strip_prefix("user:")?
            .parse()
            .ok()
    }

    /// The access token that it presented.
    pub(super) fn token(&self) -> Option<AccessTokenId> {
        self.principal.token.clone()
    }

    /// The caller as the API shows it.
    pub(super) fn view(&self, directory: &UserDirectoryState) -> CallerView {
        CallerView {
            principal: self.principal.id.to_string(),
            name: self.principal.display_name(),
            token: self.principal.token.clone(),
            groups: self.principal.groups.clone(),
            roles: self.principal.roles.clone(),
            limit: self.principal.limit.clone(),
            has_users: directory.has_users(),
        }
    }

    /// The actor of the events that the request causes.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.principal.actor()
    }

    /// Whose push the request is.
    pub(super) fn pusher(&self) -> PushPrincipal {
        self.principal.pusher()
    }

    /// How messages call the caller.
    #[must_use]
    pub fn name(&self) -> String {
        self.principal.display_name()
    }

    /// The caller's groups, for approvals.
    pub(super) fn groups(&self) -> Vec<String> {
        self.principal.groups.clone()
    }

    /// Whether it may use an `Idempotency-Key`. Steps of jobs that present no token may change nothing, and must not fill the log
    /// with keys either.
    pub(super) const fn may_use_keys(&self) -> bool {
        !matches!(self.principal.kind, PrincipalKind::JobProcess(_))
    }

    /// The principal and its name: what tells callers apart that hold the same token.
    pub(super) fn key(&self) -> String {
        format!(
            "{} {}",
            self.principal.id,
            self.principal.name.as_deref().unwrap_or_default()
        )
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let principal = parts.extensions.get::<Principal>().cloned();
        let declared = parts.extensions.get::<DeclaredVerbs>().copied();
        match (principal, declared) {
            (Some(principal), Some(declared)) => Ok(Self {
                principal,
                declared: Some(declared),
            }),
            _ => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this endpoint has no authentication: please report this as a bug in Shipway",
            )),
        }
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
