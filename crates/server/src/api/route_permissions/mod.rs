//! What each route requires of its caller: one declaration for each kind of request.
//!
//! # Invariants
//!
//! - A route that is not declared answers with an error: [`attach_declaration`] runs before every handler.
//! - A handler can't require a permission that its route does not declare: [`Caller::require`](super::Caller) compares.
//! - The table in `docs/access.md` is made from the declarations and [`may`](shipway_core::access::may), and every row of it is tested
//!   with every role on a real server (`cli/tests/e2e/access.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use axum::{
    extract::{MatchedPath, Request},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use shipway_core::access::Verb;

use super::error::ApiError;

mod declarations;
#[cfg(test)]
mod table;

use declarations::DECLARED;

/// A kind of request and its audience.
#[derive(Clone, Copy, Debug)]
struct RoutePermission {
    #[cfg_attr(not(test), expect(dead_code, reason = "methods of a path share verbs"))]
    method: &'static str,
    /// The path as the router has it.
    path: &'static str,
    /// What tells it from other requests to the same path; empty if there are none.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the table of the docs"))]
    case: &'static str,
    audience: RouteAudience,
}

/// The senders that a route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RouteAudience {
    /// Any client.
    Everyone,
    /// Any principal.
    SignedIn,
    /// The hooks of this server's repositories.
    OwnHooks,
    /// Jobs, each for itself.
    OwnJob(Verb),
    /// Principals with a role for this verb.
    Permitted(Verb, PermissionObject),
}

/// The kind of a request's [`Resource`](shipway_core::access::Resource).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PermissionObject {
    Server,
    Service,
    Environment,
    Repository,
    Run,
    Artifacts,
    JobLogs,
    RunTests,
    Rollout,
    RolloutControl,
    JobApproval,
    RunDeployment,
    Analysis,
    Instance,
    AllEvents,
    RolloutEvents,
    RunEvents,
    UserEvents,
}

impl RouteAudience {
    const fn verb(self) -> Option<Verb> {
        match self {
            Self::Everyone | Self::SignedIn => None,
            Self::OwnHooks => Some(Verb::ReportPush),
            Self::OwnJob(verb) | Self::Permitted(verb, _) => Some(verb),
        }
    }
}

/// The verbs that a route declares. Handlers require no others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeclaredVerbs(&'static BTreeSet<Verb>);

impl DeclaredVerbs {
    pub(crate) fn contains(self, verb: Verb) -> bool {
        self.0.contains(&verb)
    }
}

/// The verbs of each path. Methods share them: the router decides which methods there are.
static VERBS: LazyLock<BTreeMap<&'static str, BTreeSet<Verb>>> = LazyLock::new(|| {
    let mut verbs = BTreeMap::<_, BTreeSet<Verb>>::new();
    for declared in DECLARED {
        let of_path = verbs.entry(declared.path).or_default();
        of_path.extend(declared.audience.verb());
    }
    verbs
});

/// Passes on a request with the verbs that its route declares.
pub(crate) async fn attach_declaration(mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let Some(path) = path else {
        return next.run(request).await;
    };
    let Some(verbs) = VERBS.get(path.as_str()) else {
        let why = format!(
            "{} has no declared permission: please report this as a bug in Shipway",
            path.as_str()
        );
        return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why).into_response();
    };
    request.extensions_mut().insert(DeclaredVerbs(verbs));
    next.run(request).await
}
