//! Who changed what.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::TimeBound;

/// Which changes to list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditListQuery {
    /// Only of this service.
    pub service: Option<String>,
    /// Only by this person; case and address don't count.
    pub person: Option<String>,
    /// Only at this time or later: `2026-11-30T12:00:00Z`, `2026-11-30`, or `24h` and `7d` before now.
    #[param(value_type = Option<String>)]
    #[serde(default)]
    pub since: Option<TimeBound>,
    /// Only before this time.
    #[param(value_type = Option<String>)]
    #[serde(default)]
    pub until: Option<TimeBound>,
    /// How many entries; 50 by default, at most 200.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<u64>,
}
