//! Authorization: the principal of a request, its roles, and the one rule that allows or forbids the request (ADR 39).
//!
//! # Invariants
//!
//! - A principal is made where a request is authenticated, and by parts of Shipway that act on their own.
//! - [`may`] is the only rule: every handler of the API asks it, and nothing else decides.
//! - A role holds for a service, an environment, or all of them. Reading is granted for whole services, because runs, releases and the
//!   log of a service belong to all of its environments; what changes something needs the role where it changes it.

mod job_identity;
mod principal;
mod resource;
mod role;
mod rule;
#[cfg(test)]
mod tests;
mod verb;

pub use job_identity::JobIdentity;
pub use principal::{Principal, PrincipalKind, PushPrincipal};
pub use resource::Resource;
pub use role::{ParseRoleBindingError, PrincipalRole, RoleBinding, VisibleServices};
pub use rule::{Forbidden, may, required_role, visible_services};
pub use verb::Verb;
