//! The access of a request, for as long as its response lasts.

use jiff::Timestamp;
use shipway_core::access::Principal;

use super::access_secret::AccessSecret;

/// The credential that a request's access follows from.
#[derive(Clone, Debug)]
pub(crate) enum AccessGrant {
    AccessToken(AccessSecret),
    /// The cookie of a session.
    Session(AccessSecret),
    /// None: the server has no users and no token.
    OpenServer,
    /// The server's token, which is valid until the server stops.
    ServerToken,
    /// The token of a job, whose process ends with it.
    JobToken,
}

impl AccessGrant {
    /// Whether the access can end while the server runs.
    pub(crate) const fn can_end(&self) -> bool {
        match self {
            Self::AccessToken(_) | Self::Session(_) | Self::OpenServer => true,
            Self::ServerToken | Self::JobToken => false,
        }
    }
}

/// A principal, and when its access ends by time.
pub(super) struct TimedAccess {
    pub(super) principal: Principal,
    pub(super) ends_at: Option<Timestamp>,
}

impl TimedAccess {
    /// Whether it has all roles that were granted. The roles of a token itself don't change.
    pub(super) fn includes(&self, granted: &Principal) -> bool {
        let roles = &self.principal.roles;
        granted.roles.iter().all(|role| roles.contains(role))
    }
}
