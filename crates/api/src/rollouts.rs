//! Rollouts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shipway_analysis::{Judgement, plot::MetricSeries};
use shipway_core::{
    gate::{ApprovalBinding, SeenSubject},
    ids::{Digest, RolloutId},
    rollout::RolloutStatus,
};
use utoipa::{IntoParams, ToSchema};

use crate::TimeBound;

/// Which rollouts to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RolloutListQuery {
    /// Only of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only of this environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Only those with this status.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RolloutStatus>,
    /// Only those that this person pushed or asked for; upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Only those whose last change is at this time or later: `2026-11-30T12:00:00Z`, `2026-11-30`, or `24h` and `7d` before now.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<TimeBound>,
    /// Only those whose last change is before this time.
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<TimeBound>,
    /// Only those in progress.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
    /// How many entries; 50 by default, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// What a person can do to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutAction {
    /// Approve it at its gate.
    Approve,
    /// Reject it at its gate.
    Reject,
    /// Open all gates in an emergency.
    BreakGlass,
    /// Confirm, as another person, that an emergency was looked at.
    Review,
    /// Stop shifting traffic.
    Pause,
    /// Continue after a pause.
    Resume,
    /// Skip the remaining holds.
    Promote,
    /// Roll back to stable.
    Abort,
    /// Roll the same release out again, after the end.
    Retry,
}

impl RolloutAction {
    /// The last segment of its address.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::BreakGlass => "break_glass",
            Self::Review => "review",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Retry => "retry",
        }
    }
}

/// Details of an action.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutActionRequest {
    pub reason: Option<String>,
    /// For a decision: the digest of the plan that was seen, `gate.subject` of the rollout. The decision is refused if another plan
    /// waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub plan: Option<Digest>,
    /// For a decision: the whole subject that was seen, `gate.binding` of the rollout. The refusal then names the changed parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub seen: Option<ApprovalBinding>,
    /// Refused unless empty: the server knows the groups of the caller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl RolloutActionRequest {
    /// What the person who decides has seen.
    #[must_use]
    pub fn seen_subject(&self) -> SeenSubject {
        match (&self.plan, &self.seen) {
            // A digest that was named on its own outweighs what a program has filled in.
            (Some(plan), Some(seen)) if *plan != seen.plan => SeenSubject::Plan(plan.clone()),
            (_, Some(seen)) => SeenSubject::Binding(Box::new(seen.clone())),
            (Some(plan), None) => SeenSubject::Plan(plan.clone()),
            (None, None) => SeenSubject::Unspecified,
        }
    }
}

/// A link with which the caller decides about a rollout later, without signing in.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalLinkRequest {
    /// `approve` or `reject`.
    pub decision: LinkedDecision,
    /// How long it can be used; 24 by default, at most 720.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 720)]
    pub expires_in_hours: Option<u32>,
}

/// What a link decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkedDecision {
    Approve,
    Reject,
}

/// A link, which is shown once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CreatedApprovalLink {
    pub address: String,
    /// The user for whom it decides.
    pub user: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// The analysis of a rollout over time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnalysisReport {
    pub id: RolloutId,
    /// The newest verdict.
    pub judgement: Option<Judgement>,
    /// One for each metric, in the order of the rules.
    pub series: Vec<MetricSeries>,
}
