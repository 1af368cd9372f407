//! Releases of all services.

use serde::{Deserialize, Serialize};
use shipway_core::{ids::ServiceName, service::ReleaseView};
use utoipa::{IntoParams, ToSchema};

use crate::TimeBound;

/// Which releases to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReleaseListQuery {
    /// Only of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only those of this branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Only those that this person pushed or asked for; upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Only releases made at this time or later: `2026-11-30T12:00:00Z`, `2026-11-30`, or `24h` and `7d` before now.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<TimeBound>,
    /// Only releases made before this time.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<TimeBound>,
    /// How many entries; 50 by default, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// What a person can do to a release as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseAction {
    /// Refuse it in every environment, and roll its rollouts in progress back.
    Reject,
    /// Take a rejection back.
    Accept,
}

impl ReleaseAction {
    /// The last segment of its address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Accept => "accept",
        }
    }
}

/// Details of an action.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseActionRequest {
    /// Required to reject a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A release with its service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedRelease {
    pub service: ServiceName,
    #[serde(flatten)]
    pub release: ReleaseView,
    /// The branch that it was released from.
    pub branch: String,
    /// Who pushed it, or started what made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}
