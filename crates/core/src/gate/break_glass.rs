//! Break-glass: a person opens all gates of a rollout in an emergency, and another one reviews that afterwards.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::approver::ApprovingPerson;

/// All gates of a rollout were opened in an emergency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenGlass {
    pub by: ApprovingPerson,
    pub at: Timestamp,
    pub reason: String,
    /// None as long as no second person has confirmed that they looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<GlassReview>,
}

/// The confirmation of a second person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlassReview {
    pub by: String,
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}
